"""Which parts of a plan's model are learned, and where they start."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are

from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import (
    ContextualCost,
    LinearCost,
    LinearDynamics,
    QuadraticCost,
    TerminalCost,
)
from mpc_gym.models.wrapped import WrappedCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy
from mpc_gym.policies.options import PlanOptions
from tests.policies.planners import ENV, SHORT, observations, two_masses

DYNAMICS = {f"dynamics.{name}" for name in ("gravity", "mass", "length", "damping", "wind")}
WEIGHTS = {f"cost.{name}_weight" for name in ("angle", "speed", "torque")}
NAMES = ("dynamics", "cost", "linear", "terminal", "cost_map")
COMBINATIONS = [
    names for count in range(1, len(NAMES) + 1) for names in itertools.combinations(NAMES, count)
]


# alone, and all of them together; the others now and then
SOME_COMBINATIONS = [
    names if len(names) in {1, len(NAMES)} else pytest.param(names, marks=pytest.mark.slow)
    for names in COMBINATIONS
]


def make_policy(learn, env_id: str = ENV, **options) -> MPCPolicy:
    env = gym.make(env_id)
    return MPCPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-2,
        net_arch=[],
        **{**SHORT, "learn": learn, **options},
    )


def learned(policy: MPCPolicy) -> set[str]:
    """What of the plan's model is learned, by the names that a user knows."""
    names = {name for name, each in policy.mpc.named_parameters() if each.requires_grad}
    for added in ("parametrizations.", ".original"):
        names = {name.replace(added, "") for name in names}
    while any(name.startswith("cost.cost.") for name in names):
        names = {name.replace("cost.cost.", "cost.", 1) for name in names}
    return names


@pytest.mark.parametrize(
    ("learn", "expected"),
    [
        (None, DYNAMICS | WEIGHTS),
        ("dynamics", DYNAMICS),
        ("cost", WEIGHTS),
        ("mass", {"dynamics.mass"}),
        (["gravity", "cost.angle_weight"], {"dynamics.gravity", "cost.angle_weight"}),
        (("dynamics", "torque_weight"), DYNAMICS | {"cost.torque_weight"}),
        ({"mass": 3.0, "length": None}, {"dynamics.mass", "dynamics.length"}),
        ((), set()),
        ("linear", {"cost.p"}),
        ("terminal", {"cost.curvature", "cost.q"}),
        ("cost_map", set()),
        (("dynamics", "terminal"), DYNAMICS | {"cost.curvature", "cost.q"}),
        ({"mass": 3.0, "linear": None}, {"dynamics.mass", "cost.p"}),
        ({"terminal": None}, {"cost.curvature", "cost.q"}),
    ],
)
def test_what_is_named_is_learned_and_nothing_else(learn, expected):
    assert learned(make_policy(learn)) == expected


def test_a_cost_map_is_learned_as_a_network_of_the_policy():
    policy = make_policy(("cost_map", "terminal"))
    assert {"planner.cost_map.last.weight", "planner.cost_map.hidden.0.weight"} <= {
        name for name, each in policy.named_parameters() if each.requires_grad
    }
    assert make_policy("terminal").planner.cost_map is None


def test_a_mapping_starts_from_other_values_and_none_from_the_models_own():
    mpc = make_policy({"mass": 3.0, "cost.angle_weight": 0.5, "length": None, "cost_map": None}).mpc
    assert mpc.dynamics.mass.item() == 3.0
    assert mpc.dynamics.length.item() == 1.0
    assert mpc.cost.cost.angle_weight.item() == pytest.approx(0.5)
    assert mpc.cost.cost.speed_weight.item() == pytest.approx(0.1)


@pytest.mark.parametrize("learn", SOME_COMBINATIONS, ids="+".join)
def test_untrained_it_is_the_models_own_plan_whatever_is_learned(learn):
    obs = observations(2, seed=3)
    plan = make_mpc(ENV, backend="torch", **SHORT)(torch.tensor(obs))
    found = make_policy(learn, backend="torch").plan(obs)
    torch.testing.assert_close(found.controls, plan.controls, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.cost, plan.cost)
    wrappers = {"linear": LinearCost, "terminal": TerminalCost, "cost_map": ContextualCost}
    layers = {type(module) for module in make_policy(learn).mpc.cost.modules()}
    assert {name for name, wrapper in wrappers.items() if wrapper in layers} == set(learn) - {
        "dynamics",
        "cost",
    }


@pytest.mark.parametrize("env_id", [ENV, "DiffCartPole-v0"])
def test_everything_at_once_has_a_gradient_in_each_of_its_parts(env_id):
    policy = make_policy(NAMES, env_id)
    obs = gym.make(env_id).reset(seed=1)[0][None]
    with torch.no_grad():  # from nothing the hidden layers of a map have no gradient
        policy.planner.cost_map.last.weight.normal_(std=0.01)
    _, log_prob, _ = policy.evaluate_actions(torch.tensor(obs), torch.zeros(1, policy.mpc.n_ctrl))
    log_prob.sum().backward()
    without = {
        name
        for name, each in policy.named_parameters()
        if "value_net" not in name and (each.grad is None or not each.grad.any())
    }
    assert not [name for name in without if "mpc.dynamics" not in name]


