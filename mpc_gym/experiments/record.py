"""Videos of an expert, a trained policy or chance at work in an environment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.checks import check_count, check_path, check_seed, check_size
from mpc_gym.envs.base import DiffEnv
from mpc_gym.experiments.agents import check_agent, load_agent
from mpc_gym.experiments.learnable import check_env_id
from mpc_gym.files import make_writable_folder
from mpc_gym.mpc import MPC
from mpc_gym.policies import PlanningPolicy
from mpc_gym.policies.receding_horizon import PlanState, carry, warm_start
from mpc_gym.rendering import write_video

Advance = Callable[[], None]


@dataclass(frozen=True)
class RecordOptions:
    """What `mpc-gym record` is asked for.

    Args:
        env: the environment's id.
        policy: whose, see `load_agent`.
        episodes: one video for each.
        seed: of the first episode; the others count on.
        output: the folder that is written to.
        max_steps: an episode ends after so many steps at the latest; None: the environment's limit.

    Raises:
        ValueError: a value is impossible.
    """

    env: str
    policy: str = "expert"
    episodes: int = 1
    seed: int = 0
    output: Path = Path("videos")
    max_steps: int | None = None

    def __post_init__(self) -> None:
        check_env_id(self.env)
        check_agent("policy", self.policy)
        check_size("episodes", self.episodes)
        check_seed("seed", self.seed)
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps)
        check_path("output", self.output)


def record(options: RecordOptions, advance: Advance = lambda: None) -> dict[Path, float]:
    """Write a video of each episode.

    Args:
        options: what is asked for.
        advance: called after each episode.

    Returns:
        The return of the episode in each file.

    Raises:
        ValueError: the folder cannot be written, or the policy's file cannot be read.
    """
    make_writable_folder(options.output, "output")
    returns = {}
    with gym.make(options.env, max_episode_steps=options.max_steps, render_mode="rgb_array") as env:
        agent = load_agent(options.policy, env, options.seed)
        for seed in range(options.seed, options.seed + options.episodes):
            rewards: list[float] = []
            name = f"{options.env}-{Path(options.policy).stem}-{seed}.mp4"
            frames = _play(agent, env, seed, rewards)
            path = write_video(options.output / name, frames, env.metadata["render_fps"])
            returns[path] = sum(rewards)
            advance()
    return returns


def _play(
    agent: MPC | PolicyPredictor, env: gym.Env[Any, Any], seed: int, rewards: list[float]
) -> Iterator[NDArray[np.uint8]]:
    """The frames of an episode, with the plan where there is one; fills `rewards`."""
    scene = env.unwrapped
    assert isinstance(scene, DiffEnv)
    observation, _ = env.reset(seed=seed)
    state: PlanState | None = None
    ended = False
    while not ended:
        action, state = _decide(agent, scene, observation, state)
        yield np.asarray(env.render(), dtype=np.uint8)
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        ended = terminated or truncated
    scene.show_plan(None)
    yield np.asarray(env.render(), dtype=np.uint8)


def _decide(
    agent: MPC | PolicyPredictor,
    scene: DiffEnv,
    observation: NDArray[np.float32],
    state: PlanState | None,
) -> tuple[NDArray[Any], PlanState | None]:
    """The action and the recurrent state; shows the plan of an agent that makes one."""
    row = torch.from_numpy(observation)[None]
    if isinstance(agent, MPC):
        with torch.no_grad():
            plan = agent(row, warm_start(agent, 1, state, None))
        scene.show_plan(plan)
        return plan.controls[0, 0].numpy(), carry(plan)
    policy = getattr(agent, "policy", agent)  # an algorithm's
    if isinstance(policy, PlanningPolicy):
        with torch.no_grad():
            scene.show_plan(policy.planner.replan(row, state, None))  # as `predict` does
    return agent.predict(observation, state, deterministic=True)
