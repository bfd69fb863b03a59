"""The methods of learning from demonstrations that are compared.

A method is a function of demonstrations, environment, seed, folder and options that returns a
policy. To add one, write such a function anywhere and name it "package.module:function", or put
it into `METHODS`.

What they are told differs, and so does what they know beforehand (`Method.knows`, `Method.sees`).
Those that learn the dynamics begin with the wrong physics of `environments` (`mpc.dx` from others
around it, too), those that learn the cost with all its weights at sigmoid(0) = 0.5 and without
linear terms, as in Amos et al. (2018).
"""

import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from mpc_gym.checks import check_instance, found
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.experiments.progress import Advance
from mpc_gym.imitation import (
    BehavioralCloning,
    Demonstrations,
    SystemIdentification,
    concatenate,
    identify,
)
from mpc_gym.imitation.episodes import EnvSource
from mpc_gym.imitation.metrics import Row
from mpc_gym.imitation.transitions import transitions_of
from mpc_gym.make_mpc import make_mpc
from mpc_gym.mpc import MPC
from mpc_gym.policies import LSTMPolicy, MPCPolicy

MAX_EPOCHS = 300
MAX_ITERATIONS = 50  # plans that take more have settled long before
VALIDATION_FRACTION = 0.2
BATCH_SIZE = 256

# Of `BehavioralCloning`. The prediction of the next state finds the physics from afar, where most
# plans begin at a bound and the action has no gradient; the action then agrees with it.
CLONE_DYNAMICS: dict[str, Any] = {"prediction_weight": 10.0, "learning_rate": 0.1}
STARTS = 8  # of a fit before it: from one alone, it may end where the mass of a pole has vanished
SPREAD = 3.0  # the largest factor between another start and the wrong physics
CLONE_COST: dict[str, Any] = {"optimizer": "rmsprop", "learning_rate": 0.03}
CLONE_NETWORK: dict[str, Any] = {"learning_rate": 3e-3}
# Of every training.
TRAINING: dict[str, Any] = {"batch_size": BATCH_SIZE, "validation_fraction": VALIDATION_FRACTION}
CHECKPOINT_SECONDS = 3.0

InitialValue = float | list[float] | None


@dataclass(frozen=True)
class MethodOptions:
    """How a method learns.

    Args:
        learn: what of the model it learns, by the parameters' names, and the initial value of each
            (None: an addition to the cost, zero). See `MPCPolicy`.
        horizon: of plans and sequences.
        starts: initial guesses of each plan.
        updates: steps of the optimiser, about; see `epochs`. The fits before them do not count.
        hidden: units of the LSTM.
    """

    learn: Mapping[str, InitialValue] = field(default_factory=dict)
    horizon: int = 20
    starts: int = 8
    updates: int = 100
    hidden: int = 64

    @property
    def planning(self) -> dict[str, Any]:
        """Options of an MPC; the expert has them too, so that with the same physics they agree."""
        return {"horizon": self.horizon, "starts": self.starts, "max_iterations": MAX_ITERATIONS}

    def expert(self, env: str | gym.Env[Any, Any]) -> MPC:
        """What the expert of an environment plans with: the true model."""
        return make_mpc(env, learn=(), model="true", **self.planning)


ARGUMENTS = ("demonstrations", "env_id", "seed", "folder", "options")
Train = Callable[[Demonstrations, str, int, Path | None, MethodOptions], BasePolicy]


@dataclass(frozen=True)
class Method:
    """A way of learning from demonstrations.

    Args:
        name: as it is chosen by.
        knows: what of the expert's model it has beforehand.
        sees: what of the demonstrations it learns from.
        learns: "dynamics", "cost", both or none.
        updates: steps of the optimiser.
        train: the function: (demonstrations, id of the environment, seed, folder for log and
            checkpoint or None, options) -> policy, one that `load_pretrained` can read. It goes on
            from a checkpoint in the folder.
    """

    name: str
    knows: str
    sees: str
    learns: tuple[str, ...]
    updates: int
    train: Train

    def scaled_updates(self, effort: float) -> int:
        """Steps of the optimiser, of which there are so many times as many as usual."""
        return max(1, round(effort * self.updates))


