"""The page for those who have an environment: its blocks are a script that does what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_environment.md"
SHOWN = """
import json
print(json.dumps([guessed.mean, identified.mean, wheelbase, distance.item(), kept.item()]))
"""


def test_the_page_is_a_script_whose_numbers_are_those_it_names(tmp_path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "script.py"
    script.write_text("\n".join([*blocks, SHOWN]), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    guessed, identified, wheelbase, distance, kept = json.loads(ended.stdout.splitlines()[-1])
    assert guessed == pytest.approx(-40, abs=0.5)
    assert identified == pytest.approx(-35, abs=0.5)
    assert wheelbase == pytest.approx(0.8, abs=1e-8)
    assert distance == pytest.approx(0.14, abs=0.005)
    assert kept == pytest.approx(0.4, abs=1e-5)
