"""The id of a known environment is all that a policy asks for: it plans, learns, and is loaded."""

import os

os.environ.setdefault("MUJOCO_GL", "disabled")

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import shimmy
import torch
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import PPO, SAC
from torch import Tensor

from mpc_gym import make_mpc
from mpc_gym.imitation import evaluate
from mpc_gym.known import KNOWN, known_environment
from mpc_gym.models import current_values
from mpc_gym.policies import DiscreteMPCPolicy, MPCPolicy, SACMPCPolicy

gym.register_envs(shimmy)

DM_CART_POLE = "dm_control/cartpole-swingup-v0"
DM_ACROBOT = "dm_control/acrobot-swingup-v0"
SMALL: dict[str, Any] = {"horizon": 5, "starts": 1}
SETTINGS: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "seed": 0}


def untrained(env_id: str, env: gym.Env[Any, Any] | None = None, **options: Any) -> PPO:
    known = known_environment(env_id)
    assert known is not None
    policy = MPCPolicy if known.controls is None else DiscreteMPCPolicy
    return PPO(policy, env or env_id, policy_kwargs={"mpc": env_id, **options}, **SETTINGS)


def observations(env_id: str, count: int = 4) -> list[Any]:
    env = gym.make(env_id)
    env.action_space.seed(0)
    seen = [env.reset(seed=0)[0]]
    seen += [env.step(env.action_space.sample())[0] for _ in range(count - 1)]
    return seen


def actions(model: Any, env_id: str) -> list[Any]:
    return [model.predict(each, deterministic=True)[0] for each in observations(env_id)]


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "CartPole-v1", DM_CART_POLE])
def test_a_policy_learns_and_is_loaded(env_id: str, tmp_path: Path) -> None:
    model = untrained(env_id, **SMALL)
    before = current_values(model.policy.mpc.dynamics)
    model.learn(8)
    after = current_values(model.policy.mpc.dynamics)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")
    np.testing.assert_array_equal(actions(model, env_id), actions(loaded, env_id))


def test_an_off_policy_algorithm_takes_the_id_too() -> None:
    env_id = "InvertedPendulum-v5"
    model = SAC(SACMPCPolicy, env_id, policy_kwargs={"mpc": env_id, **SMALL}, learning_starts=4)
    model.learn(6)
    assert np.isfinite(actions(model, env_id)).all()


def test_a_shared_folder_needs_no_function(tmp_path: Path) -> None:
    model = untrained(DM_CART_POLE, **SMALL)
    model.policy.save_pretrained(tmp_path / "policy")
    loaded = MPCPolicy.from_pretrained(tmp_path / "policy")
    np.testing.assert_array_equal(actions(model, DM_CART_POLE), actions(loaded, DM_CART_POLE))


@pytest.mark.parametrize("env_id", KNOWN)
def test_horizon_and_starts_are_known_and_can_be_chosen(env_id: str) -> None:
    known = known_environment(env_id)
    assert known is not None
    for mpc in (make_mpc(env_id), untrained(env_id).policy.mpc):
        assert mpc.horizon == known.horizon
        assert mpc.starts == known.options.get("starts", 1)
    for mpc in (make_mpc(env_id, 7, starts=2), untrained(env_id, horizon=7, starts=2).policy.mpc):
        assert (mpc.horizon, mpc.starts) == (7, 2)


def leaning(observation: Tensor) -> Tensor:
    """Every state as if the pole leaned by 0.1 rad."""
    cosine = torch.cos(torch.full_like(observation[:, 0], 0.1))
    zero = torch.zeros_like(cosine)
    return torch.stack((zero, cosine, (1 - cosine**2).sqrt(), zero, zero), -1)


def test_the_state_can_be_chosen() -> None:
    env_id = "InvertedPendulum-v5"
    model = untrained(env_id, state=leaning)
    first, *others = actions(model, env_id)
    assert abs(first) > 0.1
    assert all(np.array_equal(first, other) for other in others)


def test_commands_are_scaled_where_the_simulator_does() -> None:
    model = untrained(DM_ACROBOT, **SMALL)
    limits = model.policy.planner.action_limits
    assert (limits.low, limits.high) == (-2.0, 2.0)
    assert (limits.action_low, limits.action_high) == (-1.0, 1.0)


def test_rescaled_actions_are_undone() -> None:
    env_id = "InvertedPendulum-v5"
    rescaled = untrained(env_id, RescaleAction(gym.make(env_id), np.float32(-1), np.float32(1)))
    plain = untrained(env_id)
    np.testing.assert_allclose(
        3 * np.array(actions(rescaled, env_id)), actions(plain, env_id), rtol=1e-5
    )


def test_messages_name_what_is_known() -> None:
    with pytest.raises(ValueError, match=r'InvertedPendulum-v5.*mpc="InvertedPendulum-v5"'):
        PPO(MPCPolicy, "InvertedPendulum-v5")
    with pytest.raises(ValueError, match=r"env must be the id itself, 'InvertedPendulum-v5'"):
        make_mpc(gym.make("InvertedPendulum-v5"))
    with pytest.raises(ValueError, match=r"env must be the id .*Reacher-v5"):
        make_mpc(gym.make("MountainCar-v0"))
    for mpc in ("InvertedPendulum-v5", "dm_control/pendulum-swingup-v0"):
        with pytest.raises(ValueError, match=r"observation_space must be .*_state takes"):
            PPO(MPCPolicy, "InvertedDoublePendulum-v5", policy_kwargs={"mpc": mpc})
    with pytest.raises(ValueError, match="take a DiscreteMPCPolicy"):
        evaluate(make_mpc("Acrobot-v1"), "Acrobot-v1", [0])
    with pytest.raises(ValueError, match="controls must say which control each action is"):
        PPO(DiscreteMPCPolicy, "CartPole-v1", policy_kwargs={"mpc": "DiffCartPole-v0"})