def find_method(name: str, argument: str = "methods") -> Method:
    """The method of a name, or that of a function given as "package.module:function".

    Args:
        name: of the method.
        argument: that it was given for, for messages.

    Raises:
        TypeError: the name is no text.
        ValueError: there is none.
    """
    check_instance(argument, name, str, "a method's name")
    if name in METHODS:
        return METHODS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f"{argument} must be of {', '.join(METHODS)}, or a function of your own as "
            f"'package.module:function', got {name!r}"
        )
    try:
        train = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{argument}: {name!r} cannot be imported: {error}") from error
    if not callable(train) or not _takes(train, len(ARGUMENTS)):
        raise ValueError(
            f"{argument}: {name!r} must be a function of {', '.join(ARGUMENTS)}, got {found(train)}"
        )
    return Method(name, "-", "-", (), 1000, train)


def _takes(function: Callable[..., object], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*range(arguments))
    except (TypeError, ValueError):  # of some functions written in C nobody knows the arguments
        return False
    return True


@contextmanager
def without_convergence_warnings() -> Iterator[None]:
    """Do not warn that plans did not converge: with wrong physics some do not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ control problems did not converge")
        yield


def epochs(demonstrations: Demonstrations, updates: int, batch_size: int) -> int:
    """How often to go through the demonstrations to make about so many steps.

    With few demonstrations that would be very often, and of no use: at most `MAX_EPOCHS`.
    """
    steps = len(demonstrations) * (1 - VALIDATION_FRACTION)
    return min(MAX_EPOCHS, math.ceil(updates / math.ceil(steps / batch_size)))


def make_policy(
    policy_class: type[BasePolicy], env: EnvSource, seed: int | None = None, **options: Any
) -> BasePolicy:
    """A policy for an environment.

    Args:
        policy_class: of the policy.
        env: the environment, or its id.
        seed: which alone decides the initial weights; None: the caller's random numbers do.
        **options: of the policy.
    """
    made = gym.make(env) if isinstance(env, str) else env
    observations, actions = made.observation_space, made.action_space
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if issubclass(policy_class, MPCPolicy) and not isinstance(observations, EnvBox):
            options["mpc"] = env  # the spaces of other packages do not say whose they are
        policy = policy_class(observations, actions, _no_schedule, **options)
    return policy  # noqa: RET504  (to a type checker, the context might swallow an exception)


def clone_by_epochs(
    policy: BasePolicy,
    demonstrations: Demonstrations,
    epochs: int,
    seed: int,
    recipe: Mapping[str, Any],
    advance: Advance,
) -> list[Row]:
    """Clone an expert, and say after each epoch that it is done.

    Args:
        policy: trained in place.
        demonstrations: of the expert.
        epochs: how many.
        seed: of the order of learning.
        recipe: options of `BehavioralCloning` beside those of `TRAINING`.
        advance: called after each epoch.

    Returns:
        What was logged, a row an epoch.
    """
    cloning = BehavioralCloning(policy, demonstrations, seed=seed, **TRAINING, **recipe)
    for epoch in range(1, epochs + 1):
        cloning.train(epoch, progress_bar=False)
        advance()
    return cloning.history


def _no_schedule(_: float) -> float:
    """The learning rate of SB3's optimiser, which is not used: cloning brings its own."""
    return 0.0


def _clone(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
    *,
    policy_class: type[BasePolicy] = MPCPolicy,
    **cloning: Any,
) -> BasePolicy:
    """Learn the expert's actions, by gradients through plans or networks."""
    policy = make_policy(policy_class, env_id, seed, **_policy_options(policy_class, options))
    return _cloned(policy, demonstrations, seed, folder, options, cloning)


