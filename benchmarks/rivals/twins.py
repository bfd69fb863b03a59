"""The models of the systems once more, in CasADi, from the same parameters."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import casadi
import numpy as np
from torch import nn

from benchmarks.rivals.casadi import _cartpole, _pendulum
from benchmarks.system_models import mechanisms, networks, vehicles
from benchmarks.system_models.system import GoalCost, runge_kutta
from benchmarks.system_models.vehicles import GRAVITY
from mpc_gym.models import (
    CartPoleDynamics,
    LinearDynamics,
    NeuralDynamics,
    PendulumDynamics,
    QuadraticCost,
)

ca: Any = casadi  # whose types are wrong where numbers and arrays take part
Expression = Any
Twin = Callable[[Any, Expression, Expression], Expression]  # of a module, a state, a control


def twin(module: nn.Module, state: Expression, control: Expression) -> Expression:
    """What a module maps a state and a control to."""
    return TWINS[type(module)](module, state, control)


def _values(module: nn.Module) -> Any:
    """The parameters of a module: numbers, and arrays."""
    found = {name: value.detach().numpy() for name, value in module.named_parameters()}
    return type("Values", (), {n: v if v.ndim else float(v) for n, v in found.items()})


def _planar(module: vehicles.PlanarQuadrotor, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    lift = GRAVITY + (control[0] + control[1]) / p.mass
    turn = p.arm * (control[1] - control[0]) / p.inertia

    def rate(x: Expression) -> Expression:
        across = -lift * ca.sin(x[2]) - p.drag / p.mass * x[3]
        up = lift * ca.cos(x[2]) - GRAVITY - p.drag / p.mass * x[4]
        return ca.vertcat(x[3], x[4], x[5], across, up, turn)

    return runge_kutta(rate, state, module.step)


def _steered(
    module: vehicles.SteeredQuadrotor, state: Expression, control: Expression
) -> Expression:
    return _planar(module, state, ca.vertcat(-control, control))


def _bicycle(module: vehicles.Bicycle, state: Expression, control: Expression) -> Expression:
    _, _, heading, speed = ca.vertsplit(state)
    turn = speed * ca.tan(control[1]) / _values(module).wheelbase
    rate = ca.vertcat(speed * ca.cos(heading), speed * ca.sin(heading), turn, control[0])
    return state + module.step * rate


def _quadrotor(module: vehicles.Quadrotor, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    front, left, behind, right = ca.vertsplit(control)
    lift = ca.vertcat(0, 0, GRAVITY + ca.sum1(control) / p.mass)
    torque = ca.vertcat(
        p.arm * (left - right), p.arm * (behind - front), p.yaw * (front - left + behind - right)
    )

    def rate(x: Expression) -> Expression:
        w, v, spin = x[6], x[7:10], x[10:]
        lifted = lift + 2 * ca.cross(v, ca.cross(v, lift) + w * lift)
        attitude = ca.vertcat(-ca.dot(v, spin), w * spin + ca.cross(v, spin)) / 2
        turn = (torque - ca.cross(spin, p.inertia * spin)) / p.inertia
        return ca.vertcat(x[3:6], lifted - ca.vertcat(0, 0, GRAVITY), attitude, turn)

    reached = runge_kutta(rate, state, module.step)
    attitude = reached[6:10]
    return ca.vertcat(reached[:6], attitude / ca.sqrt(ca.sumsqr(attitude)), reached[10:])


def _arm(module: mechanisms.Arm, state: Expression, control: Expression) -> Expression:
    angles, speeds = ca.vertsplit(state, mechanisms.JOINTS)
    speeds += module.step * (control - _values(module).damping * speeds)
    return ca.vertcat(angles + module.step * speeds, speeds)


def _chain(module: mechanisms.Chain, state: Expression, control: Expression) -> Expression:
    p, moved = _values(module), 3 * (module.masses + 1)

    def rate(x: Expression) -> Expression:
        places = [ca.SX.zeros(3), *ca.vertsplit(x[:moved], 3)]
        forces = []
        for before, after in pairwise(places):
            length = ca.sqrt(ca.sumsqr(after - before))
            forces.append(p.stiffness * (1 - p.rest / length) * (after - before))
        pulls = [
            (above - below) / p.mass - ca.vertcat(0, 0, GRAVITY)
            for below, above in pairwise(forces)
        ]
        return ca.vertcat(x[moved:], control, *pulls)

    return runge_kutta(rate, state, module.step)


def _acrobot(module: mechanisms.Acrobot, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    half, own = p.length / 2, p.mass * p.length**2 / 4 + p.inertia

    def rate(x: Expression) -> Expression:
        first, second, fast, faster = ca.vertsplit(x)
        coupling = p.mass * p.length * half * ca.cos(second)
        swing = p.mass * p.length * half * ca.sin(second)
        a, b = 2 * own + p.mass * p.length**2 + 2 * coupling, own + coupling
        of_second = p.mass * GRAVITY * half * ca.sin(first + second)
        of_first = p.mass * GRAVITY * (half + p.length) * ca.sin(first) + of_second
        push = swing * faster * (2 * fast + faster) + of_first
        bend = control - swing * fast**2 + of_second
        both = ca.vertcat(own * push - b * bend, a * bend - b * push) / (a * own - b**2)
        return ca.vertcat(fast, faster, both)

    return runge_kutta(rate, state, module.step)


def _contact(module: mechanisms.Contact, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    push = p.stiffness * ca.fmax(-state[1], 0)
    rub = -p.friction * push * ca.tanh(10 * state[2])
    force = control + ca.vertcat(rub, push - p.mass * GRAVITY)
    speed = state[2:] + module.step * force / p.mass
    return ca.vertcat(state[:2] + module.step * speed, speed)


def _linear(module: LinearDynamics, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    return ca.mtimes(p.A, state) + ca.mtimes(p.B, control) + p.offset


def _network(module: NeuralDynamics, state: Expression, control: Expression) -> Expression:
    value = ca.vertcat(state, control)
    for layer in module.net:
        if isinstance(layer, nn.Linear):
            p = _values(layer)
            value = ca.mtimes(p.weight, value) + p.bias
        else:
            value = ca.tanh(value) if isinstance(layer, nn.Tanh) else ca.fmax(value, 0)
    return state + value


def _angled(module: networks.AngledCartPole, state: Expression, control: Expression) -> Expression:
    x, v, angle, spin = ca.vertsplit(state)
    inner = ca.vertcat(x, v, ca.cos(angle), ca.sin(angle), spin)
    x, v, _, _, faster = ca.vertsplit(_cartpole_twin(module.inner, inner, control))
    return ca.vertcat(x, v, angle + module.inner.dt * spin, faster)


def _pendulum_twin(module: PendulumDynamics, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    return _pendulum(state, control, ca.SX([p.gravity, p.mass, p.length]))


def _cartpole_twin(module: CartPoleDynamics, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    return _cartpole(state, control, ca.SX([p.gravity, p.cart_mass, p.pole_mass, p.pole_length]))


def _goal(module: GoalCost, state: Expression, control: Expression) -> Expression:
    p = _values(module)
    of_state = ca.sum1(p.weights * (state - p.goal) ** 2)
    return 0.5 * of_state + 0.5 * ca.sum1(p.penalties * control**2)


def _discs(module: vehicles.DiscsCost, state: Expression, control: Expression) -> Expression:
    p, cost = _values(module), _goal(module, state, control)
    for centre, radius in zip(p.centres, p.radii, strict=True):
        inside = radius**2 - ca.sumsqr(state[:2] - centre)
        cost += p.price * (ca.fmax(inside, 0) + ca.log1p(ca.exp(-ca.fabs(inside))))
    return cost


def _reach(module: mechanisms.ReachCost, state: Expression, control: Expression) -> Expression:
    p, hand = _values(module), ca.SX([0, 0, 0])
    hand[2] = p.links[-1]
    for joint in reversed(range(mechanisms.JOINTS)):
        c, s = ca.cos(state[joint]), ca.sin(state[joint])
        if joint % 2:
            turn = ca.vertcat(ca.horzcat(c, 0, s), ca.horzcat(0, 1, 0), ca.horzcat(-s, 0, c))
        else:
            turn = ca.vertcat(ca.horzcat(c, -s, 0), ca.horzcat(s, c, 0), ca.horzcat(0, 0, 1))
        hand = ca.mtimes(turn, hand) + np.array([0, 0, p.links[joint]])
    return _goal(module, state, control) + 0.5 * p.price * ca.sumsqr(hand - p.place)


def _quadratic(module: QuadraticCost, state: Expression, control: Expression) -> Expression:
    p, tau = _values(module), ca.vertcat(state, control)
    return 0.5 * ca.sum1(p.C * tau**2) + ca.sum1(p.c * tau)


TWINS: dict[type[nn.Module], Twin] = {
    vehicles.PlanarQuadrotor: _planar,
    vehicles.SteeredQuadrotor: _steered,
    vehicles.Bicycle: _bicycle,
    vehicles.Quadrotor: _quadrotor,
    vehicles.DiscsCost: _discs,
    mechanisms.Arm: _arm,
    mechanisms.ReachCost: _reach,
    mechanisms.Chain: _chain,
    mechanisms.Acrobot: _acrobot,
    mechanisms.Contact: _contact,
    networks.AngledCartPole: _angled,
    NeuralDynamics: _network,
    LinearDynamics: _linear,
    PendulumDynamics: _pendulum_twin,
    CartPoleDynamics: _cartpole_twin,
    QuadraticCost: _quadratic,
    GoalCost: _goal,
}
