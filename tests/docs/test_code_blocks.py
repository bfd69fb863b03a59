"""Every Python block of README and documentation runs, alone, as a reader would run it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.run_blocks import blocks

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).with_name("run_blocks.py")
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
    if "```python" in page.read_text(encoding="utf-8")
]

PAGE = """
```python
x = 1
```

```python
print(x)
```

```python title="kept.py"
x = 2
```

```python
from kept import x
assert x == 2
```
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="blocks are run in forks")


@pytest.fixture(scope="module")
def failures() -> Iterator[Callable[[Path], list[str]]]:
    """What fails of the blocks of a page."""
    command = [sys.executable, str(RUN)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as server:
        assert server.stdin
        assert server.stdout
        questions, answers = server.stdin, server.stdout

        def ask(page: Path) -> list[str]:
            questions.write(f"{page}\n")
            questions.flush()
            return list(json.loads(answers.readline()))

        yield ask


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs_alone(page: Path, failures) -> None:
    failed = failures(page)
    assert not failed, "\n".join(failed)


def test_a_block_that_needs_a_name_of_another_is_found(tmp_path, failures) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    (failed,) = failures(page)
    assert failed.startswith("page.md:7 failed")
    assert "NameError: name 'x' is not defined" in failed


def test_what_only_some_of_the_same_blocks_can_import_is_found(tmp_path, failures) -> None:
    needs, has = tmp_path / "needs.md", tmp_path / "has.md"
    block = "```python\nfrom kept import x\n```\n"
    has.write_text(f'```python title="kept.py"\nx = 1\n```\n\n{block}', encoding="utf-8")
    needs.write_text(block, encoding="utf-8")
    assert not failures(has)
    (failed,) = failures(needs)
    assert "No module named 'kept'" in failed


def test_no_block_is_overlooked() -> None:
    for page in PAGES:
        assert len(blocks(page)) == page.read_text(encoding="utf-8").count("```python"), page
