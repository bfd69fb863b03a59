# %% [markdown]
# # Gradients through a plan
#
# A plan is the solution of an optimisation problem, and a function of all that the problem is
# made of: physics, cost, limits, start state. Its derivative is what lets a planner learn. Here
# are four ways to it: exact, smoothed, unrolled, and as the paper of Amos et al. (2018)
# approximates it.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from mpc_gym import MPC, PendulumDynamics, QuadraticCost

# %% [markdown]
# ## The problem
#
# The paper's pendulum from eight start states all over those that the paper draws; the loss is
# the mean of all squared torques. How does it change with gravity, mass and length?


# %%
def make_controller(**options):
    dynamics = PendulumDynamics(max_speed=None)
    cost = QuadraticCost.from_goal(
        goal_state=torch.tensor([1.0, 0.0, 0.0]),
        goal_weights=torch.tensor([1.0, 1.0, 0.1]),
        control_penalty=0.001,
    )
    limits = {"control_low": -2.0, "control_high": 2.0}
    return MPC(dynamics, cost, 20, **limits, tolerance=1e-10, **options)


angles = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64)
speeds = torch.linspace(1.0, -1.0, 8, dtype=torch.float64)[[3, 0, 6, 2, 7, 1, 5, 4]]
starts = torch.stack((angles.cos(), angles.sin(), speeds), -1)
NAMES = ("gravity", "mass", "length")


def derivative(mpc):
    mpc(starts).controls.square().mean().backward()
    return np.array([getattr(mpc.dynamics, name).grad.item() for name in NAMES])


def differences(mpc, step=1e-5):
    """Central differences of plans that are solved again: what a derivative has to agree with."""
    found = []
    for name in NAMES:
        parameter, losses = getattr(mpc.dynamics, name), []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
                losses.append(mpc(starts).controls.square().mean().item())
                parameter -= sign * step
        found.append((losses[0] - losses[1]) / (2 * step))
    return np.array(found)


truth = differences(make_controller())


def error(gradient):
    return np.abs(gradient / truth - 1)


# %% [markdown]
# ## Exact, and the paper's
#
# The optimum satisfies an equation (no derivative of the cost along any move that the limits
# allow), and the derivative of its solution follows from that equation alone, not from how the
# solver came there. The paper leaves the second derivatives of the dynamics out of it. Then plan
# and derivative belong to different problems.

# %%
exact = derivative(make_controller())
paper = derivative(make_controller(hessian="gauss-newton"))
for name, row in {"exact": error(exact), "as in the paper": error(paper)}.items():
    print(f"{name:16}", "  ".join(f"{n}: {e:.1e}" for n, e in zip(NAMES, row, strict=True)))

# %% [markdown]
# ## Unrolled
#
# Autograd can go back through the iterations instead. The result is the same where they have
# converged, and it costs as much as all of them.

# %%
times = {}
for name, options in {
    "exact": {"backend": "torch"},
    "unrolled": {"backend": "torch", "differentiate": "unrolled"},
}.items():
    loss = make_controller(**options)(starts).controls.square().mean()
    begin = time.process_time()
    loss.backward()
    times[name] = time.process_time() - begin
unrolled = derivative(make_controller(backend="torch", differentiate="unrolled"))
print("error of the unrolled derivative:", error(unrolled).max())
print(f"the unrolled one takes {times['unrolled'] / times['exact']:.1f} times as long")

# %% [markdown]
# ## Smoothed
#
# From most states the first torque rests at its limit, and there its derivative is exactly zero:
# the plan would not change if the pendulum were a little heavier. That is true, and no help to a
# learner. `smoothing=mu` puts a logarithmic barrier before each limit. The plan changes a little,
# its derivative lives, and it is the exact one of the smoothed problem.

# %%
circle = torch.linspace(-np.pi, np.pi, 181, dtype=torch.float64)[:-1]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
slopes = {}
for mu in (0.0, 0.1, 1.0):
    angle = circle.clone().requires_grad_()
    x_init = torch.stack((angle.cos(), angle.sin(), 0 * angle), -1)
    torque = make_controller(smoothing=mu)(x_init).controls[:, 0, 0]
    (slope,) = torch.autograd.grad(torque.sum(), angle)
    slopes[mu] = slope.abs()
    left.plot(np.rad2deg(circle.numpy()), torque.detach().numpy(), label=f"mu = {mu:g}")
    right.semilogy(np.rad2deg(circle.numpy()), slope.abs().numpy() + 1e-6)
left.set(xlabel="start angle [deg]", ylabel="first torque [N m]")
right.set(xlabel="start angle [deg]", ylabel="size of its derivative")
left.legend()
plt.show()
dead = {mu: (each == 0).double().mean().item() for mu, each in slopes.items()}
print(
    "share of start angles without a derivative:", {mu: round(each, 2) for mu, each in dead.items()}
)

# %% [markdown]
# ## Exercises
#
# 1. Derive the equation that an unconstrained plan satisfies for a linear system and a quadratic
#    cost, and from it the derivative by the system's matrix. Compare with autograd through `MPC`.
# 2. Why is the paper's derivative exact for linear dynamics? Show it with a model of your own.
# 3. Learn the mass from the torques of plans that begin hanging, with `smoothing=0` and with a
#    `mu` that falls from 10 to 1e-4. Plot both losses over the steps.
# 4. Let the tolerance be 1e-2 and compare the unrolled derivative with the exact one. Which is
#    wrong, and in what sense?
