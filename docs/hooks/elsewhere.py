"""What the site shows of the repository's other folders, each file lying in one place alone.

The README's moving picture, and the tutorials, which are examples. `mkdocs-jupyter` runs the
tutorials, since this comes before it.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]


@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, as `images/demo.gif` and `tutorials/*.py`."""
    files.append(
        File.generated(config, "images/demo.gif", abs_src_path=str(ROOT / "videos" / "demo.gif"))
    )
    for tutorial in sorted((ROOT / "examples" / "tutorials").glob("*.py")):
        name = f"tutorials/{tutorial.name}"
        folder = str(ROOT / "examples")
        files.append(File(name, folder, config.site_dir, config.use_directory_urls))
    return files
