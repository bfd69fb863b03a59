"""The site's moving picture is the README's, which lies in `videos/`: one file for both."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

VIDEO = Path(__file__).parents[2] / "videos" / "demo.gif"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add it, as `images/demo.gif`."""
    files.append(File.generated(config, "images/demo.gif", abs_src_path=str(VIDEO)))
    return files
