"""A constraint on the state: a cart stays on its track while its mass is learned.

An expert swings the pole up with the true mass and never leaves the track. The learner plans with
another mass on the same track, and learns the true one through its plans, whose positions rest at
the end of the track: the derivative is exact there too.
"""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch

from mpc_gym import make_mpc


@dataclass
class Options:
    track: float = 0.6  # half its length [m]
    horizon: int = 25
    force: float = 30.0  # [N]
    plans: int = 16
    steps: int = 150
    learning_rate: float = 0.02
    seed: int = 0


def main(options: Options) -> tuple[float, float]:
    """The mass that was learned [kg], and how far the last plans leave the track [m]."""
    env = gym.make("DiffCartPole-v0", track=options.track)
    fractions = np.random.default_rng(options.seed).random((options.plans, 4))
    states = torch.from_numpy(env.unwrapped.start_states(fractions))
    limits = {"control_low": -options.force, "control_high": options.force}
    with torch.no_grad():
        shown = make_mpc(env, options.horizon, **limits)(states)
    print(f"the expert leaves its track by {shown.violation.max():.1e} m")
    at_the_end = (shown.states[..., 0].abs() > options.track - 1e-6).any(1).double().mean()
    print(f"{100 * at_the_end:.0f} % of its plans touch the end of the track")

    learner = make_mpc(env, options.horizon, learn={"cart_mass": 2.0}, **limits)
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
