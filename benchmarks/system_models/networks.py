"""Networks that were fitted to one step of a system: of the planar quadrotor, and of a cart-pole.

A network is a `NeuralDynamics` with two hidden layers, fitted by Adam to 2,048 random transitions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.system_models.system import GoalCost, System, within
from benchmarks.system_models.vehicles import PLANAR, PlanarQuadrotor
from mpc_gym.models import CartPoleDynamics, NeuralDynamics

SAMPLES, STEPS, RATE = 2048, 1000, 3e-3
BEYOND = 1.5  # the transitions begin within this many times the widths of the start states


class AngledCartPole(nn.Module):
    """The paper's cart-pole, its angle as a number: position, velocity, angle, angular velocity."""

    n_state, n_ctrl = 4, 1

    def __init__(self) -> None:
        super().__init__()
        self.inner = CartPoleDynamics()

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        x, v, angle, spin = state.unbind(-1)
        reached = self.inner(
            torch.stack((x, v, torch.cos(angle), torch.sin(angle), spin), -1), control
        )
        x, v, _, _, faster = reached.unbind(-1)
        return torch.stack((x, v, angle + self.inner.dt * spin, faster), -1)


@dataclass(frozen=True)
class Taught:
    """A system that networks are fitted to."""

    name: str
    teacher: Callable[[], nn.Module]
    system: System


CARTPOLE = Taught(
    "cart-pole",
    AngledCartPole,
    System(
        "cart-pole with an angle",
        20,
        (10.0,),
        AngledCartPole,
        lambda: GoalCost((0.0,) * 4, (0.1, 0.1, 1.0, 0.1), (0.001,)),
        within(0.5, 0.5, 1.0, 1.0),
    ),
)
NEAR_HOVER = within(2.0, 2.0, 1.0, 1.0, 1.0, 1.0)
QUADROTOR = Taught("planar quadrotor", PlanarQuadrotor, replace(PLANAR, draw=NEAR_HOVER))


def network(taught: Taught, width: int, activation: Callable[[], nn.Module] = nn.Tanh) -> System:
    """A system whose dynamics are a network of two hidden layers."""
    system, kind = taught.system, "" if activation is nn.Tanh else f" {activation.__name__}"
    return System(
        f"network 2 x {width}{kind} ({system.n_state}, {system.n_ctrl})",
        20,
        system.limit,
        lambda: fitted(taught, width, activation),
        system.cost,
        system.draw,
    )


@cache
def fitted(taught: Taught, width: int, activation: Callable[[], nn.Module]) -> NeuralDynamics:
    """The network, the same in every process on one machine."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        system, teacher = taught.system, taught.teacher()
        model = NeuralDynamics(system.n_state, system.n_ctrl, (width, width), activation).double()
        centre = system.start_states(SAMPLES, 1).mean(0)
        state = centre + BEYOND * (system.start_states(SAMPLES, 1) - centre)
        random = np.random.default_rng(2)
        limit = np.array(system.limit)
        control = torch.from_numpy(random.uniform(-limit, limit, (SAMPLES, system.n_ctrl)))
        wanted = teacher(state, control).detach()
        scale = (wanted - state).std(0)
        optimiser = torch.optim.Adam(model.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for _ in range(STEPS):
            rows = torch.randint(SAMPLES, (256,))
            optimiser.zero_grad()
            error = (model(state[rows], control[rows]) - wanted[rows]) / scale
            error.square().mean().backward()
            optimiser.step()
            schedule.step()
    return model


NETWORKS = (
    *(network(QUADROTOR, width) for width in (16, 64, 128)),
    *(network(CARTPOLE, width) for width in (64, 128)),
    network(QUADROTOR, 64, nn.ReLU),
    network(CARTPOLE, 64, nn.ReLU),
)
