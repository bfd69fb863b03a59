"""The Python blocks of a page."""

import re
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(
    r'^```python(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block: the line of the page it begins at, its title, or an empty one, and its code."""

    line: int
    title: str
    code: str


class Program(NamedTuple):
    """A block as it is run: its code, and the files that it may import, which have a title."""

    code: str
    files: tuple[tuple[str, str], ...]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page."""
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
        if block.title:
            files += ((block.title, block.code),)
        found[block.line] = Program(block.code, files)
    return found
