from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import torch

from mpc_gym import MPC, make_mpc
from mpc_gym.make_mpc import HasModel
from tests import theirs

PENDULUM = ["gravity", "mass", "length", "damping", "wind"]
PENDULUM_COST = ["angle_weight", "speed_weight", "torque_weight"]
SYSTEMS = ["DiffPendulum-v0", "DiffCartPole-v0"]


def learned(mpc: MPC) -> dict[str, float]:
    return {name: p.tolist() for name, p in mpc.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("env_id", SYSTEMS)
def test_it_plans_with_the_dynamics_cost_and_limits_of_the_environment(env_id: str) -> None:
    env = gym.make(env_id)
    mpc = make_mpc(env_id, horizon=7)
    rng = np.random.default_rng(0)
    for _ in range(20):
        env.reset(seed=int(rng.integers(1 << 30)))
        state = torch.tensor(env.unwrapped.state)
        action = env.action_space.sample()
        control = torch.tensor(action).double()
        _, reward, *_ = env.step(action)
        assert mpc.cost(state, control).item() == pytest.approx(-reward, rel=1e-14, abs=1e-14)
        following = mpc.dynamics(state, control).detach()
        np.testing.assert_allclose(following, env.unwrapped.state, atol=1e-7)
    assert mpc.horizon == 7
    np.testing.assert_array_equal(mpc.control_low, env.action_space.low)
    np.testing.assert_array_equal(mpc.control_high, env.action_space.high)


def test_the_plan_it_makes_is_what_the_environment_then_does() -> None:
    env = gym.make("DiffPendulum-v0")
    env.reset(seed=0)
    with torch.no_grad():
        plan = make_mpc(env, horizon=10)(torch.tensor(env.unwrapped.state)[None])
    rewards = []
    for state, control in zip(plan.states[0], plan.controls[0], strict=True):
        np.testing.assert_allclose(env.unwrapped.state, state, atol=1e-9)
        rewards.append(env.step(control.numpy())[1])
    assert plan.cost.item() == pytest.approx(-sum(rewards))


@pytest.mark.parametrize(
    "source",
    [
        lambda env: env,
        lambda env: env.unwrapped,
        lambda env: env.observation_space,
        gym.wrappers.RecordEpisodeStatistics,
    ],
)
def test_environment_wrappers_and_spaces_carry_their_physics(source) -> None:
    mpc = make_mpc(source(gym.make("DiffPendulum-v0", length=1.2, damping=0.3)))
    assert mpc.dynamics.length.item() == 1.2
    assert mpc.dynamics.damping.item() == 0.3


def test_it_is_a_fresh_copy() -> None:
    env = gym.make("DiffPendulum-v0")
    one, other = make_mpc(env), make_mpc(env)
    with torch.no_grad():
        one.dynamics.mass.fill_(5.0)
        one.cost.angle_weight.fill_(5.0)
    for module in (other, env.unwrapped):
        assert module.dynamics.mass.item() == 1.0
        assert module.cost.angle_weight.item() == 1.0


def test_a_copy_has_no_gradient_of_the_original() -> None:
    env = gym.make("DiffPendulum-v0")
    env.unwrapped.dynamics.mass.grad = torch.tensor(3.0, dtype=torch.float64)
    assert make_mpc(env).dynamics.mass.grad is None


@pytest.mark.parametrize(
    ("learn", "expected"),
    [
        (None, [f"dynamics.{n}" for n in PENDULUM] + [f"cost.{n}" for n in PENDULUM_COST]),
        ((), []),
        ("gravity", ["dynamics.gravity"]),
        (["mass", "torque_weight"], ["dynamics.mass", "cost.torque_weight"]),
        (("dynamics.mass",), ["dynamics.mass"]),
        ("dynamics", [f"dynamics.{n}" for n in PENDULUM]),
        (["cost", "wind"], ["dynamics.wind"] + [f"cost.{n}" for n in PENDULUM_COST]),
        ({"mass": 3.0}, ["dynamics.mass"]),
    ],
)
def test_learn_chooses_what_requires_a_gradient(learn, expected: list[str]) -> None:
    assert list(learned(make_mpc("DiffPendulum-v0", learn=learn))) == expected


def test_a_mapping_gives_the_values_to_start_from_and_leaves_the_others() -> None:
    mpc = make_mpc("DiffPendulum-v0", learn={"gravity": 15, "dynamics.mass": 3.0, "length": 0.5})
    assert learned(mpc) == {"dynamics.gravity": 15, "dynamics.mass": 3, "dynamics.length": 0.5}
    assert mpc.dynamics.damping.item() == 0.0


def test_whole_tensors_can_start_from_given_values() -> None:
    weights = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    mpc = make_mpc("DiffCartPole-v0", learn={"C": weights})
    assert learned(mpc) == {"cost.C": weights}


@pytest.mark.parametrize(
    ("learn", "message"),
    [
        ("inertia", "no parameter 'inertia'; there are dynamics.gravity"),
        (["mass", "cost.mass"], "no parameter 'cost.mass'"),
        ({"dynamics": 1.0}, "no parameter 'dynamics'"),
        ({"mass": [1.0, 2.0]}, r"dynamics.mass has shape \[\], got \[2\]"),
        ({"gravity": np.nan}, "dynamics.gravity must be finite"),
        ({"mass": -1.0}, "mass must be a positive number"),
    ],
)
def test_a_wrong_learn_is_refused(learn, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_mpc("DiffPendulum-v0", learn=learn)


def test_an_ambiguous_name_is_refused() -> None:
    env = gym.make("DiffPendulum-v0")
    env.unwrapped.cost.register_parameter("mass", torch.nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(ValueError, match=r"ambiguous; say one of dynamics\.mass, cost\.mass"):
        make_mpc(env, learn="mass")


def test_options_are_those_of_mpc() -> None:
    mpc = make_mpc("DiffPendulum-v0", starts=8, hessian="gauss-newton", control_high=1.0)
    assert (mpc.starts, mpc.hessian) == (8, "gauss-newton")
    assert mpc.control_high.item() == 1.0
    assert mpc.control_low.item() == -2.0


def test_an_environment_without_a_model_is_refused() -> None:
    for source in (
        "MountainCar-v0",
        gym.make("MountainCar-v0"),
        gym.make("Pendulum-v1").action_space,
    ):
        with pytest.raises(ValueError, match=r"env must be .*DiffPendulum-v0"):
            make_mpc(source)
    with pytest.raises(TypeError, match="env must be"):
        make_mpc(3)


class ModelBeside(gym.Wrapper):
    """Gymnasium's own pendulum, with our model of it beside it."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        ours = gym.make("DiffPendulum-v0").unwrapped
        self.dynamics, self.cost = ours.dynamics, ours.cost

    def nominal_dynamics(self):
        return self.dynamics  # no copy, which nothing may come to depend on


@pytest.fixture
def their_id() -> Iterator[str]:
    theirs.register()
    yield theirs.THEIRS
    del gym.registry[theirs.THEIRS]


def test_an_environment_of_another_library_needs_no_class_of_ours(their_id: str) -> None:
    env = gym.make(their_id, drag=0.3)
    assert isinstance(env.unwrapped, HasModel)
    assert make_mpc(env, model="true").dynamics.A[1, 1].item() == pytest.approx(0.7)
    assert make_mpc(env).dynamics.A[1, 1].item() == 1.0
    mpc = make_mpc(their_id, horizon=15, learn={"A": [[1.0, 0.1], [0.0, 0.9]]})
    assert list(learned(mpc)) == ["dynamics.A"]
    assert (mpc.control_low.item(), mpc.control_high.item()) == (-theirs.LIMIT, theirs.LIMIT)
    observation, _ = env.reset(seed=0)
    for _ in range(50):
        with torch.no_grad():
            plan = mpc(torch.from_numpy(observation)[None])
        observation, *_ = env.step(plan.controls[0, 0].numpy())
    np.testing.assert_allclose(observation, 0.0, atol=0.02)


def test_the_model_may_stand_on_a_wrapper() -> None:
    env = gym.wrappers.TimeLimit(ModelBeside(gym.make("Pendulum-v1")), 10)
    mpc = make_mpc(env, learn=())
    assert env.get_wrapper_attr("dynamics").mass.requires_grad
    assert mpc.dynamics is not env.get_wrapper_attr("dynamics")
    assert mpc.control_high.item() == 2.0


@pytest.mark.parametrize("missing", ["dynamics", "cost", "nominal_dynamics"])
def test_a_name_that_is_missing_is_asked_for(their_id: str, missing: str, monkeypatch) -> None:
    env = gym.make(their_id).unwrapped
    monkeypatch.delattr(type(env) if missing == "nominal_dynamics" else env, missing)
    with pytest.raises(ValueError, match=r"env must be .*dynamics, cost and nominal_dynamics\(\)"):
        make_mpc(env)


def test_actions_in_bins_are_refused(their_id: str) -> None:
    env = gym.make(their_id).unwrapped
    env.action_space = gym.spaces.Discrete(3)
    with pytest.raises(ValueError, match=r"env must have spaces that are a Box, got Discrete"):
        make_mpc(env)


def test_plans_are_as_long_as_the_task_asks_unless_it_is_said():
    for env_id, kwargs, expected in (
        ("DiffPendulum-v0", {}, 20),
        ("DiffAcrobot-v0", {}, 40),
        ("DiffPlanarQuadrotor-v0", {"obstacle": 0.5}, 30),
    ):
        env = gym.make(env_id, **kwargs)
        assert make_mpc(env).horizon == expected
        assert make_mpc(env.observation_space).horizon == expected
        assert make_mpc(env, horizon=3).horizon == 3
