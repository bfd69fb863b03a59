"""A constraint on the state: a cart stays on its track while its mass is learned.

An expert swings the pole up with the true mass and never leaves the track. The learner plans with
another mass on the same track, and learns the true one through its plans, whose positions rest at
the end of the track: the derivative is exact there too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpc_gym import MPC, CartPoleDynamics, QuadraticCost


@dataclass
class Options:
    track: float = 0.6  # half its length [m]
    horizon: int = 25
    plans: int = 16
    steps: int = 150
    learning_rate: float = 0.02
    seed: int = 0


class OnTrack(nn.Module):
    """The position stays within +-limit: two rows, neither of which may be positive."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        position = state[..., 0]
        return torch.stack((position - self.limit, -position - self.limit), -1)


def controller(cart_mass: float, options: Options) -> MPC:
    goal = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])  # upright, at rest
    weights = torch.tensor([0.1, 0.1, 1.0, 1.0, 0.1])
    return MPC(
        CartPoleDynamics(cart_mass=cart_mass),
        QuadraticCost.from_goal(goal, weights, control_penalty=0.001),
        options.horizon,
        control_low=-30.0,
        control_high=30.0,
        constraints=OnTrack(options.track),
    )


def start_states(options: Options) -> Tensor:
    generator = torch.Generator().manual_seed(options.seed)
    spread = torch.tensor([0.5, 0.5, torch.pi, 1.0]).double()
    drawn = 2 * torch.rand(options.plans, 4, generator=generator, dtype=torch.float64) - 1
    position, velocity, angle, speed = (drawn * spread).unbind(-1)
    return torch.stack((position, velocity, angle.cos(), angle.sin(), speed), -1)


def main(options: Options) -> tuple[float, float]:
    """The mass that was learned [kg], and how far the last plans leave the track [m]."""
    states = start_states(options)
    with torch.no_grad():
        shown = controller(1.0, options)(states)
    print(f"the expert leaves its track by {shown.violation.max():.1e} m")
    at_the_end = (shown.states[..., 0].abs() > options.track - 1e-6).any(1).double().mean()
    print(f"{100 * at_the_end:.0f} % of its plans touch the end of the track")

    learner = controller(2.0, options)
    mass = learner.dynamics.cart_mass
    optimizer = torch.optim.Adam([mass], lr=options.learning_rate)
    for step in range(options.steps):
        plan = learner(states)
        both = plan.converged & shown.converged
        loss = (plan.controls - shown.controls)[both].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step:3d}  loss {loss.item():9.2e}  mass {mass.item():.4f} kg")
    violation = plan.violation[plan.converged].max().item()
    print(f"mass {mass.item():.4f} kg (true: 1), off the track by {violation:.1e} m")
    return mass.item(), violation


if __name__ == "__main__":
    main(Options())
