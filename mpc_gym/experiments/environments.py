"""What environments there are, and what of their motion can be learned from which wrong physics.

Only what acts on the motion can be learned. The pendulum's angular acceleration,

    theta'' = 3 g / (2 l) sin(theta) + 3 / (m l^2) torque,

holds two numbers, g/l and 1/(m l^2): infinitely many gravities, masses and lengths move alike. The
cart-pole's equations hold 1/M, m/M, l and g, which determine all four of its parameters.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from rich.table import Table

from mpc_gym.checks import found
from mpc_gym.envs.acrobot import DiffAcrobotEnv
from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.car import DiffCarEnv
from mpc_gym.make_mpc import make_mpc, model_of
from mpc_gym.models import (
    AcrobotDynamics,
    CarDynamics,
    CartPoleDynamics,
    PendulumDynamics,
    PlanarQuadrotorDynamics,
    current_values,
)

Physics = Mapping[str, float]

FLOAT32_MAX = 3.4e38
WRONG = 1.5  # times the true value: where learning begins in a system that is not listed here


@dataclass(frozen=True)
class Quantity:
    """A number that the motion determines.

    Args:
        name: as a formula in the parameters' names.
        of: its value, from the parameters of the dynamics.
    """

    name: str
    of: Callable[[Physics], float]


@dataclass(frozen=True)
class System:
    """What is to be learned of a system's motion, and how far ahead a plan has to look there.

    Args:
        wrong_physics: the first guess of each parameter of the dynamics that is learned.
        quantities: the numbers among what can be learned of them.
        horizon: of plans, where nobody says another.
    """

    wrong_physics: Mapping[str, Any]
    quantities: tuple[Quantity, ...]
    horizon: int = DiffEnv.horizon


def _value(name: str, physics: Physics) -> float:
    return physics[name]


def _parameters(*names: str) -> tuple[Quantity, ...]:
    return tuple(Quantity(name, partial(_value, name)) for name in names)


# The learners of both begin where those of Amos et al. (2018) do.
PENDULUM = System(
    {"gravity": 15.0, "mass": 3.0, "length": 0.5},
    (
        Quantity("gravity / length", lambda p: p["gravity"] / p["length"]),
        Quantity("1 / (mass length²)", lambda p: 1 / (p["mass"] * p["length"] ** 2)),
    ),
)
CARTPOLE = System(
    {"gravity": 9.8, "cart_mass": 3.0, "pole_mass": 0.1, "pole_length": 1.0},
    _parameters("gravity", "cart_mass", "pole_mass", "pole_length"),
)
# Five combinations of the acrobot's parameters act on the motion, which five of them can make up.
ACROBOT = System(
    {
        "gravity": 9.8,
        "upper_mass": 1.5,
        "lower_mass": 0.7,
        "upper_length": 1.3,
        "lower_inertia": 0.7,
    },
    _parameters("gravity", "upper_mass", "lower_mass", "upper_length", "lower_inertia"),
    horizon=DiffAcrobotEnv.horizon,
)
# Gravity is known, and a quadrotor that hovers hardly tells a stronger one from a larger mass.
PLANAR_QUADROTOR = System(
    {"mass": 1.5, "inertia": 0.04, "drag": 0.3}, _parameters("mass", "inertia", "drag")
)
CAR = System(
    {"front": 0.3, "rear": 0.1, "drag": 0.5},
    _parameters("front", "rear", "drag"),
    horizon=DiffCarEnv.horizon,
)
# Libraries of many environments, which bring no model and take long to make.
MODELLESS = ("gymnasium.", "shimmy.")
SYSTEMS = {
    PendulumDynamics: PENDULUM,
    CartPoleDynamics: CARTPOLE,
    AcrobotDynamics: ACROBOT,
    PlanarQuadrotorDynamics: PLANAR_QUADROTOR,
    CarDynamics: CAR,
}


@cache
def find_system(env_id: str) -> System:
    """What is to be learned in an environment: by the class of its nominal dynamics.

    In a system that is not listed, each parameter of the dynamics that is not zero begins at one
    and a half times its value.

    Raises:
        ValueError: the environment has no differentiable model.
    """
    check_env(env_id)
    dynamics: Any = make_mpc(env_id).dynamics
    if type(dynamics) in SYSTEMS:
        return SYSTEMS[type(dynamics)]
    values = current_values(dynamics)
    names = [name for name, _ in dynamics.named_parameters() if values[name].any()]
    wrong = {name: (WRONG * values[name]).tolist() for name in names}
    return System(wrong, _parameters(*(name for name in names if values[name].ndim == 0)))


@cache
def true_physics(env_id: str) -> Physics:
    """The numbers among the parameters of an environment's own dynamics."""
    return _numbers(make_mpc(env_id, model="true").dynamics)


