"""What smoothing does to a gradient: the first control of a plan over the pendulum's start angle.

The plain plan holds the torque at its limit from most angles, and its derivative is zero there: a
learner learns nothing from it. A smoothed plan comes off the limit a little, everywhere, and has a
derivative everywhere; the larger mu, the more, and the further from the plain plan.
"""

from dataclasses import dataclass

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from mpc_gym import MPC, PendulumDynamics, QuadraticCost


@dataclass
class Options:
    smoothings: tuple[float, ...] = (0.0, 1e-3, 1e-2, 1e-1, 1.0)  # mu, in units of the cost
    horizon: int = 20
    limit: float = 2.0  # of the torque [N m]
    widest: float = 1.2  # start angle, 0 is upright [rad]
    angles: int = 481
    picture: str = "smoothed_gradient.png"


def controller(options: Options) -> MPC:
    goal, weights = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.1])
    cost = QuadraticCost.from_goal(goal, weights, control_penalty=0.001)
    dynamics = PendulumDynamics(max_speed=None)
    return MPC(dynamics, cost, options.horizon, -options.limit, options.limit)


def first_torques(mpc: MPC, angles: Tensor) -> tuple[Tensor, Tensor]:
    """The first torque of the plan from each angle, at rest, and its derivative by the angle."""
    angles = angles.clone().requires_grad_()
    states = torch.stack((angles.cos(), angles.sin(), torch.zeros_like(angles)), -1)
    torques = mpc(states).controls[:, 0, 0]
    (slopes,) = torch.autograd.grad(torques.sum(), angles)
    return torques.detach(), slopes


def draw(options: Options, angles: Tensor, curves: dict[float, tuple[Tensor, Tensor]]) -> None:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    viridis = colormaps["viridis"]
    labels = ("first torque [N m]", "its derivative by the angle [N m / rad]")
    for panel, label in zip(panels, labels, strict=True):
        panel.set(xlabel="start angle [rad]", ylabel=label)
        panel.grid(alpha=0.3)
    for i, (mu, pair) in enumerate(curves.items()):
        colour = viridis(i / len(curves)) if mu else "black"
        for panel, values in zip(panels, pair, strict=True):
            panel.plot(angles, values, color=colour, label=f"mu = {mu:g}", lw=1.5)
    panels[1].set_yscale("symlog", linthresh=1e-3)
    panels[0].legend()
    figure.savefig(options.picture, dpi=120)
    print(f"wrote {options.picture}")


def main(options: Options) -> dict[float, tuple[Tensor, Tensor]]:
    """First torques and their derivatives [angles], by mu."""
    mpc = controller(options)
    angles = torch.linspace(-options.widest, options.widest, options.angles, dtype=torch.float64)
    curves = {}
    for mu in options.smoothings:
        mpc.smoothing = mu  # compiles nothing
        curves[mu] = torques, slopes = first_torques(mpc, angles)
        without = 100 * (slopes == 0).double().mean()
        print(
            f"mu {mu:5g}  largest torque {torques.max():.6f} N m  "
            f"no derivative at {without:2.0f} % of the angles"
        )
    draw(options, angles, curves)
    return curves


if __name__ == "__main__":
    main(Options())
