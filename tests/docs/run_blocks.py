"""Run the Python blocks of pages, each alone.

    python tests/docs/run_blocks.py

reads the path of a page from a line, runs its blocks, and answers with a line: as JSON, what failed
and what it wrote. A block is a program in a folder of its own, where the blocks above it that have
a title are files of that name. It runs in a process of its own, forked from this one, which has
imported what takes long, but nothing of mpc_gym. What several pages have in common is run once.
"""

import contextlib
import json
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
import matplotlib.pyplot  # noqa: ICN001
import numba  # noqa: F401
import stable_baselines3  # noqa: F401
import torch
import torch._dynamo

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r'^```python(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block: the line of the page it begins at, its title, or an empty one, and its code."""

    line: int
    title: str
    code: str


class Program(NamedTuple):
    """What is run: the code of a block, its name, and the files that it may import."""

    name: str
    code: str
    files: tuple[tuple[str, str], ...]


def blocks(page: Path) -> list[Block]:
    """The Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text[: found.start("code")].count("\n") + 1, found["title"] or "", found["code"])
        for found in BLOCK.finditer(text)
    ]


def programs(page: Path) -> dict[int, Program]:
    """The blocks of a page as programs, by the line that they begin at."""
    files: tuple[tuple[str, str], ...] = ()
    found = {}
    for block in blocks(page):
        found[block.line] = Program(block.title or "block.py", block.code, files)
        files += ((block.title, block.code),) if block.title else ()
    return found


def run(program: Program, folder: Path) -> str | None:
    """What the program wrote before it failed, in a process of its own; None if it did not."""
    for name, code in (*program.files, (program.name, program.code)):
        (folder / name).write_text(code, encoding="utf-8")
    output = folder / "output.txt"
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):  # workers that it has left
            os.killpg(child, signal.SIGKILL)
        return output.read_text(encoding="utf-8", errors="replace") if status else None
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        with output.open("wb") as file, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)  # not the pages that come next
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.path[:0] = [str(folder)]
        if "push_to_hub" in program.code:
            _without_network(folder)
        runpy.run_path(str(folder / program.name), run_name="__main__")
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


def main() -> None:
    """Answer until there are no more pages."""
    torch.set_num_threads(1)
    mpl.use("agg")
    passed: set[Program] = set()
    for line in sys.stdin:
        page, failures = Path(line.rstrip("\n")), []
        for number, program in programs(page).items():
            if program in passed:
                continue
            with tempfile.TemporaryDirectory() as folder:
                written = run(program, Path(folder))
            if written is None:
                passed.add(program)
            else:
                failures.append(f"{page.name}:{number} failed\n{written}")
        sys.stdout.write(json.dumps(failures) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
