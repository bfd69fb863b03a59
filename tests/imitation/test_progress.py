"""Long work shows how far it is, where somebody can watch."""

import functools
import io

import pytest
from stable_baselines3 import PPO
from tqdm import tqdm

from mpc_gym.imitation import (
    BehavioralCloning,
    DAgger,
    Demonstrations,
    FitOptions,
    collect,
    fit_dynamics,
)
from mpc_gym.imitation import progress as module
from mpc_gym.imitation.progress import progress
from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import LearnedDynamics
from mpc_gym.mpc import MPC

ENV = "DiffPendulum-v0"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class NotebookStream(io.StringIO):
    """What `sys.stderr` is in a notebook: no terminal, as its class says by its module."""


NotebookStream.__module__ = "ipykernel.iostream"


@pytest.fixture
def expert() -> MPC:
    return make_mpc(ENV, horizon=5, max_iterations=30)


@pytest.fixture
def demonstrations(expert: MPC) -> Demonstrations:
    return collect(expert, ENV, episodes=2, max_steps=5)


@pytest.mark.parametrize("stream", [Terminal, NotebookStream])
def test_long_work_is_shown_to_who_watches(stream, monkeypatch) -> None:
    shown = stream()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(module, "SECONDS", 0.0)
    with progress("training", 10, None, "epoch") as update:
        update(4, "validation loss 1.00e-02")
        update(10)
    assert "training" in shown.getvalue()
    assert "10/10" in shown.getvalue()


def test_short_work_and_what_nobody_watches_is_silent(monkeypatch) -> None:
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        with progress("training", 10, None, "epoch") as update:
            update(10)
        assert not stream.getvalue()


def test_collecting_shows_its_steps(expert, capsys, monkeypatch) -> None:
    every = functools.partial(tqdm, mininterval=0.0)  # it shows no more than ten updates a second
    monkeypatch.setattr(module, "tqdm", every)
    collect(expert, ENV, episodes=2, max_steps=7, progress_bar=True)
    shown = capsys.readouterr().err
    assert "7/7" in shown
    assert "2 of 2 episodes" in shown


def test_cloning_shows_epochs_and_loss(demonstrations, capsys) -> None:
    model = PPO("MlpPolicy", ENV, device="cpu")
    cloning = BehavioralCloning(model.policy, demonstrations)
    cloning.train(3, progress_bar=True)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert f"validation loss {cloning.history[-1]['validation/loss']:.2e}" in shown
    cloning.train(6, progress_bar=True)
    assert "6/6" in capsys.readouterr().err
    cloning.train(9, progress_bar=False)
    assert not capsys.readouterr().err


def test_dagger_shows_its_rounds_and_what_each_does(expert, capsys) -> None:
    model = PPO("MlpPolicy", ENV, device="cpu")
    dagger = DAgger(model.policy, expert, ENV, episodes=2, epochs=4, max_steps=6)
    dagger.train(2, progress_bar=True)
    shown = capsys.readouterr().err
    for part in ("DAgger", "2/2", "acting", f"{dagger.history[-1]['validation_loss']:.2e}"):
        assert part in shown


def test_fitting_dynamics_shows_its_epochs(demonstrations, capsys) -> None:
    options = FitOptions(epochs=3)
    fit_dynamics(LearnedDynamics(3, 1), demonstrations, options, progress_bar=True)
    assert "3/3" in capsys.readouterr().err
    fit_dynamics(LearnedDynamics(3, 1), demonstrations, options, progress_bar=False)
    assert not capsys.readouterr().err
