"""Differentiable model predictive control as Gymnasium environments and SB3 policies.

Importing it registers the environments with Gymnasium. What needs Stable-Baselines3 or Numba is
imported when its name is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpc_gym.envs import DiffEnv, make_sb3_vec_env, register_environments

# at once: asked for later, the name would be the module's instead of the function's
from mpc_gym.make_mpc import HasModel, make_mpc
from mpc_gym.models import (
    AcrobotDynamics,
    CarDynamics,
    CartPoleDynamics,
    Cost,
    Dynamics,
    LinearDynamics,
    NeuralDynamics,
    PendulumCost,
    PendulumDynamics,
    PlanarQuadrotorDynamics,
    QuadraticCost,
    keep_positive,
    rollout,
)

if TYPE_CHECKING:
    from mpc_gym.compiled import compile_module
    from mpc_gym.imitation import (
        BehavioralCloning,
        DAgger,
        Demonstrations,
        SystemIdentification,
    )
    from mpc_gym.imitation.collect import collect, evaluate
    from mpc_gym.mpc import MPC, Plan
    from mpc_gym.policies import (
        MPCPolicy,
        RecedingHorizon,
        SACMPCPolicy,
        TD3MPCPolicy,
        load_pretrained,
        load_shipped,
        save_pretrained,
    )
    from mpc_gym.policies import (
        TQCMPCPolicy as TQCMPCPolicy,
    )

__version__ = "0.2.0"

__all__ = [
    "MPC",
    "AcrobotDynamics",
    "BehavioralCloning",
    "CarDynamics",
    "CartPoleDynamics",
    "Cost",
    "DAgger",
    "Demonstrations",
    "DiffEnv",
    "Dynamics",
    "HasModel",
    "LinearDynamics",
    "MPCPolicy",
    "NeuralDynamics",
    "PendulumCost",
    "PendulumDynamics",
    "Plan",
    "PlanarQuadrotorDynamics",
    "QuadraticCost",
    "RecedingHorizon",
    "SACMPCPolicy",
    "SystemIdentification",
    "TD3MPCPolicy",
    "__version__",
    "collect",
    "compile_module",
    "evaluate",
    "keep_positive",
    "load_pretrained",
    "load_shipped",
    "make_mpc",
    "make_sb3_vec_env",
    "register_environments",
    "rollout",
    "save_pretrained",
]

_LAZY = ("mpc", "compiled", "policies", "imitation")  # sub-packages; each needs those before it
_OPTIONAL = ("TQCMPCPolicy",)  # needs sb3-contrib, so `from mpc_gym import *` leaves it out

register_environments()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LAZY})


if not TYPE_CHECKING:  # which would take any name for one that exists

    def __getattr__(name: str) -> Any:
        """Import a sub-package, or the one that has a public name, when it is first asked for."""
        if name in _LAZY:
            return import_module(f"mpc_gym.{name}")
        if name in __all__ or name in _OPTIONAL:
            for package in _LAZY:
                module = import_module(f"mpc_gym.{package}")
                if name in module.__all__:
                    value = globals()[name] = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
