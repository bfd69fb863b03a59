"""Every Python block of README and documentation runs, alone, as a reader would run it."""

import os
import subprocess
import sys
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


def run_page(page: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), str(page)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs_alone(page: Path) -> None:
    ended = run_page(page)
    assert ended.returncode == 0, ended.stderr


def test_a_block_that_needs_a_name_of_another_is_found(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    ended = run_page(page)
    assert ended.returncode == 1
    assert "NameError: name 'x' is not defined" in ended.stderr
    assert "page.md:7 failed" in ended.stderr


def test_no_block_is_overlooked() -> None:
    for page in PAGES:
        assert len(blocks(page)) == page.read_text(encoding="utf-8").count("```python"), page
