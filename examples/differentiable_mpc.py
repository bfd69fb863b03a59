"""A controller in plain PyTorch that learns its physics by gradient from an expert's plans.

It is the first experiment of Amos et al., "Differentiable MPC for End-to-end Planning and Control"
(2018): nothing but plans is seen, and the gradient goes through the optimal control problem.
"""

from dataclasses import dataclass

import torch

from mpc_gym import MPC, PendulumDynamics, QuadraticCost


@dataclass
class Options:
    steps: int = 300
    batch: int = 32
    learning_rate: float = 0.03
    horizon: int = 20
    seed: int = 0


def make_mpc(dynamics: PendulumDynamics, horizon: int) -> MPC:
    cost = QuadraticCost.from_goal(
        goal_state=torch.tensor([1.0, 0.0, 0.0]),  # upright, at rest
        goal_weights=torch.tensor([1.0, 1.0, 0.1]),
        control_penalty=0.001,
    )
    cost.requires_grad_(False)
    return MPC(dynamics, cost, horizon, control_low=-2.0, control_high=2.0)


def draw_states(batch: int) -> torch.Tensor:
    angle = torch.pi * (torch.rand(batch) - 0.5)
    speed = 2 * torch.rand(batch) - 1
    return torch.stack([angle.cos(), angle.sin(), speed], dim=-1)  # [batch, n_state]


def main(options: Options) -> PendulumDynamics:
    torch.manual_seed(options.seed)
    expert = make_mpc(PendulumDynamics(max_speed=None), options.horizon)
    learned = PendulumDynamics(gravity=15.0, mass=3.0, length=0.5, max_speed=None)
    physics = [learned.gravity, learned.mass, learned.length]
    learner = make_mpc(learned, options.horizon)
    optimizer = torch.optim.RMSprop(physics, lr=options.learning_rate, alpha=0.5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, options.steps)
    for step in range(options.steps + 1):
        states = draw_states(options.batch)
        with torch.no_grad():
            target = expert(states).controls  # [batch, horizon, n_ctrl]
        loss = (learner(states).controls - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if step % max(1, options.steps // 10) == 0:
            gravity, mass, length = (parameter.item() for parameter in physics)
            # only these two numbers act on the motion
            print(
                f"step {step:4d}  loss {loss.item():.1e}  gravity / length {gravity / length:.3f}"
                f"  1 / (mass length^2) {1 / (mass * length**2):.3f}"
            )
        optimizer.step()
        schedule.step()
    return learned


if __name__ == "__main__":
    main(Options())
