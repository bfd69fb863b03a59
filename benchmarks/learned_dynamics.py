"""Plans through networks that learned the motion from ten thousand steps, with no physics given.

    python -m benchmarks.learned_dynamics [--quick] [--only cartpole-swingup] [--seeds 5]

An episode of random actions, then plans: after each episode the network is fitted to all
transitions so far, and the next one is planned through it (as in PETS; Chua et al., 2018). What is
given is the cost, a function of the state, which of its entries are angles, and no motion. Each
seed is scored at the end, on episodes whose start states it has not seen.

A step of a model is `repeat` steps of the environment, in which the action is held. All steps of
the environment are counted.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpc_gym.files import write
from mpc_gym.imitation import FitOptions, Transitions, fit_dynamics
from mpc_gym.models import Cost, LearnedDynamics
from mpc_gym.mpc import MPC, Plan

Row = NDArray[np.floating]
Act = Callable[[Row], Row]

EVALUATION_SEED = 50_000  # of the first episode that is scored; those learned from begin below
HELD = 0.75  # probability that a random action is held for another step


class SwingUp(Cost):
    """The pole up and the cart in the middle; state (x, cos, sin, speed, angular speed)."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The cost of each row."""
        x, cosine, _, speed, turning = state.unbind(-1)
        rest = 0.01 * speed.square() + 0.005 * turning.square() + 0.01 * control[..., 0].square()
        return 1.0 - cosine + 0.1 * x.square() + rest