def _numbers(dynamics: Any) -> dict[str, float]:
    values = current_values(dynamics)
    return {
        name: values[name].item()
        for name, _ in dynamics.named_parameters()
        if not values[name].ndim
    }


def environment_ids() -> list[str]:
    """The ids of the registered environments that have a differentiable model."""
    return [env_id for env_id in gym.registry if _has_model(env_id)]


def check_env(env_id: str) -> None:
    """Refuse an environment without a differentiable model.

    Args:
        env_id: the environment's id, perhaps with the module that registers it:
            "package.module:Env-v0".

    Raises:
        ValueError: there is none, or it has no such model.
    """
    if isinstance(env_id, str):
        module, _, name = env_id.rpartition(":")
        try:
            if module:
                importlib.import_module(module)
        except (ImportError, ValueError) as error:
            raise ValueError(f"env: {module!r} cannot be imported: {error}") from error
        if _has_model(name):
            return
    raise ValueError(
        f"env must be one of {', '.join(environment_ids())}, or another registered environment "
        f"with a differentiable model, perhaps with its module, 'package.module:Env-v0'; got "
        f"{found(env_id)}"
    )


def _has_model(registered: str) -> bool:
    spec = gym.registry.get(registered)
    if spec is None:
        return False
    entry: Any = spec.entry_point
    made_by = getattr(entry, "func", entry)  # of a partial
    module = entry if isinstance(entry, str) else getattr(made_by, "__module__", "")
    if entry is None or module.startswith(MODELLESS):
        return False
    try:
        creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
        plain = isinstance(creator, type) and not issubclass(creator, gym.Wrapper)
        if plain and (issubclass(creator, DiffEnv) or not hasattr(creator, "nominal_dynamics")):
            inspect.signature(creator).bind(**spec.kwargs)  # the id alone makes it
            return issubclass(creator, DiffEnv)
        model_of("env", registered)
    except Exception:  # whatever the modules of others raise when they are imported or made
        return False
    return True


def can_draw(env_id: str) -> bool:
    """Whether there can be videos of an environment."""
    env = gym.make(env_id)
    return "rgb_array" in env.metadata.get("render_modes", ())


def environments_table() -> Table:
    """The ids, with spaces, limits, time limit and physical parameters with their defaults."""
    table = Table(show_lines=True)
    table.add_column("id", no_wrap=True)
    for heading in ("states", "actions", "steps", "parameters"):  # in 80 columns
        table.add_column(heading)
    spellings: dict[str, list[str]] = {}
    for env_id in environment_ids():
        spellings.setdefault(str(gym.registry[env_id].entry_point), []).append(env_id)
    for ids in spellings.values():
        model = model_of("env", ids[0])
        physics = model.physics if isinstance(model, DiffEnv) else true_physics(ids[0])
        table.add_row(
            "\n".join(ids),
            _limits(model.observation_space),
            _limits(model.action_space),
            str(gym.registry[ids[0]].max_episode_steps),
            "\n".join(f"{name} {value:g}" for name, value in physics.items()),
        )
    return table


def _limits(space: gym.spaces.Box) -> str:
    """One line for each entry of a vector."""
    return "\n".join(
        "no limit" if high > FLOAT32_MAX else f"{low:g} to {high:g}"
        for low, high in zip(space.low.tolist(), space.high.tolist(), strict=True)
    )
