import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mpc_gym.experiments.run import Run, attempt, check_folder, finished, versions_text
from mpc_gym.experiments.runs import execute
from tests.experiments.toy_runs import WALK, UnportableError, walks
from tests.mutations import of_bytes, of_json, refusals


@pytest.mark.parametrize(
    "name", ["", "../a", "a/../b", "/a", "a//b", "a/", ".", ".a", "a\\b", "C:a", "a\n"]
)
def test_a_name_that_is_no_path_below_the_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be folders parted by '/'"):
        Run(name, WALK, {"seed": 0})


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        ("tests.experiments.toy_runs:no_such", {}, "no_such"),
        ("tests.experiments.no_such:walk", {}, "No module named"),
        ("walk", {}, "must be 'package.module:function'"),
        ("", {}, "must be 'package.module:function'"),
        (WALK, {"seed": 0, "speed": 1}, "unexpected keyword argument 'speed'"),
        (WALK, {}, "missing a required"),
        (WALK, {"seed": torch.tensor(0)}, "must be JSON data"),
        (WALK, {"seed": math.nan}, "must be JSON data"),
    ],
)
def test_a_function_or_settings_that_cannot_be_used_are_refused(
    function: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Run("a", function, settings)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    outcome = attempt(walks(1)[0], tmp_path / "elsewhere", timeout=0)
    assert "must see the experiment's folder under the same path" in str(outcome.failure)


@pytest.mark.parametrize("value", [3, {"a": torch.zeros(1)}])
def test_a_result_that_is_no_dict_of_json_data_is_a_failure(
    tmp_path: Path, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.experiments.toy_runs.walk", lambda folder: value)
    run = Run("a", WALK, {})
    (tmp_path / "a").mkdir()
    outcome = attempt(run, tmp_path, timeout=0)
    assert isinstance(outcome.failure, TypeError)
    assert not (tmp_path / "a" / "result.json").exists()


def test_an_exception_that_cannot_travel_between_processes_is_told_in_words(
    tmp_path: Path,
) -> None:
    run = Run("a", WALK, {"seed": 0, "trouble": "blunder"})
    (tmp_path / "a").mkdir()
    outcome = attempt(run, tmp_path, timeout=0)
    assert type(outcome.failure) is RuntimeError
    assert str(outcome.failure) == f"{UnportableError.__name__}: 1 is not 2"
    assert "in blunder" in outcome.trace


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_whatever_happens_to_a_runs_files_they_are_read_or_refused(
    tmp_path: Path, name: str
) -> None:
    (run,) = walks(1)
    execute([run], tmp_path)
    place = tmp_path / run.name

    def read() -> None:
        check_folder(run, place)
        finished(run, place)
        versions_text([place])

    read()
    content = (place / name).read_bytes()
    contents = itertools.chain(of_bytes(content, 200, seed=0), of_json(content, 400, seed=1))
    assert refusals(place / name, contents, read) > 200
