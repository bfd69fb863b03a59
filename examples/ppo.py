"""PPO with a policy that plans, in the place of "MlpPolicy".

The policy's physics is wrong at first: it takes the pendulum for much lighter than it is. PPO
corrects it by rewards alone.
"""

from dataclasses import dataclass

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import mpc_gym  # noqa: F401  (registers the environments)
from mpc_gym.policies import MPCPolicy


@dataclass
class Options:
    env_id: str = "DiffPendulum-v0"
    n_envs: int = 8
    steps: int = 20_000
    steps_per_update: int = 250  # of each environment
    learning_rate: float = 0.1  # of a physical parameter, which is far larger than a weight
    episodes: int = 24
    seed: int = 0


def main(options: Options) -> PPO:
    env = make_vec_env(options.env_id, options.n_envs, seed=options.seed)
    model = PPO(
        MPCPolicy,
        env,
        policy_kwargs={"learn": {"mass": 0.2}, "starts": 4, "log_std_init": -1.0},
        n_steps=options.steps_per_update,
        batch_size=500,
        learning_rate=options.learning_rate,
        gamma=0.95,
        gae_lambda=0.9,
        seed=options.seed,
    )
    report("before", model, options)
    model.learn(options.steps)
    report("after", model, options)
    return model


def report(moment: str, model: PPO, options: Options) -> None:
    unseen = make_vec_env(options.env_id, options.n_envs, seed=options.seed + 1_000)
    mean, std = evaluate_policy(model, unseen, n_eval_episodes=options.episodes, warn=False)
    mass = model.policy.mpc.dynamics.mass.item()
    print(f"{moment} learning: return {mean:.0f} ± {std:.0f}, mass {mass:.2f} kg (true: 1.00 kg)")


if __name__ == "__main__":
    main(Options())
