"""Run the Python blocks of a page, each alone.

    python tests/docs/run_blocks.py PAGE

A block is a program in a folder of its own, where the blocks above it that have a title are files
of that name. It runs in a process of its own, forked from this one, which has imported what takes
long, but nothing of mpc_gym. Writes what failed, and ends with the number of blocks that did.
"""

import contextlib
import os
import re
import runpy
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numba  # noqa: F401
import stable_baselines3  # noqa: F401
import torch

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r'^```python(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block: the line of the page it begins at, its title, or an empty one, and its code."""

    line: int
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    """The Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text[: found.start("code")].count("\n") + 1, found["title"] or "", found["code"])
        for found in BLOCK.finditer(text)
    ]


def run(block: Block, above: list[Block], folder: Path) -> bool:
    """Whether the block runs to its end in a process of its own, in this folder."""
    for each in above:
        if each.title:
            (folder / each.title).write_text(each.code, encoding="utf-8")
    script = folder / (block.title or f"line_{block.line}.py")
    script.write_text(block.code, encoding="utf-8")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):  # workers that it has left
            os.killpg(child, signal.SIGKILL)
        return status == 0
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        sys.path[:0] = [str(folder)]
        if "push_to_hub" in block.code:
            _without_network(folder)
        runpy.run_path(str(script), run_name="__main__")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _without_network(folder: Path) -> None:
    """Put folders in the place of the Hugging Face Hub."""
    import huggingface_hub

    sys.path[:0] = [str(ROOT)]
    from tests.policies.sharing.test_hub import Hub

    hub = Hub(folder / "hub")
    huggingface_hub.snapshot_download = hub.snapshot_download
    huggingface_hub.HfApi = lambda library_name: hub


def main(page: Path) -> int:
    """How many blocks of the page fail."""
    torch.set_num_threads(1)
    mpl.use("agg")
    found = blocks(page)
    failures = 0
    for i, block in enumerate(found):
        with tempfile.TemporaryDirectory() as folder:
            if not run(block, found[:i], Path(folder)):
                failures += 1
                sys.stderr.write(f"{page.name}:{block.line} failed\n")
    return failures


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
