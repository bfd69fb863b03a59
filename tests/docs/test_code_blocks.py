"""Every Python block of README and documentation runs, alone, as a reader would run it."""

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import Program, blocks, programs
from tests.scripts import CAN_FORK, Scripts

ROOT = Path(__file__).parents[2]
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

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="an interpreter for each block takes too long")

# folders in the place of the Hugging Face Hub
WITHOUT_NETWORK = f"""
import runpy, sys
from pathlib import Path

import huggingface_hub

sys.path[1:1] = [{str(ROOT)!r}]
from tests.policies.sharing.test_hub import Hub

hub = Hub(Path("hub").resolve())
huggingface_hub.snapshot_download = hub.snapshot_download
huggingface_hub.HfApi = lambda library_name: hub
runpy.run_path("block.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def passed() -> set[Program]:
    """What pages have in common is run once."""
    return set()


@pytest.fixture
def failures(tmp_path: Path, scripts: Scripts, passed: set[Program]):
    """What fails of the blocks of a page."""

    def failed(line: int, program: Program) -> str:
        if program in passed:
            return ""
        folder = tmp_path / str(line)
        folder.mkdir()
        files = dict(program.files) | {"block.py": program.code, "patched.py": WITHOUT_NETWORK}
        for name, code in files.items():
            (folder / name).write_text(code, encoding="utf-8")
        name = "patched.py" if "push_to_hub" in program.code else "block.py"
        ended = scripts.run(folder / name)
        shutil.rmtree(folder)
        if ended.returncode:
            return f"line {line} failed\n{ended.stderr}"
        passed.add(program)
        return ""

    return lambda page: list(filter(None, (failed(*each) for each in programs(page).items())))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs_alone(page: Path, failures) -> None:
    failed = failures(page)
    assert not failed, "\n".join(failed)


def test_a_block_that_needs_a_name_of_another_is_found(tmp_path, failures) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    (failed,) = failures(page)
    assert failed.startswith("line 7 failed")
    assert "NameError: name 'x' is not defined" in failed


def test_what_only_one_of_two_equal_blocks_can_import_is_found(tmp_path, failures) -> None:
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
