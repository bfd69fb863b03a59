"""The methods of learning from demonstrations that are compared.

A method is a function of demonstrations, environment, seed, folder and options that returns a
policy. To add one, write such a function anywhere and name it "package.module:function", or put
it into `METHODS`.

What they are told differs, and so does what they know beforehand (`Method.knows`, `Method.sees`).
Those that learn the dynamics begin with the wrong physics of `problems`, those that learn the cost
with all its weights at sigmoid(0) = 0.5 and without linear terms, as in Amos et al. (2018).
"""

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from mpc_gym.checks import check_instance, found
from mpc_gym.imitation import (
    BehavioralCloning,
    Demonstrations,
    SystemIdentification,
    concatenate,
)
from mpc_gym.policies import LSTMPolicy, MPCPolicy

VALIDATION_FRACTION = 0.2
MAX_EPOCHS = 300
CHECKPOINT_SECONDS = 3.0
MAX_ITERATIONS = 50  # as in `demo`: plans that take more have settled long before

Start = float | list[float] | None


@dataclass(frozen=True)
class MethodOptions:
    """How a method learns.

    Args:
        learn: what of the model it learns, by the parameters' names, and where each starts (None:
            an addition to the cost, at zero). See `MPCPolicy`.
        horizon: of plans and sequences.
        starts: initial guesses of each plan.
        updates: steps of the optimiser, about; see `epochs`.
        hidden: units of the LSTM.
    """

    learn: Mapping[str, Start] = field(default_factory=dict)
    horizon: int = 20
    starts: int = 8
    updates: int = 100
    hidden: int = 64

    @property
    def planning(self) -> dict[str, Any]:
        """Options of an MPC; the expert has them too."""
        return {"horizon": self.horizon, "starts": self.starts, "max_iterations": MAX_ITERATIONS}


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
    return Method(name, "its own affair", "its own affair", (), 1000, train)


def _takes(function: Callable[..., object], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*range(arguments))
    except (TypeError, ValueError):  # of some functions written in C nobody knows the arguments
        return False
    return True


def epochs(demonstrations: Demonstrations, updates: int, batch_size: int) -> int:
    """How often to go through the demonstrations to make about so many steps.

    With few demonstrations that would be very often, and of no use: at most `MAX_EPOCHS`.
    """
    steps = len(demonstrations) * (1 - VALIDATION_FRACTION)
    return min(MAX_EPOCHS, math.ceil(updates / math.ceil(steps / batch_size)))


def train_mpc(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
    **cloning: Any,
) -> BasePolicy:
    """Clone the expert's actions by gradients through plans.

    Args:
        demonstrations, env_id, seed, folder, options: of every method.
        **cloning: options of `BehavioralCloning`.
    """
    policy = _make(MPCPolicy, env_id, learn=dict(options.learn), **options.planning)
    return _clone(policy, demonstrations, seed, folder, options.updates, **cloning)


def train_dynamics(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """`mpc.dx`: act as the expert does, and predict what was observed next."""
    # Where most plans begin at a bound the action has no gradient, and the prediction has one.
    return train_mpc(
        demonstrations, env_id, seed, folder, options, prediction_weight=10.0, learning_rate=0.1
    )


def train_dynamics_by_actions(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """`mpc.dx.actions`: act as the expert does, which is all that this method is told."""
    return train_mpc(demonstrations, env_id, seed, folder, options, learning_rate=0.1)


def train_cost(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """`mpc.cost`: act as the expert does, with the true dynamics."""
    return train_mpc(
        demonstrations, env_id, seed, folder, options, optimizer="rmsprop", learning_rate=0.03
    )


def train_cost_and_dynamics(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """`mpc.cost.dx`: both at once."""
    return train_mpc(
        demonstrations,
        env_id,
        seed,
        folder,
        options,
        prediction_weight=10.0,
        optimizer="rmsprop",
        learning_rate=0.03,
    )


def identify_system(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """`sysid`: learn to predict, then plan."""
    policy = _make(MPCPolicy, env_id, learn=dict(options.learn), **options.planning)
    examples = _examples(demonstrations)
    SystemIdentification(
        policy,
        examples,
        learning_rate=0.1,
        batch_size=256,
        validation_fraction=VALIDATION_FRACTION,
        seed=seed,
        folder=folder,
        checkpoint_seconds=CHECKPOINT_SECONDS,
    ).train(epochs(examples, options.updates, 256), progress_bar=False)
    return policy


def clone_with_mlp(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """`mlp`: SB3's `MlpPolicy` clones the actions."""
    policy = _make(ActorCriticPolicy, env_id, seed)
    return _clone(
        policy,
        demonstrations,
        seed,
        folder,
        options.updates,
        learning_rate=3e-3,
        batch_size=128,
    )


def clone_with_lstm(
    demonstrations: Demonstrations,
    env_id: str,
    seed: int,
    folder: Path | None,
    options: MethodOptions,
) -> BasePolicy:
    """`nn`: an LSTM writes down what the expert does over the next steps."""
    policy = _make(LSTMPolicy, env_id, seed, horizon=options.horizon, hidden=options.hidden)
    return _clone(
        policy,
        demonstrations,
        seed,
        folder,
        options.updates,
        loss="plan",
        learning_rate=3e-3,
        batch_size=64,
    )


_PHYSICS = "the cost, and the equations of motion with wrong parameters"
_METHODS = (
    Method("mpc.dx", _PHYSICS, "actions and next observations", ("dynamics",), 100, train_dynamics),
    Method("mpc.dx.actions", _PHYSICS, "actions", ("dynamics",), 100, train_dynamics_by_actions),
    Method(
        "mpc.cost",
        "the dynamics, and the cost with wrong weights",
        "actions",
        ("cost",),
        200,
        train_cost,
    ),
    Method(
        "mpc.cost.dx",
        "the equations of motion and the cost, both with wrong parameters",
        "actions and next observations",
        ("dynamics", "cost"),
        200,
        train_cost_and_dynamics,
    ),
    Method("sysid", _PHYSICS, "next observations", ("dynamics",), 300, identify_system),
    Method("mlp", "nothing", "actions", (), 10_000, clone_with_mlp),
    Method("nn", "nothing", "actions, over the next steps", (), 2000, clone_with_lstm),
)
METHODS: dict[str, Method] = {method.name: method for method in _METHODS}


def _examples(demonstrations: Demonstrations) -> Demonstrations:
    """To be split: the only demonstration there is serves for learning and for validation."""
    if demonstrations.episodes > 1:
        return demonstrations
    return concatenate([demonstrations, demonstrations])


def _clone(
    policy: BasePolicy,
    demonstrations: Demonstrations,
    seed: int,
    folder: Path | None,
    updates: int,
    *,
    batch_size: int = 256,
    **cloning: Any,
) -> BasePolicy:
    examples = _examples(demonstrations)
    training = BehavioralCloning(
        policy,
        examples,
        batch_size=batch_size,
        validation_fraction=VALIDATION_FRACTION,
        seed=seed,
        folder=folder,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        **cloning,
    )
    return training.train(epochs(examples, updates, batch_size), progress_bar=False)


def _make(policy_class: type[BasePolicy], env_id: str, seed: int = 0, **options: Any) -> BasePolicy:
    """A policy for an environment, with initial weights that the seed alone decides."""
    with gym.make(env_id) as env, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = policy_class(env.observation_space, env.action_space, _no_schedule, **options)
    return policy  # noqa: RET504  (to a type checker, the context might swallow an exception)


def _no_schedule(_: float) -> float:
    """The learning rate of SB3's optimiser, which is not used: cloning brings its own."""
    return 0.0
