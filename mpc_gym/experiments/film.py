"""Videos of agents at work, with the plan of those that make one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
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
from mpc_gym.imitation.episodes import EnvSource, play
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


@dataclass(frozen=True)
class Reel:
    """The beginning of one episode of several agents.

    Attributes:
        pictures: of each agent, by its caption.
        fps: pictures per second.
    """

    pictures: dict[str, list[Picture]]
    fps: float


def shoot(
    agents: Mapping[str, PolicyPredictor],
    env: EnvSource,
    seed: int,
    max_steps: int | None,
    advance: Advance,
) -> Reel:
    """Film several agents, one after the other, from the same start state.

    Args:
        agents: by their names.
        env: an environment with a differentiable model, or the id of one.
        seed: of the start state.
        max_steps: an episode ends after so many steps at the latest.
        advance: called after each agent.
    """
    pictures: dict[str, list[Picture]] = {}
    with closing(_one_env(env, SIZE)) as envs:
        fps = envs.metadata["render_fps"]
        most = _most_steps(envs, max_steps)
        for name, agent in agents.items():
            shown: list[Picture] = []
            camera = _Camera(agent, envs, shown.append, STEPS)
            played = play(camera, envs, [seed], max_steps=max_steps)
            camera.show(None)
            length = int(played.lengths[0])
            result = (
                f"ends after {length / fps:.1f} s"
                if most is not None and length < most
                else f"return {played.returns[0]:.0f}"
            )
            pictures[f"{name}: {result}"] = shown
            advance()
    return Reel(pictures, fps)


def show(rows: Sequence[Reel], paths: Sequence[Path], advance: Advance) -> None:
    """Write videos of reels, one below the other; the frame rate is that of the first.

    Args:
        rows: from top to bottom, each from left to right.
        paths: of the videos, `.mp4` or `.gif`.
        advance: called after each video.
    """
    for path in paths:
        every = GIF_EVERY if path.suffix == ".gif" else 1
        frames = _in_rows([row.pictures for row in rows])
        write_video(path, frames, rows[0].fps, every=every)
        advance()


def film(
    agents: Mapping[str, PolicyPredictor],
    env: EnvSource,
    seed: int,
    max_steps: int | None,
    paths: Sequence[Path],
    advance: Advance,
    columns: int,
) -> None:
    """Write the beginning of one episode of several agents, side by side, as videos.

    Args:
        agents: by their captions, from left to right, and from top to bottom.
        env, seed, max_steps: see `shoot`.
        paths: of the videos, `.mp4` or `.gif`.
        advance: called after each agent and each video.
        columns: agents in a row.
    """
    reel = shoot(agents, env, seed, max_steps, advance)
    shown = list(reel.pictures.items())
    rows = [Reel(dict(shown[i : i + columns]), reel.fps) for i in range(0, len(shown), columns)]
    show(rows, paths, advance)


def _one_env(env: EnvSource, size: int | None = None) -> SyncVectorEnv:
    """One environment that draws; of this package, in frames of so many pixels."""
    source: Any = env if isinstance(env, str) else env.spec
    env_id = env if isinstance(env, str) else source.id
    if not can_draw(env_id):
        raise ValueError(f"env must draw, and {env_id} has no render mode 'rgb_array'")
    envs = gym.make_vec(source, 1, "sync", render_mode="rgb_array")
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


def _most_steps(envs: SyncVectorEnv, max_steps: int | None) -> int | None:
    """After how many steps an episode is cut off; None: never."""
    limit = None if envs.spec is None else envs.spec.max_episode_steps
    limits = [each for each in (limit, max_steps) if each is not None]
    return min(limits, default=None)


def _in_rows(rows: Sequence[Mapping[str, list[Picture]]]) -> Iterator[Picture]:
    steps = max(len(each) for row in rows for each in row.values()) - 1
    # an episode that ends before the others stays at its last state
    held = [
        {name: [*each, *each[-1:] * steps][:steps] for name, each in row.items()} for row in rows
    ]
    for pictures in zip(*map(side_by_side, held), strict=True):
        width = max(picture.shape[1] for picture in pictures)
        padded = [
            np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), mode="edge") for p in pictures
        ]
        yield np.concatenate(padded)