class Upright(Cost):
    """Both poles up and the tip in the middle.

    The state is (x, sin a, sin b, cos a, cos b, speeds of x, a and b), b relative to the first.
    """

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The cost of each row."""
        x, sin_a, sin_b, cos_a, cos_b, speed, first, second = state.unbind(-1)
        tip = x + 0.6 * (sin_a + sin_a * cos_b + cos_a * sin_b)
        height = 0.6 * (cos_a + cos_a * cos_b - sin_a * sin_b)
        rest = 0.05 * speed.square() + 1e-3 * first.square() + 5e-3 * second.square()
        return (
            10.0 * (height - 1.2).square()
            + 0.1 * tip.square()
            + x.square()
            + rest
            + 1e-3 * control[..., 0].square()
        )


def cartpole_state(observation: dict[str, Row]) -> Row:
    return np.concatenate((observation["position"], observation["velocity"])).astype(float)


def poles_state(observation: Row) -> Row:
    return observation[:8].astype(float)  # the rest is a force


@dataclass(frozen=True)
class Task:
    """An environment, and what is given of it.

    Attributes:
        published: return of an agent that learned from more steps, and which.
        env_id: its id.
        state: from an observation to the state, which has to be all that the motion depends on.
        unit_pairs: of the state's entries, cosine and sine of an angle.
        cost: of state and control.
        hidden, horizon, starts: of the network, and of the plans.
        repeat: steps of the environment in one of the model.
        first: steps at random, in whole episodes.
        every: steps between fits, in whole episodes.
        updates: of the network in a fit, about.
        random, noise: size of the random actions, and of what is added to the planned ones of the
            episodes that are learned from, in half ranges.
        max_steps: of an episode.
    """

    env_id: str
    state: Callable[[Any], Row]
    unit_pairs: tuple[tuple[int, int], ...]
    cost: type[Cost]
    published: tuple[float, str]
    hidden: tuple[int, ...]
    horizon: int
    repeat: int
    starts: int
    first: int
    every: int
    updates: int
    random: float
    noise: float
    max_steps: int = 1_000


TASKS = {
    "cartpole-swingup": Task(
        "dm_control/cartpole-swingup-v0",
        cartpole_state,
        ((1, 2),),
        SwingUp,
        published=(839.0, "TD-MPC2 at 100,000 steps"),
        hidden=(64, 64),
        horizon=40,
        repeat=4,
        starts=4,
        first=1_000,
        every=1_000,
        updates=6_000,
        random=1.0,
        noise=0.1,
    ),
    "InvertedDoublePendulum-v5": Task(
        "InvertedDoublePendulum-v5",
        poles_state,
        ((3, 1), (4, 2)),
        Upright,
        # of InvertedDoublePendulum-v2; a table of 100,000 steps is not known to us
        published=(9_359.5, "SAC of Tianshou, the best within 1,000,000 steps"),
        hidden=(32, 32),
        horizon=25,
        repeat=1,
        starts=1,
        first=600,
        every=400,
        updates=8_000,
        random=1.0,
        noise=0.0,
    ),
}
BATCH = 64


class Learner:
    """The loop of one seed."""

    def __init__(self, task: Task, seed: int, budget: int) -> None:
        torch.manual_seed(seed)
        self.task, self.seed = task, seed
        self.rng = np.random.default_rng(seed)
        self.env = make_env(task)
        low, high = self.env.action_space.low, self.env.action_space.high  # type: ignore[attr-defined]
        self.low, self.high = low.astype(float), high.astype(float)
        n_state = len(self.begin(0))
        self.dynamics = LearnedDynamics(
            n_state, len(low), task.hidden, members=1, unit_pairs=task.unit_pairs
        )
        bounds = torch.tensor(self.low), torch.tensor(self.high)
        self.mpc = MPC(
            self.dynamics,
            task.cost(),
            task.horizon,
            *bounds,
            starts=task.starts,
            max_iterations=30,
        )
        self.mpc.expected_unconverged = 1.0  # a model of little data has plans without an end
        self.rows: list[tuple[Row, ...]] = []
        self.steps, self.budget = 0, budget

    def begin(self, seed: int) -> Row:
        """The first state of an episode."""
        return self.task.state(self.env.reset(seed=seed)[0])

    def at_random(self) -> Act:
        """Actions that are held for some steps, as one at every step moves a heavy cart little."""
        held = self._drawn()

        def act(_: Row) -> Row:
            nonlocal held
            if self.rng.random() > HELD:
                held = self._drawn()
            return held

        return act

    def planning(self, noise: float) -> Act:
        """The first controls of plans, each from the last one; the first from several guesses.

        It is given the states of one episode, or of several side by side.
        """
        last: Plan | None = None
        spread = noise * (self.high - self.low) / 2

        def act(state: Row) -> Row:
            nonlocal last
            with torch.no_grad():
                start = torch.tensor(np.atleast_2d(state))
                last = self.mpc(start) if last is None else self.mpc(start, last.shift(), starts=1)
            planned: Row = last.controls[:, 0].numpy()
            noisy: Row = planned + spread * self.rng.normal(size=planned.shape)
            return noisy.reshape(*state.shape[:-1], -1)

        return act

    def _drawn(self) -> Row:
        drawn: Row = self.task.random * self.rng.uniform(self.low, self.high)
        return drawn

    def episode(self, act: Act, seed: int) -> float:
        """An episode to learn from; its return."""
        state, earned, taken, over = self.begin(seed), 0.0, 0, False
        while not over:
            action = np.clip(act(state), self.low, self.high)
            following, reward, steps, over = self._step(self.env, action)
            earned, taken, self.steps = earned + reward, taken + steps, self.steps + steps
            over |= taken >= self.task.max_steps or self.steps >= self.budget
            self.rows.append((state, action, following))
            state = following
        return earned

    def score(self, episodes: int) -> list[float]:
        """The returns of episodes from unseen start states, which nothing is learned from."""
        envs = [make_env(self.task) for _ in range(episodes)]
        states = np.stack(
            [self.task.state(e.reset(seed=EVALUATION_SEED + i)[0]) for i, e in enumerate(envs)]
        )
        earned, act = np.zeros(episodes), self.planning(0.0)
        taken, alive = np.zeros(episodes, dtype=int), np.ones(episodes, dtype=bool)
        while alive.any():
            actions = np.clip(act(states), self.low, self.high)
            for i in alive.nonzero()[0]:
                states[i], reward, steps, over = self._step(envs[i], actions[i])
                earned[i], taken[i] = earned[i] + reward, taken[i] + steps
                alive[i] = not over and taken[i] < self.task.max_steps
        return [float(each) for each in earned]

    def _step(self, env: gym.Env[Any, Any], action: Row) -> tuple[Row, float, int, bool]:
        """One step of the model: the next state, what it earned, steps of the environment, end."""
        earned, over, steps = 0.0, False, 0
        while steps < self.task.repeat and not over:
            observation, reward, terminated, truncated, _ = env.step(action)
            earned, over, steps = earned + float(reward), terminated or truncated, steps + 1
        return self.task.state(observation), earned, steps, over

    def fit(self) -> float:
        """Fit the network to all transitions so far; the lowest validation loss."""
        columns = (torch.tensor(np.stack(part)) for part in zip(*self.rows, strict=True))
        epochs = max(1, round(self.task.updates * BATCH / len(self.rows)))
        options = FitOptions(epochs, epochs, learning_rate=1e-2, batch_size=BATCH)
        history = fit_dynamics(self.dynamics, Transitions(*columns), options)
        return history[-1]["validation/best_loss"]


def make_env(task: Task) -> gym.Env[Any, Any]:
    if task.env_id.startswith("dm_control/"):
        import shimmy

        gym.register_envs(shimmy)
    return gym.make(task.env_id)


def learn(task: Task, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """One seed.

    Args:
        task: what to learn.
        seed: of the network, the noise, and the episodes that are learned from.
        steps: of the environment to learn from, at most.
        episodes: that are scored at the end.

    Returns:
        The returns on the way, each with the number of steps before it; those at the end; and
        seconds of CPU.
    """
    torch.set_num_threads(1)
    began = time.process_time()
    learner = Learner(task, seed, steps)
    number = itertools.count(1_000 * seed)
    curve = []
    while learner.steps < min(task.first, steps):
        curve.append((learner.steps, learner.episode(learner.at_random(), next(number))))
    while learner.steps < steps:
        learner.fit()
        enough = min(learner.steps + task.every, steps)
        while learner.steps < enough:
            before = learner.steps
            curve.append((before, learner.episode(learner.planning(task.noise), next(number))))
    learner.fit()
    scored = learner.score(episodes)
    return {
        "seed": seed,
        "steps": learner.steps,
        "curve": curve,
        "returns": scored,
        "seconds": time.process_time() - began,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps; no result")
    parser.add_argument("--only", choices=TASKS, help="one task; both, where it is left out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds, options.steps, options.episodes = 1, 40, 1
    for name in [options.only] if options.only else TASKS:
        task, runs = TASKS[name], []
        if options.quick:
            task = replace(task, first=20, every=20, updates=10, max_steps=40)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            runs.append(learn(task, seed, options.steps, options.episodes))
            run = runs[-1]
            print(
                f"{name:26} seed {seed}: {run['steps']} steps, return "
                f"{np.mean(run['returns']):8.1f} (worst episode {min(run['returns']):8.1f}), "
                f"{run['seconds']:.0f} s",
                flush=True,
            )
            text = json.dumps({"task": name, "published": task.published, "runs": runs}, indent=1)
            write(options.folder / f"learned-{name}.json", text + "\n")


if __name__ == "__main__":
    main()
