import gymnasium as gym
import numpy as np
import pytest
import torch

from mpc_gym import MPC, make_mpc

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
    for source in ("Pendulum-v1", gym.make("Pendulum-v1"), gym.make("Pendulum-v1").action_space):
        with pytest.raises(ValueError, match=r"env must be .*DiffPendulum-v0"):
            make_mpc(source)
    with pytest.raises(TypeError, match="env must be"):
        make_mpc(3)
