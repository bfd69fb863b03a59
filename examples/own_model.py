"""Planning with a model of one's own: a car that parks, with two controls.

A model is any PyTorch module. It is compiled when it is first used, with exact derivatives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpc_gym import MPC
from mpc_gym.models import Dynamics


@dataclass
class Options:
    steps: int = 60
    horizon: int = 25
    wheelbase: float = 0.8


class Car(Dynamics):
    """State: x, y [m], cos and sin of the heading, speed [m/s]. Control: acceleration, steering."""

    n_state = 5
    n_ctrl = 2

    def __init__(self, wheelbase: float, dt: float = 0.1) -> None:
        super().__init__()
        self.wheelbase = nn.Parameter(torch.tensor(wheelbase, dtype=torch.float64))  # [m]
        self.dt = dt  # [s]

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


class Parking(nn.Module):
    """At the origin, heading along x, at rest; gently."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        x, y, cosine, _, speed = state.unbind(-1)
        effort = control.square().sum(-1)
        return x**2 + 4 * y**2 + 2 * (1 - cosine) + 0.1 * speed**2 + 0.02 * effort


def main(options: Options) -> Tensor:
    limit = torch.tensor([2.0, 0.6])  # [m/s^2], [rad]
    mpc = MPC(Car(options.wheelbase), Parking(), options.horizon, -limit, limit)
    state = torch.tensor([[-2.0, 1.0, 1.0, 0.0, 0.0], [2.0, -1.0, 1.0, 0.0, 0.0]])
    warm_start = None
    for step in range(options.steps):
        with torch.no_grad():
            plan = mpc(state, warm_start)
            state = mpc.dynamics(state, plan.controls[:, 0])
        warm_start = plan.shift()
        if step % 10 == 0:
            distances = ", ".join(f"{d:.2f} m" for d in state[:, :2].norm(dim=-1).tolist())
            print(f"step {step:2d}  distance of both cars from their place: {distances}")
    return state


if __name__ == "__main__":
    main(Options())
