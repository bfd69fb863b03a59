"""Which algorithm makes a policy, and what it must not do with one that plans.

Stable-Baselines3 hands a policy the spaces of its environment and nothing else: neither the
algorithm that will train it nor what stands between it and the environment. Both decide whether a
plan can be right, and both are seen where the policy is made, in the caller. A policy that is made
by hand has no such caller, and is not checked.
"""

import contextlib
import inspect

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

POLICIES = {
    "PPO": "MPCPolicy",
    "A2C": "MPCPolicy",
    "OnPolicyAlgorithm": "MPCPolicy",
    "SAC": "SACMPCPolicy",
    "TD3": "TD3MPCPolicy",
    "DDPG": "TD3MPCPolicy",
    "TQC": "TQCMPCPolicy",
}
"""The planning policy for each algorithm of Stable-Baselines3 and sb3-contrib."""

DISCRETE = "it chooses among discrete actions, and a plan's controls are continuous"
UNFIT = {
    "ARS": (
        "it starts with all parameters at zero, masses among them, and takes no gradients",
        "PPO",
    ),
    "CrossQ": ("its actor must have batch normalisation, and a plan has no layers", "SAC"),
    "RecurrentPPO": ("it trains LSTMs, and a plan follows from the observation alone", "PPO"),
    "TRPO": (
        "it takes second derivatives by every parameter, those that are held fixed among them",
        "PPO",
    ),
    "DQN": (DISCRETE, "PPO"),
    "QRDQN": (DISCRETE, "PPO"),
    "MaskablePPO": (DISCRETE, "PPO"),
}
"""Why no planning policy is for an algorithm, and which algorithm to take instead."""

TRANSPARENT = ("Monitor", "VecMonitor", "RecordEpisodeStatistics")
LIBRARIES = ("stable_baselines3", "sb3_contrib")


def calling_algorithm(method: str) -> BaseAlgorithm | None:
    """The algorithm in whose method of this name the caller runs; None: there is none."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == method:
            caller = frame.f_locals.get("self")
            if isinstance(caller, BaseAlgorithm):
                return caller
        frame = frame.f_back
    return None


def check_algorithm(policy: type, algorithm: BaseAlgorithm) -> None:
    """Refuse an algorithm that a planning policy is not for.

    One of the user's own counts as the algorithm of Stable-Baselines3 that it is made from.

    Args:
        policy: one of `POLICIES`, or a subclass.
        algorithm: which makes it.

    Raises:
        ValueError: the policy is for others; the message says which is the right one.
    """
    known = next(
        cls for cls in type(algorithm).__mro__ if cls.__module__.partition(".")[0] in LIBRARIES
    ).__name__
    names = {cls.__name__ for cls in policy.__mro__}
    if known in UNFIT:
        reason, other = UNFIT[known]
        raise ValueError(
            f"{policy.__name__} cannot be trained by {known}, nor can any policy that plans: "
            f"{reason}. Take {other}({POLICIES[other]}, ...) instead"
        )
    if names.isdisjoint(POLICIES.values()):
        return  # a planning policy of the user's own
    right = POLICIES.get(known)
    if right is None:  # made from OffPolicyAlgorithm, or from none of these
        suits = known != "OffPolicyAlgorithm" or "MPCPolicy" not in names
    else:
        suits = right in names
    if not suits:
        own = next(name for name in POLICIES.values() if name in names)
        theirs = [name for name, value in POLICIES.items() if value == own and "Policy" not in name]
        advice = (
            f"for {known} take {right} of mpc_gym.policies: {known}({right}, ...)"
            if right
            else "for an algorithm that is off-policy take SACMPCPolicy or TD3MPCPolicy"
        )
        raise ValueError(f"{policy.__name__} is for {' and '.join(theirs)}; {advice}")


def check_not_normalised(algorithm: BaseAlgorithm) -> None:
    """Refuse an environment whose observations are normalised on their way to the policy.

    Raises:
        ValueError: SB3's `VecNormalize` or Gymnasium's `NormalizeObservation` does so.
    """
    remedies = {"NormalizeObservation": "remove it"}
    for wrapper in _wrappers(algorithm.get_env()):
        if isinstance(wrapper, VecNormalize) and wrapper.norm_obs:
            remedies[type(wrapper).__name__] = "pass it norm_obs=False (norm_reward=True is fine)"
    for name in environment_of(algorithm)[1]:
        if name in remedies:
            raise ValueError(
                "observations must be the model's state, as the environment gives them, and "
                f"{name} normalises them: {remedies[name]}"
            )


def environment_of(algorithm: BaseAlgorithm | None) -> tuple[str | None, list[str]]:
    """The id of an algorithm's environment, None where that does not say, and its wrappers' names.

    Those through which everything passes as it is are left out.
    """
    env = None if algorithm is None else algorithm.get_env()
    if env is None:
        return None, []
    outer = [type(each).__name__ for each in _wrappers(env)]
    with contextlib.suppress(Exception):  # a user's own vector environment may do anything here
        (spec,) = env.get_attr("spec", 0)
        inner = [each.name for each in spec.additional_wrappers]
        return spec.id, [name for name in inner + outer if name not in TRANSPARENT]
    return None, outer


def _wrappers(env: VecEnv | None) -> list[VecEnvWrapper]:
    wrappers = []
    while isinstance(env, VecEnvWrapper):
        wrappers.append(env)
        env = env.venv
    return wrappers
