import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from mpc_gym.models import AcrobotCost, AcrobotDynamics

PARAMETERS = [name for name, _ in AcrobotDynamics().named_parameters()]
RODS = {
    "upper_mass": 0.7,
    "lower_mass": 1.3,
    "upper_length": 1.1,
    "upper_centre": 0.4,
    "lower_centre": 0.8,
    "upper_inertia": 0.09,
    "lower_inertia": 0.3,
}
angles = st.floats(-math.pi, math.pi)
speeds = st.floats(-6.0, 6.0)
torques = st.floats(-10.0, 10.0)


def state_of(theta1: float, theta2: float, speed1: float, speed2: float) -> torch.Tensor:
    entries = [math.cos(theta1), math.sin(theta1), math.cos(theta2), math.sin(theta2)]
    return torch.tensor([*entries, speed1, speed2], dtype=torch.float64)


def control_of(torque: float) -> torch.Tensor:
    return torch.tensor([torque], dtype=torch.float64)


def energies(
    y: torch.Tensor, rate: torch.Tensor, dynamics: AcrobotDynamics
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kinetic and potential, from where the centres of mass are and how fast they move."""
    p = {name: value.detach() for name, value in dynamics.named_parameters()}

    def centres(y: torch.Tensor) -> torch.Tensor:
        upper, lower = y[0], y[0] + y[1]
        along_upper = torch.stack((torch.sin(upper), -torch.cos(upper)))
        along_lower = torch.stack((torch.sin(lower), -torch.cos(lower)))
        elbow = p["upper_length"] * along_upper
        return torch.stack(
            (p["upper_centre"] * along_upper, elbow + p["lower_centre"] * along_lower)
        )

    mass = torch.stack((p["upper_mass"], p["lower_mass"]))
    inertia = torch.stack((p["upper_inertia"], p["lower_inertia"]))
    places, velocities = torch.func.jvp(centres, (y,), (rate,))
    spins = torch.stack((rate[0], rate[0] + rate[1]))
    kinetic = 0.5 * (mass * velocities.square().sum(-1) + inertia * spins.square()).sum()
    return kinetic, p["gravity"] * (mass * places[:, 1]).sum()


def accelerations(
    y: torch.Tensor, rate: torch.Tensor, torque: float, dynamics: AcrobotDynamics
) -> torch.Tensor:
    """Lagrange's equations, from the energies: a linear system."""

    def lagrangian(y: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        kinetic, potential = energies(y, rate, dynamics)
        return kinetic - potential

    momentum = torch.func.grad(lagrangian, 1)
    mass = torch.func.jacrev(momentum, 1)(y, rate)
    friction = torch.stack((dynamics.shoulder_damping, dynamics.elbow_damping)).detach() * rate
    load = (
        torch.func.grad(lagrangian)(y, rate)
        - torch.func.jacrev(momentum)(y, rate) @ rate
        + torch.tensor([0.0, torque])
        - friction
    )
    return torch.linalg.solve(mass, load)


def exact(dynamics: AcrobotDynamics, start: list[float], torque: float) -> torch.Tensor:
    """The state one time step later, by another method."""

    def derivative(_: float, y: np.ndarray) -> np.ndarray:
        both = torch.from_numpy(y)
        return np.concatenate((y[2:], accelerations(both[:2], both[2:], torque, dynamics).numpy()))

    span = (0.0, dynamics.dt)
    solved = solve_ivp(derivative, span, start, "DOP853", rtol=1e-10, atol=1e-10)
    return state_of(*solved.y[:, -1])


def test_every_step_is_that_of_gymnasiums_acrobot() -> None:
    theirs = gym.make("Acrobot-v1").unwrapped
    dynamics = AcrobotDynamics(dt=0.2, max_shoulder_speed=4 * math.pi, max_elbow_speed=9 * math.pi)
    theirs.reset(seed=0)
    random = np.random.default_rng(0)
    fast = 0
    for _ in range(300):
        angles, shares = random.uniform(-np.pi, np.pi, 2), random.uniform(-1, 1, 2)
        theirs.state = np.array([*angles, *(shares * np.pi * (4, 9))])
        action = int(random.integers(3))
        state = state_of(*theirs.state)
        theirs.step(action)
        fast += abs(theirs.state[2]) == 4 * np.pi or abs(theirs.state[3]) == 9 * np.pi
        following = dynamics(state, control_of(action - 1.0)).detach()
        torch.testing.assert_close(following, state_of(*theirs.state), rtol=1e-9, atol=1e-9)
    assert 5 < fast < 150  # the clip of a speed is among the steps, and not all there is


@settings(max_examples=8)
@given(angles, angles, speeds, speeds, torques)
def test_a_step_follows_lagranges_equations(theta1, theta2, speed1, speed2, torque) -> None:
    dynamics = AcrobotDynamics(**RODS, shoulder_damping=0.3, elbow_damping=0.2, substeps=16)
    start = [theta1, theta2, speed1, speed2]
    following = dynamics(state_of(*start), control_of(torque)).detach()
    torch.testing.assert_close(following, exact(dynamics, start, torque), rtol=1e-6, atol=1e-6)


def test_substeps_are_steps_of_the_fourth_order() -> None:
    start, torque = [2.0, -1.0, 1.5, -2.0], 3.0
    error = {}
    for substeps in (2, 4):
        dynamics = AcrobotDynamics(**RODS, dt=0.2, substeps=substeps)
        following = dynamics(state_of(*start), control_of(torque)).detach()
        error[substeps] = (following - exact(dynamics, start, torque)).norm().item()
    assert error[2] / error[4] == pytest.approx(16.0, rel=0.3)


def test_energy_is_kept_without_torque_and_friction() -> None:
    dynamics = AcrobotDynamics(**RODS, dt=0.01)
    start = state = state_of(2.5, -1.0, 1.0, 0.5)

    def energy(state: torch.Tensor) -> float:
        cos1, sin1, cos2, sin2, *speeds = state.unbind(-1)
        y = torch.stack((torch.atan2(sin1, cos1), torch.atan2(sin2, cos2)))
        return sum(part.item() for part in energies(y, torch.stack(speeds), dynamics))

    with torch.no_grad():
        for _ in range(200):
            state = dynamics(state, control_of(0.0))
    assert energy(state) == pytest.approx(energy(start), abs=1e-3)
    assert (state - start).norm() > 0.3


@given(angles, angles, speeds, speeds, torques)
def test_mirroring_state_and_torque_mirrors_the_motion(
    theta1, theta2, speed1, speed2, torque
) -> None:
    dynamics = AcrobotDynamics(max_elbow_speed=3.0)
    mirror = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    state = state_of(theta1, theta2, speed1, speed2)
    torch.testing.assert_close(
        dynamics(mirror * state, -control_of(torque)), mirror * dynamics(state, control_of(torque))
    )


@pytest.mark.parametrize("name", [*PARAMETERS, "state", "control"])
def test_derivatives_match_finite_differences(name: str) -> None:
    dynamics = AcrobotDynamics(**RODS, shoulder_damping=0.3, elbow_damping=0.2)
    inputs = {
        "state": state_of(2.0, -1.0, 1.5, -2.0),
        "control": control_of(3.0),
        **{parameter: getattr(dynamics, parameter).detach() for parameter in PARAMETERS},
    }

    def step(value: torch.Tensor) -> torch.Tensor:
        given_inputs = {**inputs, name: value}
        parameters = {parameter: given_inputs[parameter] for parameter in PARAMETERS}
        return torch.func.functional_call(
            dynamics, parameters, (given_inputs["state"], given_inputs["control"])
        )

    assert torch.autograd.gradcheck(step, inputs[name].clone().requires_grad_())


@pytest.mark.parametrize("shape", [(), (4,), (4, 7)])
def test_any_leading_dimensions_are_rows_of_their_own(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
    controls = torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    dynamics = AcrobotDynamics()
    following = dynamics(states, controls)
    assert following.shape == states.shape
    for row in np.ndindex(shape):
        torch.testing.assert_close(following[row], dynamics(states[row], controls[row]))


@given(angles, angles, speeds, speeds, torques)
def test_the_cost_is_zero_upright_alone_and_grows_with_what_the_tip_lacks(
    theta1, theta2, speed1, speed2, torque
) -> None:
    cost = AcrobotCost()
    upright = cost(state_of(math.pi, 0.0, 0.0, 0.0), control_of(0.0)).item()
    assert upright == pytest.approx(0.0, abs=1e-15)
    found = cost(state_of(theta1, theta2, speed1, speed2), control_of(torque)).item()
    height = -math.cos(theta1) - math.cos(theta1 + theta2)
    expected = 2 - height + 0.01 * (speed1**2 + speed2**2) + 0.001 * torque**2
    assert found == pytest.approx(expected, abs=1e-12)