def _fit_and_clone(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """Learn to predict, by least squares, and from there the expert's actions.

    Both at once, by gradients from afar, does not come to the physics in as many steps: where there
    is one demonstration, a model on the way acts as it shows, and badly elsewhere.
    """
    fits = [
        _fitted(demonstrations, env_id, seed, replace(options, learn=start))
        for start in _starts(options.learn, seed)
    ]
    _, policy = min(fits, key=lambda fit: fit[0])
    return _cloned(policy, demonstrations, seed, folder, options, CLONE_DYNAMICS)


def _starts(learn: Mapping[str, InitialValue], seed: int) -> Iterator[dict[str, InitialValue]]:
    """The initial values of the physics, and others by a random factor each."""
    yield dict(learn)
    values = {name: np.array(value, dtype=float) for name, value in learn.items()}
    rng = np.random.default_rng(seed)
    for _ in range(STARTS - 1):
        yield {
            name: (value * SPREAD ** rng.uniform(-1.0, 1.0, value.shape)).tolist()
            for name, value in values.items()
        }


def _fitted(
    demonstrations: Demonstrations, env_id: str, seed: int, options: MethodOptions
) -> tuple[float, BasePolicy]:
    """The policy whose physics was fitted from one start, and what is left of the model loss.

    It is infinite where the start predicts nothing finite.
    """
    policy = make_policy(MPCPolicy, env_id, seed, **_policy_options(MPCPolicy, options))
    assert isinstance(policy, MPCPolicy)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the fit used all of max_iterations")
        try:
            history = identify(policy.mpc.dynamics, transitions_of(policy, demonstrations))
        except FloatingPointError:
            return math.inf, policy
    return history[-1]["train/loss"], policy


def _cloned(
    policy: BasePolicy,
    demonstrations: Demonstrations,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
    cloning: Mapping[str, Any],
) -> BasePolicy:
    """The policy, which has learned the expert's actions."""
    examples, cloning = _examples(demonstrations), {**TRAINING, **cloning}
    training = BehavioralCloning(
        policy,
        examples,
        seed=seed,
        folder=folder,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        **cloning,
    )
    count = epochs(examples, options.updates, cloning["batch_size"])
    return training.train(count, progress_bar=False)


def _policy_options(policy_class: type[BasePolicy], options: MethodOptions) -> dict[str, Any]:
    if issubclass(policy_class, MPCPolicy):
        return {"learn": dict(options.learn), **options.planning}
    if issubclass(policy_class, LSTMPolicy):
        return {"horizon": options.horizon, "hidden": options.hidden}
    return {}


def _identify_system(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """Learn to predict, then plan."""
    policy = make_policy(MPCPolicy, env_id, seed, **_policy_options(MPCPolicy, options))
    examples = _examples(demonstrations)
    SystemIdentification(
        policy,
        examples,
        learning_rate=0.1,
        seed=seed,
        folder=folder,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        **TRAINING,
    ).train(epochs(examples, options.updates, BATCH_SIZE), progress_bar=False)
    return policy


def _examples(demonstrations: Demonstrations) -> Demonstrations:
    """To be split: the only demonstration there is serves for learning and for validation."""
    if demonstrations.episodes > 1:
        return demonstrations
    return concatenate([demonstrations, demonstrations])


_PHYSICS = "the cost, and the equations of motion with wrong parameters"
_BOTH = "actions and next observations"
_METHODS = (
    Method("mpc.dx", _PHYSICS, _BOTH, ("dynamics",), 100, _fit_and_clone),
    Method(
        "mpc.dx.actions",
        _PHYSICS,
        "actions",
        ("dynamics",),
        100,
        partial(_clone, **{**CLONE_DYNAMICS, "prediction_weight": 0.0}),
    ),
    Method(
        "mpc.cost",
        "the dynamics, and the cost with wrong weights",
        "actions",
        ("cost",),
        200,
        partial(_clone, **CLONE_COST),
    ),
    Method(
        "mpc.cost.dx",
        "the equations of motion and the cost, both with wrong parameters",
        _BOTH,
        ("dynamics", "cost"),
        200,
        partial(_clone, **{**CLONE_DYNAMICS, **CLONE_COST}),
    ),
    Method("sysid", _PHYSICS, "next observations", ("dynamics",), 300, _identify_system),
    Method(
        "mlp",
        "nothing",
        "actions",
        (),
        10_000,
        partial(_clone, policy_class=ActorCriticPolicy, batch_size=128, **CLONE_NETWORK),
    ),
    Method(
        "nn",
        "nothing",
        "actions, over the next steps",
        (),
        2000,
        partial(_clone, policy_class=LSTMPolicy, loss="plan", batch_size=64, **CLONE_NETWORK),
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
