"""Behavioural cloning, then PPO or SAC on the same weights.

The demonstrator is sparing: it minds torque a thousand times more than the reward does, and takes
its time to swing the pendulum up. Cloning corrects the policy's wrong physics and copies the
demonstrator, its taste included: a clone is no better than what it is shown. Reinforcement learning
goes on from the clone, and finds by rewards alone what torque is worth.

    python examples/fine_tuning.py
    python examples/fine_tuning.py sac
"""

import sys
from dataclasses import dataclass

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.imitation import BehavioralCloning, Stateless, collect, evaluate
from mpc_gym.policies import CriticFirst, MPCPolicy, SACMPCPolicy


@dataclass
class Options:
    algorithm: str = "ppo"
    env_id: str = "DiffPendulum-v0"
    horizon: int = 15
    demonstrations: int = 10
    epochs: int = 30  # of cloning
    steps: int = 20_000  # of reinforcement learning
    n_envs: int = 16
    episodes: int = 50  # of each score
    seed: int = 0


TASTE = {"cost.torque_weight": 1.0}  # the reward's is 0.001
WRONG_START = {"gravity": 15.0, "mass": 3.0, "length": 0.5, "cost.torque_weight": 0.001}


def make_ppo(env: VecEnv, options: Options) -> PPO:
    return PPO(
        MPCPolicy,
        env,
        # Less noise than usual: the clone knows how to balance. And a higher learning rate, as the
        # plan has a handful of parameters, each far larger than a network's weights.
        policy_kwargs={
            "learn": WRONG_START,
            "horizon": options.horizon,
            "log_std_init": -1.0,
        },
        learning_rate=0.03,
        n_steps=64,
        batch_size=256,
        gamma=0.95,
        gae_lambda=0.9,
        seed=options.seed,
        device="cpu",
    )


def make_sac(env: VecEnv, options: Options) -> SAC:
    return SAC(
        SACMPCPolicy,
        env,
        policy_kwargs={
            "learn": WRONG_START,
            "horizon": options.horizon,
            "net_arch": {"pi": [64], "qf": [128, 128]},
        },
        learning_rate=1e-3,  # the critics' too, so not more
        batch_size=128,
        gamma=0.95,
        train_freq=1,
        gradient_steps=2,
        learning_starts=1000,
        tau=0.01,
        ent_coef="auto_0.1",
        seed=options.seed,
        device="cpu",
    )


def fine_tune(model: BaseAlgorithm, options: Options) -> None:
    if isinstance(model, SAC):
        # A critic that knows nothing yet would lead the clone astray.
        model.learn(options.steps, callback=CriticFirst(3 * options.steps // 10))
    else:
        model.learn(options.steps)


def main(options: Options) -> dict[str, float]:
    def score(agent) -> float:
        seeds = range(10_000, 10_000 + options.episodes)
        return evaluate(Stateless(agent), options.env_id, seeds).mean

    demonstrator = make_mpc(options.env_id, horizon=options.horizon, learn=TASTE)
    # without memory, as the policy: see `Stateless`
    demonstrations = collect(
        Stateless(demonstrator), options.env_id, options.demonstrations, options.seed
    )
    env = make_sb3_vec_env(options.env_id, n_envs=options.n_envs, seed=options.seed)
    make = {"ppo": make_ppo, "sac": make_sac}[options.algorithm]
    model = make(env, options)
    returns = {"demonstrator": score(demonstrator), "before": score(model)}
    BehavioralCloning(
        model.policy,
        demonstrations,
        prediction_weight=1.0,
        learning_rate=0.1,
        batch_size=256,
        validation_fraction=0.2,
        seed=options.seed,
    ).train(options.epochs)
    returns["after cloning"] = score(model)
    # The demonstrations hold all there is to know about the physics; it stays as it was learned.
    model.policy.mpc.dynamics.requires_grad_(False)
    fine_tune(model, options)
    returns[f"after {options.algorithm.upper()}"] = score(model)
    for name, value in returns.items():
        print(f"{name:>14} {value:8.1f}")
    return returns


if __name__ == "__main__":
    main(Options(*sys.argv[1:2]))
