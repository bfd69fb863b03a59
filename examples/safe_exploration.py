"""Safe exploration: how often PPO leaves a cart-pole's track while it learns, planning or not.

One policy plans (MPC), with the physics and the track, and learns what comes after its plan. The
other is a network (MLP) that knows nothing. Leaving the track ends an episode and costs 1,000; what
is counted is what the environment says, not what the plans say.

PPO explores by noise that is added to the first control of a plan. A plan that rests at the end of
the track would leave it by that noise half of the time, so the policy plans with a track that is
shorter by a margin. That is no guarantee: the noise has no limit, and physics may be wrong (try
`cart_mass=2.0`).
"""

import math
from dataclasses import dataclass
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from mpc_gym import make_sb3_vec_env
from mpc_gym.policies import CriticFirst, MPCPolicy


@dataclass
class Options:
    track: float = 1.0  # half its length [m]
    margin: float = 0.05  # of the plans [m]
    cart_mass: float = 1.0  # that the plans go by [kg]; the true one is 1
    noise: float = 5.0  # standard deviation of the exploration [N], of the MLP at first
    steps: int = 25_600
    mlp_steps: int = 160_000
    n_envs: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Episode:
    end: int  # step of the training
    left: bool  # the track
    earned: float


class Log(BaseCallback):
    """Writes down how each episode of a training ended."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[Episode] = []

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done:
                left = not info["TimeLimit.truncated"]
                self.episodes.append(Episode(self.num_timesteps, left, info["episode"]["r"]))
        return True


def make_ppo(policy: Any, normalise: bool, options: Options, **settings: Any) -> PPO:
    envs = make_sb3_vec_env(
        "DiffCartPole-v0", options.n_envs, seed=options.seed, track=options.track
    )
    return PPO(
        policy,
        VecNormalize(envs, norm_obs=normalise, gamma=0.99),
        n_steps=200,  # whole episodes
        seed=options.seed,
        device="cpu",
        **settings,
    )


def train_mpc(options: Options) -> list[Episode]:
    kwargs = {"learn": "terminal", "log_std_init": math.log(options.noise)}
    settings = {"batch_size": 1_600, "n_epochs": 4, "gae_lambda": 1.0, "learning_rate": 0.01}
    model = make_ppo(MPCPolicy, False, options, policy_kwargs=kwargs, **settings)
    model.policy.log_std.requires_grad_(False)
    model.policy.mpc.constraints.limit.fill_(options.track - options.margin)
    model.policy.mpc.dynamics.cart_mass.data.fill_(options.cart_mass)
    log = Log()
    model.learn(options.steps, callback=[log, CriticFirst(6_400)])
    return log.episodes


def train_mlp(options: Options) -> list[Episode]:
    kwargs = {"log_std_init": math.log(options.noise)}
    model = make_ppo("MlpPolicy", True, options, policy_kwargs=kwargs, batch_size=800)
    log = Log()
    model.learn(options.mlp_steps, callback=log)
    return log.episodes


def main(options: Options) -> dict[str, list[Episode]]:
    """The episodes of both trainings, and a table of those that left the track."""
    trainings = {"MPC": train_mpc(options), "MLP": train_mlp(options)}
    print(f"episodes that left  first {options.steps:,} steps   all   last quarter, return")
    for name, episodes in trainings.items():
        parts = {
            "first": [each for each in episodes if each.end <= options.steps],
            "all": episodes,
            "last": episodes[-len(episodes) // 4 :],
        }
        first, whole, last = (
            f"{sum(each.left for each in part)} of {len(part)}" for part in parts.values()
        )
        mean = sum(each.earned for each in parts["last"]) / len(parts["last"])
        print(f"{name:>18} {first:>19} {whole:>12} {last:>11} {mean:7.0f}")
    return trainings


if __name__ == "__main__":
    main(Options())
