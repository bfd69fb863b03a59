"""Constraints of a system of one's own: a car drives round an obstacle, planning at each step.

It keeps its distance from a disc, is slower than its limit, and stops at the goal. With several
initial guesses it may pass on either side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpc_gym import MPC
from mpc_gym.models import Cost, Dynamics


@dataclass
class Options:
    steps: int = 70
    horizon: int = 30
    starts: int = 4
    radius: float = 0.7  # of the disc, with the car's own size [m]
    fastest: float = 1.2  # [m/s]


class Car(Dynamics):
    """State: x, y [m], cos and sin of the heading, speed [m/s]. Control: acceleration, steering."""

    n_state, n_ctrl = 5, 2
    wheelbase, dt = 0.8, 0.1  # [m], [s]

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        x, y, cosine, sine, speed = state.unbind(-1)
        acceleration, steering = control.unbind(-1)
        turn = self.dt * speed * torch.tan(steering) / self.wheelbase  # [rad]
        following = (
            x + self.dt * speed * cosine,
            y + self.dt * speed * sine,
            cosine * torch.cos(turn) - sine * torch.sin(turn),
            sine * torch.cos(turn) + cosine * torch.sin(turn),
            speed + self.dt * acceleration,
        )
        return torch.stack(following, dim=-1)


class ToGoal(Cost):
    """At (2, 0), at rest; gently."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        x, y, _, _, speed = state.unbind(-1)
        effort = control.square().sum(-1)
        return (x - 2) ** 2 + y**2 + 0.1 * speed**2 + 0.05 * effort


class Road(nn.Module):
    """Outside the disc round the origin, and not too fast: two rows that must not be positive."""

    def __init__(self, radius: float, fastest: float) -> None:
        super().__init__()
        self.radius, self.fastest = radius, fastest

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        x, y, speed = state[..., 0], state[..., 1], state[..., 4]
        return torch.stack((self.radius**2 - x**2 - y**2, speed - self.fastest), -1)


def main(options: Options) -> tuple[Tensor, Tensor]:
    """Where two cars went [steps, 2, 5], and by how much each plan did not keep to the road."""
    limit = torch.tensor([2.0, 0.6])  # [m/s^2], [rad]
    mpc = MPC(
        Car(),
        ToGoal(),
        options.horizon,
        -limit,
        limit,
        constraints=Road(options.radius, options.fastest),
        starts=options.starts,
    )
    state = torch.tensor([[-2.0, 0.05, 1.0, 0.0, 0.0], [-2.0, -0.4, 1.0, 0.0, 0.5]])
    warm_start = None
    way, violations = [state], []
    for step in range(options.steps):
        with torch.no_grad():
            plan = mpc(state, warm_start)
            state = mpc.dynamics(state, plan.controls[:, 0])
        warm_start = plan.shift()
        way.append(state)
        violations.append(plan.violation)
        if step % 10 == 0:
            places = "  ".join(f"({x:5.2f}, {y:5.2f})" for x, y in state[:, :2].tolist())
            print(f"step {step:2d}  {places}  violation {plan.violation.max():.0e}")
    found = torch.stack(way)
    nearest = found[..., :2].norm(dim=-1).min(0).values
    print(f"nearest to the middle of the disc: {nearest.tolist()} m, allowed: {options.radius} m")
    return found, torch.stack(violations)


if __name__ == "__main__":
    main(Options())
