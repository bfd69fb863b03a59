"""Links in a plane: what the simulators do not show, and what is refused."""

import pytest
import torch
from torch import Tensor

from mpc_gym.models import ChainDynamics


def chain(**changes: object) -> ChainDynamics:
    options = {
        "link_mass": [1.0, 0.5, 0.7],
        "link_centre": [0.4, 0.3, 0.2],
        "link_inertia": [0.05, 0.02, 0.01],
        "link_length": [0.9, 0.5],
        "cart_mass": 2.0,
        "damping": [0.0, 0.0, 0.0, 0.0],
        "gear": [1.0],
        "motors": [0],
        "dt": 0.01,
        **changes,
    }
    return ChainDynamics(**options)


def energy(model: ChainDynamics, state: Tensor) -> Tensor:
    """Kinetic and potential energy, from the speed of each link's centre of mass."""
    velocity, total = state[..., 7], 0.5 * model.cart_mass * state[..., 7] ** 2
    angle = speed = torch.zeros_like(velocity)
    hinge_speed = torch.stack((velocity, torch.zeros_like(velocity)), -1)
    height = torch.zeros_like(velocity)
    for i in range(3):
        angle = angle + torch.atan2(state[..., 2 + 2 * i], state[..., 1 + 2 * i])
        speed = speed + state[..., 8 + i]
        turning = speed[..., None] * torch.stack((torch.cos(angle), -torch.sin(angle)), -1)
        centre = hinge_speed + model.link_centre[i] * turning
        mass = model.link_mass[i]
        total = total + 0.5 * mass * centre.square().sum(-1)
        total = total + 0.5 * model.link_inertia[i] * speed**2
        total = total + model.gravity * mass * (height + model.link_centre[i] * torch.cos(angle))
        if i < 2:
            hinge_speed = hinge_speed + model.link_length[i] * turning
            height = height + model.link_length[i] * torch.cos(angle)
    return total


def states(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, 8, generator=generator, dtype=torch.float64)
    angles = values[:, 1:4]
    turned = torch.stack((torch.cos(angles), torch.sin(angles)), -1).flatten(1)
    return torch.cat((values[:, :1], turned, values[:, 4:]), 1)


def test_three_links_on_a_cart_keep_their_energy() -> None:
    model, state = chain(substeps=10), states(20)
    start = energy(model, state)
    for _ in range(50):
        state = model(state, torch.zeros(20, 1, dtype=torch.float64))
    torch.testing.assert_close(energy(model, state), start, rtol=1e-6, atol=1e-6)


def test_damping_takes_energy() -> None:
    model, state = chain(damping=[0.1, 0.1, 0.1, 0.1], substeps=10), states(20)
    after = model(state, torch.zeros(20, 1, dtype=torch.float64))
    assert (energy(model, after) < energy(model, state)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"link_inertia": [0.05, 0.02]}, "link_inertia must be 3 finite numbers"),
        ({"link_length": [0.9]}, "link_length must be 2 finite numbers"),
        ({"damping": [0.1]}, "damping must be 4 finite numbers"),
        ({"gear": [-1.0]}, "gear must be 1 finite numbers, none negative"),
        ({"gear": [0.0]}, "gear must be positive in every entry"),
        ({"link_mass": 1.0}, r"link_mass must be \[n\], one for each link"),
        ({"motors": [4]}, "motors must be at most 3"),
        ({"armature": -1.0}, "armature"),
        ({"cart_mass": 0.0}, "cart_mass"),
        ({"dt": 0.0}, "dt"),
    ],
)
def test_what_is_no_chain_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chain(**changes)
