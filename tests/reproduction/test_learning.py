"""How learners learn from plans: losses, gradients, turns, warm starts, and when it is enough."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mpc_gym.policies.lstm import LSTMPlanner
from reproduction import nonconvex
from reproduction.learning import (
    LEAST,
    ImitationLoss,
    ModelLoss,
    NetworkLoss,
    OurLoss,
    make_planner,
    never,
    our_schedule,
    small_or_flat,
)
from reproduction.problems import CARTPOLE, PENDULUM, LearnedCost, expert_plans

ROWS = torch.arange(6)


def objective(loss: ModelLoss, rows: Tensor = ROWS) -> Tensor:
    value = loss(rows).objective()
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("method", "learned"),
    [
        ("sysid", {"dynamics.gravity", "dynamics.mass", "dynamics.length"}),
        ("mpc.dx", {"dynamics.gravity", "dynamics.mass", "dynamics.length"}),
        ("mpc.cost", {"cost.logits", "cost.p"}),
        (
            "mpc.cost.dx",
            {"dynamics.gravity", "dynamics.mass", "dynamics.length", "cost.logits", "cost.p"},
        ),
    ],
)
def test_a_method_learns_what_its_name_says(method: str, learned: set[str]) -> None:
    mpc = make_planner(PENDULUM, method, "exact", 1)
    assert {name for name, p in mpc.named_parameters() if p.requires_grad} == learned
    physics = {name: p.item() for name, p in mpc.dynamics.named_parameters()}
    begins = PENDULUM.expert if method == "mpc.cost" else PENDULUM.learner
    assert {name: physics[name] for name in begins} == begins


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method must be one of sysid, mpc\.dx.*got 'mpc'"):
        make_planner(PENDULUM, "mpc", "exact", 1)


def test_the_expert_itself_has_no_loss() -> None:
    plans = expert_plans(PENDULUM, 0)
    loss = ImitationLoss(make_planner(PENDULUM, "mpc.cost", "exact", 1), plans)
    loss.mpc.cost = PENDULUM.cost()
    with torch.no_grad():
        value = loss(plans.test)
    assert value.mean() < 1e-12
    assert value.metrics["model_loss"].mean() < 1e-20


def test_the_losses_are_the_mean_squared_errors_of_controls_and_of_next_states() -> None:
    plans = expert_plans(CARTPOLE, 0)
    mpc = make_planner(CARTPOLE, "sysid", "exact", 1)
    loss = ModelLoss(mpc, plans)
    with torch.no_grad():
        judged = loss(ROWS)
        controls = mpc(plans.states[:6, 0]).controls
        errors = [
            mpc.dynamics(plans.states[i, t], plans.controls[i, t]) - plans.states[i, t + 1]
            for i in range(6)
            for t in range(19)
        ]
    expected = np.mean((controls - plans.controls[:6]).numpy() ** 2)
    assert judged.mean() == pytest.approx(expected)
    model_loss = torch.stack(errors).square().mean().item()
    assert judged.metrics["model_loss"].mean() == pytest.approx(model_loss)
    assert objective(loss).item() == pytest.approx(model_loss)  # what is minimised


def test_the_gradient_of_the_imitation_loss_agrees_with_finite_differences() -> None:
    plans = expert_plans(CARTPOLE, 0)
    mpc = make_planner(CARTPOLE, "mpc.cost.dx", "exact", 1)
    mpc.tolerance = 1e-10
    loss = ImitationLoss(mpc, plans)
    objective(loss).backward()
    assert isinstance(mpc.cost, LearnedCost)
    for parameter, index in ((mpc.dynamics.pole_length, ()), (mpc.cost.p, 2), (mpc.cost.logits, 5)):
        assert isinstance(parameter, Tensor)
        assert parameter.grad is not None
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter[index] += step
                values.append(loss(ROWS).mean())
                parameter[index] -= step
        difference = (values[0] - values[1]) / 2e-5
        assert parameter.grad[index].item() == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize("method", ["sysid", "mpc.dx", "mpc.cost", "mpc.cost.dx", "nn"])
def test_gradient_steps_reduce_the_loss(method: str) -> None:
    plans = expert_plans(PENDULUM, 0)
    torch.manual_seed(0)
    network = LSTMPlanner(3, 1, 20, hidden=32)
    planners = {"sysid": ModelLoss}
    if method == "nn":
        learner, loss = network, NetworkLoss(network, plans)
    else:
        learner = make_planner(PENDULUM, method, "exact", 1)
        loss = planners.get(method, ImitationLoss)(learner, plans)
    optimizer = torch.optim.RMSprop([p for p in learner.parameters() if p.requires_grad], 1e-2)
    values = []
    for _ in range(30):
        value = objective(loss)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]


def test_the_two_parts_of_a_cost_are_learned_in_turns_and_the_physics_always() -> None:
    plans = expert_plans(PENDULUM, 0)
    loss = ImitationLoss(make_planner(PENDULUM, "mpc.cost.dx", "exact", 1), plans)
    turns = []
    for epoch in range(40):
        loss.begin_epoch(epoch)
        loss.mpc.zero_grad()
        objective(loss).backward()
        parts = dict(loss.mpc.named_parameters())
        assert parts["dynamics.mass"].grad is not None
        learned = [parts[f"cost.{name}"].grad is not None for name in ("p", "logits")]
        assert learned.count(True) == 1
        turns.append(learned.index(True))
    assert turns == [0] * 10 + [1] * 10 + [0] * 10 + [1] * 10


def test_plans_are_solved_from_the_last_ones_until_these_are_forgotten() -> None:
    plans = expert_plans(CARTPOLE, 0)
    loss = ImitationLoss(make_planner(CARTPOLE, "mpc.dx", "exact", 1), plans)
    loss.begin_epoch(0)
    assert not loss.warm_starts.any()
    loss(ROWS)
    planned = loss.warm_starts.clone()
    assert planned[:6].abs().amax((1, 2)).min() > 0
    assert not planned[6:].any()
    with torch.no_grad():
        loss(torch.arange(6, 12))  # judged: planned from nothing, and not remembered
    loss.begin_epoch(49)
    assert torch.equal(loss.warm_starts, planned)
    loss.begin_epoch(50)
    assert not loss.warm_starts.any()


def test_a_guided_learner_stays_with_the_demonstrations_where_an_unguided_one_does_not() -> None:
    plans = expert_plans(CARTPOLE, 0, starts=8)
    rows = plans.training(100)
    losses = []
    for guess in (None, plans.controls):
        mpc = make_planner(CARTPOLE, "mpc.dx", "exact", 1)
        with torch.no_grad():
            for name, value in CARTPOLE.expert.items():
                getattr(mpc.dynamics, name).fill_(value)
        loss = ImitationLoss(mpc, plans, guess)
        loss.begin_epoch(0)
        losses.append(objective(loss, rows).item())
    assert losses[0] > 1.0  # a floor, though the model is the expert's
    assert losses[1] < 1e-9


def test_our_training_plans_are_smoothed_in_the_first_epochs_and_no_others() -> None:
    plans = expert_plans(PENDULUM, 0)
    mpc = make_planner(PENDULUM, "mpc.dx", "exact", 1)
    loss = OurLoss(mpc, plans, epochs=10)
    seen: list[float] = []
    loss.planner.register_forward_pre_hook(lambda mpc, _: seen.append(mpc.smoothing.item()))
    for epoch in range(10):
        loss.begin_epoch(epoch)
        loss(ROWS)
        with torch.no_grad():
            loss(ROWS)
    np.testing.assert_allclose(seen, [1.0, 1e-2, 1e-4, *[0.0] * 7], rtol=1e-12)
    assert mpc.smoothing.item() == 0.0


def test_smoothing_gives_a_gradient_where_every_control_is_held() -> None:
    plans = expert_plans(PENDULUM, 0)
    gradients = []
    for kind in (ImitationLoss, lambda mpc, plans: OurLoss(mpc, plans, 300, prediction=0.0)):
        mpc = make_planner(PENDULUM, "mpc.dx", "exact", 1)
        controls = mpc(plans.states[:100, 0]).controls[:, :-1]  # the last moves nothing
        rows = (controls.abs() == PENDULUM.limit).flatten(1).all(1).nonzero()[:, 0]
        assert len(rows) > 3
        loss = kind(mpc, plans)
        loss.begin_epoch(0)
        objective(loss, rows).backward()
        gradients.append(mpc.dynamics.mass.grad.abs().item())
    assert gradients[0] == 0.0
    assert gradients[1] > 1e-3


@pytest.mark.parametrize("system", [PENDULUM, CARTPOLE], ids=lambda system: system.title)
def test_the_model_loss_is_added_in_units_of_the_change_and_of_the_limit(system: Any) -> None:
    plans = expert_plans(system, 0)
    values = []
    for prediction in (0.0, 2.0):
        loss = OurLoss(make_planner(system, "mpc.dx", "exact", 1), plans, 10, prediction)
        loss.begin_epoch(9)
        values.append(objective(loss).item())
    steps = plans.states[:100, 1:] - plans.states[:100, :-1]
    error = ModelLoss(make_planner(system, "sysid", "exact", 1), plans).model_error(ROWS).mean()
    expected = 2.0 * error / steps.square().mean().item() * system.limit**2
    assert values[1] - values[0] == pytest.approx(expected)


def test_our_learner_takes_as_many_steps_from_few_plans_as_from_many() -> None:
    for count, epochs in ((10, 1500), (50, 750), (100, 375)):
        found, rate = our_schedule(count)
        assert found == epochs
        assert rate.at(0) == rate.at(found // 2 - 1) == 2e-2
        assert rate.at(found - 1) == pytest.approx(1e-6)


@pytest.mark.slow
def test_a_learner_that_is_stuck_comes_free(tmp_path: Path) -> None:
    losses = {}
    for learner, steps in (("paper", 1000), ("ours", 1500)):
        settings = {"planning": "one start", "hessian": "exact", "learner": learner}
        given = {**settings, "demonstrations": 10, "seed": 3, "steps": steps}
        found = nonconvex.run(tmp_path / learner, "pendulum", "mpc.dx", **given)
        losses[learner] = found["test_loss"]
    assert losses["paper"] > 1.0
    assert losses["ours"] < 1e-6


def test_masses_and_lengths_stay_positive() -> None:
    plans = expert_plans(CARTPOLE, 0)
    mpc = make_planner(CARTPOLE, "mpc.dx", "exact", 1)
    with torch.no_grad():
        mpc.dynamics.pole_mass.fill_(-0.3)
    objective(ImitationLoss(mpc, plans))
    assert mpc.dynamics.pole_mass.item() == LEAST
    assert mpc.dynamics.cart_mass.item() == 3.0


def history(losses: list[float]) -> list[dict[str, float]]:
    best = np.minimum.accumulate(losses)
    pairs = zip(losses, best, strict=True)
    return [{"validation/loss": x, "validation/best_loss": float(b)} for x, b in pairs]


def test_it_is_enough_when_the_loss_has_long_been_tiny() -> None:
    tiny = [1.0] + [1e-10] * 60
    assert small_or_flat(history(tiny[:51]), 200, 0.01) is None
    assert small_or_flat(history(tiny[:52]), 200, 0.01) == "below 1e-09 for 50 epochs"


def test_it_is_enough_when_the_loss_has_long_been_flat_and_low() -> None:
    falling = list(np.geomspace(1, 1e-3, 100))
    assert small_or_flat(history(falling), 80, 0.01) is None
    assert small_or_flat(history(falling + [1e-3] * 79), 80, 0.01) is None
    assert small_or_flat(history(falling + [1e-3] * 80), 80, 0.01) == "flat for 80 epochs"


def test_a_plateau_that_is_high_is_no_reason_to_end_unless_any_is() -> None:
    plateau = history([1.0] + [0.5] * 200)
    assert small_or_flat(plateau, 80, 0.01) is None
    assert small_or_flat(plateau, 80, 1.0) == "flat for 80 epochs"
    assert never(plateau) is None
