"""CriticFirst: the plan is held while the critic learns, and learns after that."""

import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import ConvertCallback

from mpc_gym.policies import CriticFirst, MPCPolicy, SACMPCPolicy

PLAN = {"horizon": 3, "max_iterations": 30, "learn": ["dynamics", "cost_map"]}


def make(algorithm: str) -> PPO | SAC:
    if algorithm == "PPO":
        options = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
        return PPO(MPCPolicy, "DiffPendulum-v0", policy_kwargs=dict(PLAN), seed=0, **options)
    return SAC(SACMPCPolicy, "DiffPendulum-v0", policy_kwargs=dict(PLAN), seed=0, learning_starts=4)


def plan_of(model: PPO | SAC) -> list[torch.Tensor]:
    planner = model.policy.planner
    parameters = [*planner.mpc.parameters(), *planner.cost_map.parameters()]
    return [each.detach().clone() for each in parameters]


def equal(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_the_plan_is_held_first_and_learned_then(algorithm: str) -> None:
    model = make(algorithm)
    start = plan_of(model)
    others = [each.detach().clone() for each in model.policy.parameters()]
    learned = {name for name, each in model.policy.named_parameters() if each.requires_grad}
    model.learn(16, callback=CriticFirst(1_000))
    assert equal(start, plan_of(model))
    assert not equal(others, [each.detach() for each in model.policy.parameters()])
    assert {name for name, each in model.policy.named_parameters() if each.requires_grad} == learned

    model.learn(24, callback=CriticFirst(8), reset_num_timesteps=True)
    assert not equal(start, plan_of(model))


def test_one_callback_serves_one_model_after_another() -> None:
    callback = CriticFirst(1_000)
    for _ in range(2):
        model = make("PPO")
        start = plan_of(model)
        model.learn(16, callback=callback)
        assert equal(start, plan_of(model))


def test_a_training_that_was_interrupted_leaves_nothing_held_for_the_next() -> None:
    model, callback = make("PPO"), CriticFirst(8)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    learned = {name for name, each in model.policy.named_parameters() if each.requires_grad}
    with pytest.raises(KeyboardInterrupt):
        model.learn(16, callback=[callback, ConvertCallback(interrupt)])
    model.learn(24, callback=callback)
    assert {name for name, each in model.policy.named_parameters() if each.requires_grad} == learned


def test_it_is_refused_where_nothing_plans() -> None:
    model = PPO("MlpPolicy", "DiffPendulum-v0", n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="ActorCriticPolicy"):
        model.learn(8, callback=CriticFirst(8))
    with pytest.raises(ValueError, match="steps"):
        CriticFirst(-1)
