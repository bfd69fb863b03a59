"""A command whose option is impossible says which, in words, and ends with exit code 2."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mpc_gym.experiments.agents
import mpc_gym.experiments.demo
import mpc_gym.experiments.film
import mpc_gym.experiments.runs
from mpc_gym.cli import app
from reproduction.__main__ import app as reproduce

LONG = "a" * 5000
HUGE = [str(10**18), str(10**400)]
NO_NUMBER = ["", "x", "nan", "True", "0x10", "--seed"]
BAD = {
    "count": [*NO_NUMBER, *HUGE, "1.5", "0", "-1", "inf"],
    "seed": [*NO_NUMBER, "1.5", "-1", "inf", str(10**30), str(10**400)],
    "number": [*NO_NUMBER, "inf", "-inf", "0", "-1", "1e400", "1e30"],
    "env": ["", "x", "Pendulum-v1", "CartPole-v1", "diffpendulum-v0", "../../etc", "señor 🙂"],
    "policy": ["", "x", "/etc/passwd", "/etc", "/dev/null", LONG, "DiffCartPole-v0/mpc"],
    "path": ["/dev/null/x", "/proc/x", LONG],
    "word": ["", "x", "LOCAL", "señor 🙂"],
    "method": ["", "x", ":", "os:system", "nope:f", "json:nothing", "mpc.DX"],
    "learn": ["", "x", "=1", "mass=", "mass=x", "mass=nan", "mass=-1", "mass=1e400", "linear=1"],
    "file": ["", "/dev/null", "/dev/zero", "/etc/passwd", "/etc", "/nope.npz", LONG],
    "film": [*NO_NUMBER, *HUGE, "-1", "7", "1.5"],
}
PENDULUM = {"env": "DiffPendulum-v0"}
EPISODES = {"env": "env", "policy": "policy", "episodes": "count", "seed": "seed"}
COMPUTED = {"env": "env", "learn": "learn", "effort": "number", "seed": "seed", "folder": "path"}
WHERE = {"jobs": "count", "engine": "word", "address": "word"}
COMMANDS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "demo": ({}, {"env": "env", "demonstrations": "count", "seed": "seed", "folder": "path"}),
    "record": (PENDULUM, {**EPISODES, "folder": "path", "max-steps": "count"}),
    "collect": (
        {**PENDULUM, "file": "new.npz"},
        {**EPISODES, "file": "path", "max-steps": "count"},
    ),
    "evaluate": ({**PENDULUM, "policy": "expert"}, {**EPISODES, "max-steps": "count"}),
    "train": (
        PENDULUM,
        {**COMPUTED, "method": "method", "file": "file", "demonstrations": "count"},
    ),
    "compare": (
        PENDULUM,
        {
            **COMPUTED,
            **WHERE,
            **dict.fromkeys(("demonstrations", "seeds", "episodes", "max-steps"), "count"),
            "methods": "method",
            "film": "film",
        },
    ),
    "reproduce": ({}, {**WHERE, "only": "word", "folder": "path", "seed": "seed"}),
}


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What would be computed if a bad value were accepted raises an error that nobody catches."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the value was accepted")

    monkeypatch.chdir(tmp_path)
    for module, name in (
        (mpc_gym.experiments.demo, "_run"),
        (mpc_gym.experiments.film, "play"),
        (mpc_gym.experiments.runs, "workers"),
        (mpc_gym.experiments.agents, "collect"),
        (mpc_gym.experiments.agents, "evaluate"),
    ):
        monkeypatch.setattr(module, name, refuse)


def answer(command: str, options: dict[str, str]) -> tuple[int, str]:
    """The exit code, and what is printed, without its frame."""
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    called = (reproduce, []) if command == "reproduce" else (app, [command])
    result = CliRunner().invoke(called[0], [*called[1], *arguments], env={"COLUMNS": "400"})
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command, (_, options) in COMMANDS.items() for option in options],
)
def test_an_impossible_option_is_named(command: str, option: str) -> None:
    right, kinds = COMMANDS[command]
    wrong = []
    for value in BAD[kinds[option]]:
        code, text = answer(command, {**right, option: value})
        message = text.partition("Error")[2].replace("-", "_")
        if code != 2 or option.replace("-", "_") not in message or "Traceback" in text:
            wrong.append(f"{value[:40]!r}: {code}: {text[-200:]}")
    assert not wrong


def test_options_that_exclude_each_other_are_refused() -> None:
    assert answer("reproduce", {"only": "lqr", "seed": "0", "address": "x"})[0] == 2
    code, text = answer("compare", {**PENDULUM, "engine": "dask"})
    assert code == 2
    assert "needs the address of a scheduler" in text
