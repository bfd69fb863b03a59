"""What is to be learned in each environment, and from which wrong physics.

Only what acts on the motion can be learned. The pendulum's angular acceleration,

    theta'' = 3 g / (2 l) sin(theta) + 3 / (m l^2) torque,

holds two numbers, g/l and 1/(m l^2): infinitely many gravities, masses and lengths move alike. The
cart-pole's equations hold 1/M, m/M, l and g, which determine all four of its parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mpc_gym.checks import found

Physics = Mapping[str, float]


@dataclass(frozen=True)
class Quantity:
    """A number that the motion determines.

    Args:
        name: as a formula in the parameters' names.
        unit: of the value.
        of: its value, from the parameters of the dynamics.
    """

    name: str
    unit: str
    of: Callable[[Physics], float]


@dataclass(frozen=True)
class Problem:
    """Imitation of an expert that knows the physics, by a learner that does not.

    Args:
        env_id: the environment.
        wrong_physics: the learner's first guess of each parameter that it learns.
        quantities: what can be learned of them.
    """

    env_id: str
    wrong_physics: Physics
    quantities: tuple[Quantity, ...]


def _parameter(name: str, unit: str) -> Quantity:
    return Quantity(name, unit, lambda physics: physics[name])


# The learners of both problems start where those of Amos et al. (2018) do.
PENDULUM = Problem(
    env_id="DiffPendulum-v0",
    wrong_physics={"gravity": 15.0, "mass": 3.0, "length": 0.5},
    quantities=(
        Quantity("gravity / length", "1/s²", lambda p: p["gravity"] / p["length"]),
        Quantity("1 / (mass length²)", "1/(kg m²)", lambda p: 1 / (p["mass"] * p["length"] ** 2)),
    ),
)
CARTPOLE = Problem(
    env_id="DiffCartPole-v0",
    wrong_physics={"gravity": 9.8, "cart_mass": 3.0, "pole_mass": 0.1, "pole_length": 1.0},
    quantities=(
        _parameter("gravity", "m/s²"),
        _parameter("cart_mass", "kg"),
        _parameter("pole_mass", "kg"),
        _parameter("pole_length", "m"),
    ),
)
PROBLEMS = {
    PENDULUM.env_id: PENDULUM,
    CARTPOLE.env_id: CARTPOLE,
    "DiffCartpole-v0": CARTPOLE,
}


def find_problem(env_id: str) -> Problem:
    """The problem of an environment.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(env_id, str) or env_id not in PROBLEMS:
        raise ValueError(f"env must be one of {', '.join(PROBLEMS)}, got {found(env_id)}")
    return PROBLEMS[env_id]
