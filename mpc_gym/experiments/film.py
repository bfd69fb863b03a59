"""The same start state, played by several agents, side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.envs.base import DiffEnv
from mpc_gym.experiments.progress import Advance
from mpc_gym.models.base import unit_pairs
from mpc_gym.mpc import MPC
from mpc_gym.rendering import side_by_side, write_video

SIZE = 360  # of one rollout [pixels]
STEPS = 120  # that are shown at most; most swing-ups end sooner
GIF_EVERY = 2  # frames


@dataclass(frozen=True)
class Actor:
    """Who plays.

    Args:
        name: of the caption.
        agent: which acts.
        planner: whose plan is drawn ahead of the body; None for nothing.
    """

    name: str
    agent: PolicyPredictor
    planner: MPC | None = None


def lowest_start(env_id: str, seeds: Sequence[int]) -> int:
    """The seed whose start state hangs lowest: the one with the most to show."""
    with gym.make(env_id) as env:
        model = env.unwrapped
        assert isinstance(model, DiffEnv)
        cosines = [cosine for cosine, _ in unit_pairs(model.dynamics)]
        heights = [env.reset(seed=seed)[0][cosines].sum() for seed in seeds]
    return seeds[int(np.argmin(heights))]


def film(
    actors: Sequence[Actor],
    env_id: str,
    seed: int,
    max_steps: int | None,
    paths: Sequence[Path],
    advance: Advance,
    columns: int | None = None,
) -> None:
    """Write the beginning of one episode of each actor as videos.

    Args:
        actors: from left to right, and from top to bottom.
        env_id: one of our environments.
        seed: of the start state.
        max_steps: an episode ends after so many steps at the latest.
        paths: of the videos, `.mp4` or `.gif`.
        advance: called after each actor and each video.
        columns: actors in a row; None for all.
    """
    frames: dict[str, list[NDArray[np.uint8]]] = {}
    with gym.make(env_id, render_mode="rgb_array", width=SIZE, height=SIZE) as env:
        for actor in actors:
            pictures, score = _play(actor, env, seed, max_steps)
            frames[f"{actor.name}: return {score:.0f}"] = pictures
            advance()
        fps = env.metadata["render_fps"]
    for path in paths:
        every = GIF_EVERY if path.suffix == ".gif" else 1
        write_video(path, _in_rows(frames, columns or len(actors)), fps, every=every)
        advance()


def _in_rows(
    frames: dict[str, list[NDArray[np.uint8]]], columns: int
) -> Iterator[NDArray[np.uint8]]:
    captions = list(frames)
    chunks = [captions[i : i + columns] for i in range(0, len(captions), columns)]
    rows = [side_by_side({caption: frames[caption] for caption in chunk}) for chunk in chunks]
    for pictures in zip(*rows, strict=False):  # to the end of the shortest row
        width = max(picture.shape[1] for picture in pictures)
        padded = [
            np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), mode="edge") for p in pictures
        ]
        yield np.concatenate(padded)


def _play(
    actor: Actor,
    env: gym.Env[NDArray[np.float32], NDArray[np.float32]],
    seed: int,
    max_steps: int | None,
) -> tuple[list[NDArray[np.uint8]], float]:
    """Frames of an episode's beginning, and the return of all of it."""
    scene = env.unwrapped
    assert isinstance(scene, DiffEnv)
    observation, _ = env.reset(seed=seed)
    frames: list[NDArray[np.uint8]] = []
    rewards: list[float] = []
    ended = False
    while not ended and len(rewards) != max_steps:
        if len(rewards) < STEPS:
            _show_plan(actor, scene, observation)
            frames.append(np.asarray(env.render(), dtype=np.uint8))
        action, _ = actor.agent.predict(observation[None], deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action[0])
        rewards.append(float(reward))
        ended = terminated or truncated
    return frames, sum(rewards)


def _show_plan(actor: Actor, scene: DiffEnv, observation: NDArray[np.float32]) -> None:
    if actor.planner is not None:
        with torch.no_grad():
            scene.show_plan(actor.planner(torch.from_numpy(observation)[None]))
