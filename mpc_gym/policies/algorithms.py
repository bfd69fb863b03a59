"""Which algorithm makes a policy, and what it must not do with one that plans.

Stable-Baselines3 hands a policy the spaces of its environment and nothing else: neither the
algorithm that will train it nor what stands between it and the environment. Both decide whether a
plan can be right, and both are seen where the policy is made, in the caller. A policy that is made
by hand has no such caller, and is not checked.
"""

import contextlib
import inspect

import gymnasium as gym
from gymnasium.wrappers import RescaleAction
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize

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

DISCRETE = (
    "it chooses among discrete actions, and a plan's controls are continuous (DiscreteMPCPolicy, "
    "for PPO, chooses among plans)"
)
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


def check_no_unknown_statistics(algorithm: BaseAlgorithm) -> None:
    """Refuse Gymnasium's `NormalizeObservation`, whose statistics are out of reach.

    Raises:
        ValueError: it is among the environment's wrappers.
    """
    if "NormalizeObservation" in environment_of(algorithm)[1]:
        raise ValueError(
            "observations must be the model's state, as the environment gives them, and "
            "NormalizeObservation normalises them: remove it. With "
            "stable_baselines3.common.vec_env.VecNormalize a policy can undo that"
        )


def normalizing(
    algorithm: BaseAlgorithm, known: bool, normalized: bool | None
) -> VecNormalize | None:
    """The `VecNormalize` through which an algorithm observes; None: it observes without.

    Args:
        algorithm: with an environment.
        known: whether it is known what of an observation is the model's state.
        normalized: what the policy was made for; None: whatever there is.

    Raises:
        ValueError: it normalises what is not known to be the state, or observations that another
            wrapper then changes; or the policy was made for an environment that does otherwise.
    """
    found = [
        wrapper
        for wrapper in _wrappers(algorithm.get_env())
        if isinstance(wrapper, VecNormalize) and wrapper.norm_obs
    ]
    if not found:
        if normalized:
            raise ValueError(
                "the policy was made for observations that VecNormalize normalises, and those of "
                "this environment are not: wrap it in VecNormalize, as in training "
                "(VecNormalize.load)"
            )
        return None
    envs = found[0]
    if not known:
        raise ValueError(
            "observations must be the model's state, as the environment gives them, and "
            f"{type(envs).__name__} normalises them: pass it norm_obs=False (norm_reward=True is "
            "fine), or say what of them is the model's state, with policy_kwargs=dict(state=...): "
            "it is given them as they were before"
        )
    if normalized is False:
        raise ValueError(
            "the policy was made for observations as the environment gives them, and "
            f"{type(envs).__name__} normalises them: pass it norm_obs=False, or make the policy "
            "for this environment"
        )
    # SB3 asks the outermost for what the environment gave
    alone = found == [algorithm.get_vec_normalize_env()]
    if not alone or envs.observation_space != algorithm.observation_space:
        raise ValueError(
            f"{type(envs).__name__} must be the last that changes observations, and the only one "
            "of its kind, so that its statistics are those of what the policy is given: wrap the "
            "other wrappers in it, and let one normalise both observations and rewards"
        )
    return envs


def unscaled_actions(algorithm: BaseAlgorithm | None) -> gym.spaces.Box | None:
    """The action space behind Gymnasium's `RescaleAction`, or the algorithm's where that is none.

    Affine from limits to limits, several of them are as one. None: nothing is to be seen of it.
    """
    envs = None if algorithm is None else algorithm.get_env()
    while isinstance(envs, VecEnvWrapper):
        envs = envs.venv
    if algorithm is None or not isinstance(envs, DummyVecEnv):
        return None
    layer, space = envs.envs[0], algorithm.action_space
    while isinstance(layer, gym.Wrapper):
        # one between them that gives the actions another space may do anything to them
        if isinstance(layer, RescaleAction) and layer.action_space == space:
            space = layer.env.action_space
        layer = layer.env
    return space if isinstance(space, gym.spaces.Box) else None


def remember(algorithm: BaseAlgorithm, **options: object) -> None:
    """Add options that were found to those of a policy, which is loaded with them.

    It may be loaded without its environment, and then could not find them again.
    """
    algorithm.policy_kwargs = {**algorithm.policy_kwargs, **options}


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
