"""The tasks of `benchmarks.tasks`: where they are evaluated, and what others have published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

ZOO = "RL Baselines3 Zoo, benchmark.md (2022), one run"
HUB = "Hugging Face Hub (2022), one run"
TIANSHOU = "Tianshou, examples/mujoco (2021), version -v2, best in 1M steps, 10 seeds"
TDMPC2 = "TD-MPC2, results/ (2023), 3 seeds"


@dataclass(frozen=True)
class Published:
    """A result of others.

    Args:
        agent: its name.
        value: mean return.
        error: standard error of that, over episodes of one run or over runs; None: not published.
        steps: of the environment that it has learned from.
        source: where it stands.
    """

    agent: str
    value: float
    error: float | None
    steps: int
    source: str


@dataclass(frozen=True)
class Task:
    """An environment whose model is known.

    Args:
        env_id: of `mpc_gym.known.KNOWN`.
        published: what others have reached, the best ones.
        share: of the range of the actions that random ones are drawn from, about zero; less than 1
            where fits to all of it were worse: Reacher's elbow has a stop, which the model has not
            (that this is why was not checked).
    """

    env_id: str
    published: Sequence[Published]
    share: float = 1.0

    @property
    def place(self) -> str:
        """The id of an environment that a seed determines, which is registered if need be."""
        name = self.env_id.removeprefix("dm_control/")
        if name == self.env_id:
            return name
        seeded = f"seeded/{name}"
        if seeded not in gym.registry:
            gym.register(
                seeded, "benchmarks.known_tasks:make_seeded", kwargs={"env_id": self.env_id}
            )
        return seeded


class Seeded(gym.Wrapper[Any, Any, Any, Any]):
    """An environment of dm_control whose start state follows from the seed of `reset`."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The first observation."""
        if seed is not None:
            self.unwrapped._env.task.random.seed(seed)  # type: ignore[attr-defined]
        return self.env.reset(seed=seed, options=options)


def make_seeded(env_id: str) -> gym.Env[Any, Any]:
    """An environment of dm_control, by shimmy."""
    import shimmy  # optional, and slow to import

    gym.register_envs(shimmy)
    return Seeded(gym.make(env_id))


TASKS = {
    task.env_id: task
    for task in (
        Task(
            "Pendulum-v1",
            [
                Published("TQC", -151.3, 87.6 / 750**0.5, 20_000, HUB),
                Published("TD3", -151.855, 90.227 / 750**0.5, 20_000, ZOO),
            ],
        ),
        Task(
            "MountainCarContinuous-v0",
            [
                Published("ARS", 96.672, 0.784 / 621**0.5, 500_000, ZOO),
                Published("SAC", 94.679, 1.134 / 1443**0.5, 50_000, ZOO),
            ],
        ),
        Task("CartPole-v1", [Published("PPO, DQN and others", 500.0, 0.0, 50_000, ZOO)]),
        Task(
            "Acrobot-v1",
            [
                Published("QR-DQN", -69.135, 9.967 / 2138**0.5, 100_000, ZOO),
                Published("PPO", -73.506, 18.201 / 2013**0.5, 1_000_000, ZOO),
            ],
        ),
        Task(
            "InvertedPendulum-v5",
            [Published("SAC, TD3, DDPG", 1000.0, 0.0, 1_000_000, TIANSHOU)],
        ),
        Task(
            "InvertedDoublePendulum-v5",
            [
                Published("SAC", 9359.5, 0.4 / 10**0.5, 1_000_000, TIANSHOU),
                Published("TD3", 9349.2, 14.3 / 10**0.5, 1_000_000, TIANSHOU),
            ],
        ),
        Task(
            "Reacher-v5",
            [
                Published("SAC", -2.6, 0.2 / 10**0.5, 1_000_000, TIANSHOU),
                Published("TD3", -2.7, 0.2 / 10**0.5, 1_000_000, TIANSHOU),
            ],
            share=0.1,
        ),
        Task(
            "dm_control/pendulum-swingup-v0",
            [
                Published("TD-MPC2", 838.0, 29.4, 4_000_000, TDMPC2),
                Published("TD-MPC2", 724.0, 84.8, 100_000, TDMPC2),
            ],
        ),
        Task(
            "dm_control/cartpole-swingup-v0",
            [
                Published("TD-MPC2", 877.2, 5.5, 4_000_000, TDMPC2),
                Published("TD-MPC2", 839.4, 24.9, 100_000, TDMPC2),
            ],
        ),
        Task(
            "dm_control/acrobot-swingup-v0",
            [
                Published("TD-MPC2", 662.9, 29.5, 4_000_000, TDMPC2),
                Published("TD-MPC2", 179.1, 49.2, 100_000, TDMPC2),
            ],
        ),
    )
}
