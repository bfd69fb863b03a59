"""Training a policy through the physics, beside PPO, for the same time.

The environment's dynamics and cost are PyTorch modules, so the return has an exact gradient by the
weights of the policy: no value function, no advantage, no exploration noise. PPO has rewards alone.
"""

import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from mpc_gym import make_sb3_vec_env, rollout


@dataclass
class Options:
    env_id: str = "DiffPendulum-v0"
    updates: int = 400  # of the policy; PPO then has as much time as they took
    batch: int = 128
    horizon: int = 60  # of the training rollouts; an episode has 200 steps
    learning_rate: float = 3e-3
    episodes: int = 100
    seed: int = 0


class Policy(nn.Module):
    """A small MLP whose actions stay within the limits by a tanh, so no gradient is clipped."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__()
        n_state, n_ctrl = env.observation_space.shape[0], env.action_space.shape[0]
        self.layers = nn.Sequential(
            nn.Linear(n_state, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n_ctrl)
        )
        self.register_buffer("limit", torch.tensor(env.action_space.high))

    def forward(self, state: Tensor) -> Tensor:  # [batch, n_state] -> [batch, n_ctrl]
        return self.limit * torch.tanh(self.layers(state))


def train_through_physics(env: gym.Env, options: Options) -> Policy:
    model = env.unwrapped
    policy = Policy(env)
    optimizer = torch.optim.Adam(policy.parameters(), lr=options.learning_rate)
    rng = np.random.default_rng(options.seed)
    for _ in range(options.updates):
        fractions = rng.random((options.batch, len(model.start_limit)))
        start = torch.tensor(model.start_states(fractions), dtype=torch.float32)
        result = rollout(model.dynamics, model.cost, start, policy, options.horizon)
        optimizer.zero_grad()
        (-result.returns.mean()).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)  # the motion is chaotic at times
        optimizer.step()
    return policy


class Deadline(BaseCallback):
    """Stops PPO when its time is over."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = time.monotonic() + seconds

    def _on_step(self) -> bool:
        return time.monotonic() < self.end


def train_by_rewards(options: Options, seconds: float) -> PPO:
    # the learning rate, discount and so on of RL Baselines3 Zoo for Pendulum-v1
    env = make_sb3_vec_env(options.env_id, n_envs=16, seed=options.seed)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=256,
        batch_size=256,
        gamma=0.9,
        gae_lambda=0.95,
        learning_rate=1e-3,
        ent_coef=0.0,
        device="cpu",
        seed=options.seed,
    )
    return model.learn(1_000_000_000, callback=Deadline(seconds))


def mean_return(act, options: Options) -> float:
    """Over whole episodes from unseen start states; `act` maps observations to actions."""
    envs = gym.make_vec(options.env_id, num_envs=options.episodes)
    observations, _ = envs.reset(seed=options.seed + 10_000)
    total, alive = np.zeros(options.episodes), np.ones(options.episodes, dtype=bool)
    while alive.any():
        observations, rewards, terminated, truncated, _ = envs.step(act(observations))
        total += rewards * alive
        alive &= ~(terminated | truncated)
    return float(total.mean())


def main(options: Options) -> dict[str, float]:
    torch.manual_seed(options.seed)
    env = gym.make(options.env_id)
    env.unwrapped.dynamics.requires_grad_(False)
    env.unwrapped.cost.requires_grad_(False)
    untrained = Policy(env)
    began = time.monotonic()
    policy = train_through_physics(env, options)
    seconds = time.monotonic() - began
    ppo = train_by_rewards(options, seconds)

    def act(network: nn.Module, observations: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(observations)).numpy()

    returns = {
        "untrained": mean_return(lambda o: act(untrained, o), options),
        "PPO": mean_return(lambda o: ppo.predict(o, deterministic=True)[0], options),
        "through the physics": mean_return(lambda o: act(policy, o), options),
    }
    print(f"mean return after {seconds:.0f} s of training each, over {options.episodes} episodes:")
    for name, value in returns.items():
        print(f"{name:>20} {value:8.1f}")
    return returns


if __name__ == "__main__":
    main(Options())
