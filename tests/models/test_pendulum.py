import math

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import PendulumEnv
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from mpc_gym.models import PendulumCost, PendulumDynamics

angles = st.floats(-math.pi, math.pi)
speeds = st.floats(-8.0, 8.0)
torques = st.floats(-2.0, 2.0)
PARAMETERS = ["gravity", "mass", "length", "damping", "wind"]


def state_of(theta: float, speed: float) -> torch.Tensor:
    return torch.tensor([math.cos(theta), math.sin(theta), speed], dtype=torch.float64)


def control_of(torque: float) -> torch.Tensor:
    return torch.tensor([torque], dtype=torch.float64)


@given(angles, speeds, torques)
def test_step_and_cost_are_those_of_pendulum_v1(theta: float, speed: float, torque: float) -> None:
    env = PendulumEnv()
    env.state = np.array([theta, speed])
    _, reward, *_ = env.step(np.array([torque]))
    state, control = state_of(theta, speed), control_of(torque)
    following = PendulumDynamics()(state, control).detach()
    expected_theta, expected_speed = env.state
    torch.testing.assert_close(following, state_of(expected_theta, expected_speed))
    assert PendulumCost()(state, control).item() == pytest.approx(-reward, abs=1e-9)


@given(angles, speeds, torques)
def test_the_angle_stays_on_the_unit_circle(theta: float, speed: float, torque: float) -> None:
    following = PendulumDynamics()(state_of(theta, speed), control_of(torque))
    assert following[:2].norm().item() == pytest.approx(1.0, abs=1e-12)


@given(angles, speeds, torques)
def test_mirroring_state_and_torque_mirrors_the_motion(theta, speed, torque) -> None:
    dynamics = PendulumDynamics()
    mirror = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    one = dynamics(state_of(theta, speed), control_of(torque))
    other = dynamics(mirror * state_of(theta, speed), -control_of(torque))
    torch.testing.assert_close(other, mirror * one)


@given(angles, speeds, torques, angles)
def test_wind_turns_the_whole_motion(theta, speed, torque, wind) -> None:
    """A pendulum in wind is the pendulum without, seen from a frame turned by that angle."""
    calm, windy = PendulumDynamics(), PendulumDynamics(wind=wind)
    c, s = math.cos(wind), math.sin(wind)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    turned = calm(turn @ state_of(theta, speed), control_of(torque))
    torch.testing.assert_close(turn @ windy(state_of(theta, speed), control_of(torque)), turned)


@given(angles, speeds, torques, st.floats(0.3, 3.0))
def test_only_two_combinations_of_gravity_mass_and_length_matter(
    theta: float, speed: float, torque: float, stretch: float
) -> None:
    plain = PendulumDynamics(gravity=10.0, mass=1.0, length=1.0)
    other = PendulumDynamics(gravity=10.0 * stretch, mass=1.0 / stretch**2, length=stretch)
    state, control = state_of(theta, speed), control_of(torque)
    torch.testing.assert_close(plain(state, control), other(state, control))


def test_it_converges_to_the_differential_equation_as_the_step_shrinks() -> None:
    gravity, mass, length, damping, wind, torque = 9.0, 1.3, 0.8, 0.4, 0.2, 0.7

    def derivative(_: float, y: np.ndarray) -> list[float]:
        inertia = mass * length**2 / 3
        moment = 0.5 * mass * gravity * length * np.sin(y[0] + wind) + torque
        return [y[1], moment / inertia - damping * y[1]]

    theta, speed = solve_ivp(derivative, (0.0, 0.5), [1.0, -0.5], rtol=1e-10, atol=1e-10).y[:, -1]
    exact = state_of(theta, speed)

    def simulated(steps: int) -> torch.Tensor:
        dynamics = PendulumDynamics(
            gravity, mass, length, damping, wind, max_speed=None, dt=0.5 / steps
        )
        state = state_of(1.0, -0.5)
        with torch.no_grad():
            for _ in range(steps):
                state = dynamics(state, control_of(torque))
        return state

    coarse, fine = simulated(400), simulated(800)
    ratio = (coarse - exact).norm() / (fine - exact).norm()
    assert ratio.item() == pytest.approx(2.0, rel=0.05)  # first order
    # Richardson's extrapolation removes the first order, and with it nearly all of the error.
    torch.testing.assert_close(2 * fine - coarse, exact, atol=1e-4, rtol=0.0)


def test_the_speed_limit_can_be_lifted() -> None:
    state, control = state_of(1.0, 7.9), control_of(2.0)
    assert PendulumDynamics()(state, control)[2].item() == 8.0
    assert PendulumDynamics(max_speed=None)(state, control)[2].item() > 8.0


@pytest.mark.parametrize("name", [*PARAMETERS, "state", "control"])
def test_derivatives_match_finite_differences(name: str) -> None:
    dynamics = PendulumDynamics(9.0, 1.3, 0.8, 0.4, 0.2)
    inputs = {
        "state": state_of(0.7, 1.1),
        "control": control_of(0.5),
        **{parameter: getattr(dynamics, parameter).detach() for parameter in PARAMETERS},
    }

    def step(value: torch.Tensor) -> torch.Tensor:
        given_inputs = {**inputs, name: value}
        parameters = {parameter: given_inputs[parameter] for parameter in PARAMETERS}
        return torch.func.functional_call(
            dynamics, parameters, (given_inputs["state"], given_inputs["control"])
        )

    assert torch.autograd.gradcheck(step, inputs[name].clone().requires_grad_())


def test_the_cost_has_its_derivatives_and_weights() -> None:
    state, control = state_of(2.0, -3.0).requires_grad_(), control_of(1.5).requires_grad_()
    cost = PendulumCost(2.0, 0.3, 0.04)
    assert cost(state, control).item() == pytest.approx(2 * 2**2 + 0.3 * 9 + 0.04 * 1.5**2)
    assert torch.autograd.gradcheck(cost, (state, control))


@pytest.mark.parametrize("shape", [(), (4,), (4, 7)])
def test_any_leading_dimensions_are_rows_of_their_own(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    controls = torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    dynamics, cost = PendulumDynamics(), PendulumCost()
    following, costs = dynamics(states, controls), cost(states, controls)
    assert following.shape == states.shape
    assert costs.shape == shape
    for row in np.ndindex(shape):
        torch.testing.assert_close(following[row], dynamics(states[row], controls[row]))
        torch.testing.assert_close(costs[row], cost(states[row], controls[row]))


def test_a_batch_of_float32_states_stays_float32() -> None:
    state, control = state_of(1.0, 1.0).float()[None], control_of(1.0).float()[None]
    assert PendulumDynamics()(state, control).dtype == torch.float32
    assert PendulumCost()(state, control).dtype == torch.float32


@pytest.mark.parametrize("name", ["mass", "length", "dt", "max_speed"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_quantities_that_must_be_positive_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        PendulumDynamics(**{name: value})


@pytest.mark.parametrize("name", [*PARAMETERS, "dt"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_quantities_that_must_be_finite_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        PendulumDynamics(**{name: value})


@pytest.mark.parametrize("name", ["angle_weight", "speed_weight", "torque_weight"])
def test_weights_of_the_cost_must_be_finite(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        PendulumCost(**{name: math.nan})


def test_a_single_state_keeps_its_dtype() -> None:
    state, control = state_of(0.3, 1.0).float(), control_of(0.5).float()
    assert PendulumDynamics()(state, control).dtype == torch.float32
    assert PendulumCost()(state, control).dtype == torch.float32
