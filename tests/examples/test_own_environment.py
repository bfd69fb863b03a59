"""The page for those who have an environment: its programs come to the numbers that it names."""

import json
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.scripts import Scripts

PAGE = Path(__file__).parents[2] / "docs" / "own_environment.md"
SHOWN = """
import json
from careful import distance, kept
from identified import identified, wheelbase
from parking import guessed
print(json.dumps([guessed.mean, identified.mean, wheelbase, distance.item(), kept.item()]))
"""


def test_the_page_is_programs_whose_numbers_are_those_it_names(tmp_path, scripts: Scripts) -> None:
    for block in blocks(PAGE):
        (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    shown = tmp_path / "shown.py"
    shown.write_text(SHOWN, encoding="utf-8")
    ended = scripts.run(shown)
    assert ended.returncode == 0, ended.stderr
    guessed, identified, wheelbase, distance, kept = json.loads(ended.stdout.splitlines()[-1])
    assert guessed == pytest.approx(-40, abs=0.5)
    assert identified == pytest.approx(-35, abs=0.5)
    assert wheelbase == pytest.approx(0.8, abs=1e-8)
    assert distance == pytest.approx(0.14, abs=0.005)
    assert kept == pytest.approx(0.4, abs=1e-5)
