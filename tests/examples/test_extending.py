"""The page for those who extend: its code runs, and the names that it gives are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "docs/extending.md", "exec"), names)


def test_the_files_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"`((?:[a-z]+/)+(?:[a-z_]+\.py)?)`", PAGE))
    assert len(named) > 10
    places = (ROOT, ROOT / "mpc_gym")
    assert not [each for each in named if not any((at / each).exists() for at in places)]
