"""Videos of agents at work, with the plan of those that make one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.envs.base import DiffEnv
from mpc_gym.experiments.agents import EpisodeOptions
from mpc_gym.experiments.environments import can_draw
from mpc_gym.experiments.progress import Advance
from mpc_gym.files import make_writable_folder
from mpc_gym.imitation import Stateless
from mpc_gym.imitation.episodes import play
from mpc_gym.mpc import Plan
from mpc_gym.policies import PlanningPolicy, RecedingHorizon
from mpc_gym.policies.receding_horizon import warm_start
from mpc_gym.rendering import open_video, side_by_side, write_video

SIZE = 360  # of one of several rollouts [pixels]
STEPS = 120  # that are shown at most side by side; most swing-ups end sooner
GIF_EVERY = 2  # frames

Picture = NDArray[np.uint8]


def record(
    options: EpisodeOptions, folder: Path, advance: Advance = lambda: None
) -> dict[Path, float]:
    """Write a video of each episode of an agent.

    Args:
        options: whose episodes.
        folder: that is written to.
        advance: called after each episode.

    Returns:
        The return of the episode in each file.

    Raises:
        ValueError: the folder cannot be written, or the policy's file cannot be read.
    """
    make_writable_folder(folder)
    agent = options.agent()
    returns = {}
    with closing(_one_env(options.env)) as envs:
        for seed in range(options.seed, options.seed + options.episodes):
            name = f"{options.env.rpartition(':')[2]}-{Path(options.policies[0]).stem}-{seed}.mp4"
            with open_video(folder / name, envs.metadata["render_fps"]) as append:
                camera = _Camera(agent, envs, append)
                played = play(camera, envs, [seed], max_steps=options.max_steps)
                camera.show(None)
            returns[folder / name] = float(played.returns[0])
            advance()
    return returns


def film(
    agents: Mapping[str, PolicyPredictor],
    env_id: str,
    seed: int,
    max_steps: int | None,
    paths: Sequence[Path],
    advance: Advance,
    columns: int | None = None,
) -> None:
    """Write the beginning of one episode of several agents, side by side, as videos.

    Args:
        agents: by their captions, from left to right, and from top to bottom.
        env_id: of an environment with a differentiable model.
        seed: of the start state.
        max_steps: an episode ends after so many steps at the latest.
        paths: of the videos, `.mp4` or `.gif`.
        advance: called after each agent and each video.
        columns: agents in a row; None for all.
    """
    frames: dict[str, list[Picture]] = {}
    with closing(_one_env(env_id, SIZE)) as envs:
        fps = envs.metadata["render_fps"]
        for name, agent in agents.items():
            pictures: list[Picture] = []
            camera = _Camera(agent, envs, pictures.append, STEPS)
            played = play(camera, envs, [seed], max_steps=max_steps)
            camera.show(None)
            frames[f"{name}: return {played.returns[0]:.0f}"] = pictures
            advance()
    for path in paths:
        every = GIF_EVERY if path.suffix == ".gif" else 1
        write_video(path, _in_rows(frames, columns or len(agents)), fps, every=every)
        advance()


def _one_env(env_id: str, size: int | None = None) -> SyncVectorEnv:
    """One environment that draws; of this package, in frames of so many pixels."""
    if not can_draw(env_id):
        raise ValueError(f"env must draw, and {env_id} has no render mode 'rgb_array'")
    envs = gym.make_vec(env_id, 1, "sync", render_mode="rgb_array")
    assert isinstance(envs, SyncVectorEnv)
    model = envs.envs[0].unwrapped
    if size is not None and isinstance(model, DiffEnv):
        model.width = model.height = size
    return envs


class _Camera:
    """An agent whose every observation is drawn before it acts, with the plan it then carries out.

    Args:
        agent: the agent.
        envs: where it acts: one environment.
        append: called with each picture.
        steps: that are drawn at most; None: all.
    """

    def __init__(
        self,
        agent: PolicyPredictor,
        envs: SyncVectorEnv,
        append: Callable[[Picture], None],
        steps: int | None = None,
    ) -> None:
        self._agent, self._envs, self._append, self._left = agent, envs, append, steps
        self._shows_plans = envs.envs[0].has_wrapper_attr("show_plan")

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        if self._left != 0:
            self.show(_plan(self._agent, observation, state))
            self._left = None if self._left is None else self._left - 1
        return self._agent.predict(observation, state, episode_start, deterministic)

    def show(self, plan: Plan | None) -> None:
        if self._shows_plans:
            self._envs.call("show_plan", plan)
        (picture,) = self._envs.render()
        self._append(np.asarray(picture, dtype=np.uint8))


def _plan(agent: Any, observation: NDArray[np.float32], state: Any) -> Plan | None:
    """What an agent is about to carry out; None where it does not plan."""
    if isinstance(agent, Stateless):
        return _plan(agent.predictor, observation, None)
    policy = getattr(agent, "policy", agent)  # an algorithm's
    rows = torch.from_numpy(observation)
    plan: Plan | None = None
    with torch.no_grad():
        if isinstance(policy, RecedingHorizon):
            plan = policy.mpc(rows, warm_start(policy.mpc, len(rows), state, None))
        elif isinstance(policy, PlanningPolicy):
            plan = policy.planner.replan(rows, state, None)  # as `predict` does
    return plan


def _in_rows(frames: dict[str, list[Picture]], columns: int) -> Iterator[Picture]:
    captions, steps = list(frames), max(map(len, frames.values())) - 1
    # an episode that ends before the others stays at its last state
    held = {name: [*each, *each[-1:] * steps][:steps] for name, each in frames.items()}
    chunks = [captions[i : i + columns] for i in range(0, len(captions), columns)]
    rows = [side_by_side({caption: held[caption] for caption in chunk}) for chunk in chunks]
    for pictures in zip(*rows, strict=True):
        width = max(picture.shape[1] for picture in pictures)
        padded = [
            np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), mode="edge") for p in pictures
        ]
        yield np.concatenate(padded)