@pytest.mark.parametrize("learn", [None, "cost", ["mass", "angle_weight", "cost_map"]])
def test_weights_masses_and_lengths_stay_positive_however_hard_they_are_trained(learn):
    policy = make_policy(learn, backend="torch")
    dynamics, cost = policy.mpc.dynamics, policy.mpc.cost
    while isinstance(cost, WrappedCost):
        cost = cost.cost
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    for _ in range(40):  # towards -infinity
        weights = cost.angle_weight, cost.speed_weight, cost.torque_weight
        optimizer.zero_grad()
        (sum(weights) + dynamics.mass + dynamics.length).backward()
        optimizer.step()
    assert cost.angle_weight < 0.1
    assert min(*weights, dynamics.mass, dynamics.length) > 0.0
    assert bool(policy.plan(observations(2)).controls.isfinite().all())


def test_a_short_horizon_becomes_far_sighted_by_its_terminal_value():
    """Given the value of a linear-quadratic problem, it acts as the endless plan does."""
    A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [0.1]])
    Q, R = np.diag([1.0, 0.1]), np.array([[0.01]])
    mpc = MPC(
        LinearDynamics(torch.tensor(A), torch.tensor(B)),
        QuadraticCost(torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64).diag()),
        horizon=2,
        control_low=-9.0,
        control_high=9.0,
        backend="torch",
    )
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    P = solve_discrete_are(A, B, Q, R)
    endless = -np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A) @ x[0].numpy()
    assert mpc(x).controls[0, 0].item() != pytest.approx(endless.item(), rel=0.1)
    mpc.cost = TerminalCost(mpc.cost, mpc.horizon, 2)
    with torch.no_grad():
        mpc.cost.curvature.copy_(torch.tensor(P - Q))  # the last stage has its own cost too
    assert mpc(x).controls[0, 0].item() == pytest.approx(endless.item())


@pytest.mark.parametrize(
    ("learn", "message"),
    [
        ("gravitas", "no parameter 'gravitas'; there are dynamics.gravity"),
        (["mass", "gravitas"], "no parameter 'gravitas'"),
        ({"mass": -1.0}, "mass"),
        ({"mass": float("nan")}, "initial value of dynamics.mass must be finite"),
        ({"cost.angle_weight": -1.0}, "angle_weight must be finite and not negative"),
        ({"cost.torque_weight": 0.0}, "torque_weight starts at zero and would stay there"),
        ({"terminal": 1.0}, r"learn\['terminal'\] must be None: it starts at zero, got 1.0"),
        ({"dynamics": None}, "no parameter 'dynamics'"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_the_reason(learn, message):
    with pytest.raises(ValueError, match=message):
        make_policy(learn)


def test_numpys_numbers_are_kept_as_pythons_own():
    options = PlanOptions(
        horizon=np.int64(7), tolerance=np.float32(0.5), learn={"mass": np.float32(3.0)}
    )
    assert options == PlanOptions(horizon=7, tolerance=0.5, learn={"mass": 3.0})
    kept = [options.horizon, options.tolerance, options.learn["mass"]]
    assert [type(value) for value in kept] == [int, float, float]
    assert make_policy({"mass": np.float32(3.0)}).mpc.dynamics.mass.item() == 3.0


def test_an_environment_without_a_model_is_refused_by_the_name_of_the_argument():
    with pytest.raises(ValueError, match=r"^mpc must be the id of .*model.*got 'MountainCar-v0'"):
        make_policy(None, mpc="MountainCar-v0")


@pytest.mark.parametrize("learn", [3, 0.5, True])
def test_what_is_no_name_or_names_to_learn_is_refused(learn):
    with pytest.raises(TypeError, match="learn must be a name, a sequence of names, or a mapping"):
        make_policy(learn)


@pytest.mark.parametrize(
    ("option", "value"), [("learn", np.array(["mass"])), ("horizon", torch.tensor(3))]
)
def test_an_option_that_is_no_plain_data_is_refused(option, value):
    with pytest.raises(TypeError, match=rf"{option} .*got (ndarray|Tensor)"):
        PlanOptions(**{option: value})


def test_a_function_of_the_users_gets_the_options_and_the_additions_are_made_here():
    options = PlanOptions(two_masses, horizon=4, starts=2, learn=("linear", "terminal"))
    mpc = options.make(2)
    assert (mpc.horizon, mpc.starts) == (4, 2)
    assert isinstance(mpc.cost, TerminalCost)
    with pytest.raises(TypeError, match="tolerance"):
        PlanOptions(two_masses, tolerance=1e-3).make(2)
    with pytest.raises(TypeError, match="learn"):
        PlanOptions(two_masses, learn="mass").make(2)


def test_the_options_are_the_arguments_they_were_made_of():
    given = {"mpc": ENV, "horizon": 7, "learn": ("mass", "terminal"), "starts": 2}
    options = PlanOptions(**given)
    assert {name: value for name, value in options.as_arguments().items() if value} == given
    assert PlanOptions(**options.as_arguments()) == options
