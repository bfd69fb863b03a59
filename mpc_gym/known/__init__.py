"""Environments of other libraries whose models are written here, by their ids.

`make_mpc` and the policies take such an id for the model: dynamics, cost, limits, how the state
follows from an observation, and a horizon that suits it.
"""

from collections.abc import Callable, Mapping
from functools import cache

from mpc_gym.known import classic_control, dm_control, mujoco
from mpc_gym.known.record import KnownEnvironment

__all__ = ["KNOWN", "KnownEnvironment", "known_environment"]

KNOWN: Mapping[str, Callable[[], KnownEnvironment]] = {
    "Acrobot-v1": classic_control.acrobot,
    "CartPole-v1": classic_control.cart_pole,
    "MountainCarContinuous-v0": classic_control.mountain_car,
    "Pendulum-v1": classic_control.pendulum,
    "InvertedDoublePendulum-v5": mujoco.inverted_double_pendulum,
    "InvertedPendulum-v5": mujoco.inverted_pendulum,
    "Reacher-v5": mujoco.reacher,
    "dm_control/acrobot-swingup-v0": dm_control.acrobot,
    "dm_control/cartpole-swingup-v0": dm_control.cart_pole,
    "dm_control/pendulum-swingup-v0": dm_control.pendulum,
}


def known_environment(env: object) -> KnownEnvironment | None:
    """The record of an id; None where it is none, or not one of `KNOWN`."""
    return _made(env) if isinstance(env, str) and env in KNOWN else None


@cache
def _made(env_id: str) -> KnownEnvironment:
    return KNOWN[env_id]()  # whoever plans with its modules copies them
