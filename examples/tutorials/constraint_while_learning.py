# %% [markdown]
# # A constraint that holds while learning
#
# A cart-pole on a track of 2 m. Leaving it ends the episode and costs 1,000. A network has to
# leave it to find out. A plan can be told.

# %%
import math

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.policies import MPCPolicy

TRACK = 1.0  # half its length [m]
STEPS = 6_400  # of PPO

# %% [markdown]
# ## Plans that know the track
#
# An environment with a track hands it to its controller as a constraint: a module whose rows must
# not be positive. Compare the plans for swinging up with the track and without.

# %%
start = torch.tensor([[0.4, 0.0, -1.0, 0.0, 0.0]])  # x, speed, cos, sin, spin: hanging
limits = {"control_low": -20.0, "control_high": 20.0}
free = make_mpc("DiffCartPole-v0", horizon=40, **limits)
bound = make_mpc(gym.make("DiffCartPole-v0", track=TRACK), horizon=40, **limits)
with torch.no_grad():
    plans = {"no track": free(start), "track": bound(start)}
plt.figure(figsize=(6, 3))
for name, plan in plans.items():
    plt.plot(0.05 * np.arange(40), plan.states[0, :, 0], label=name)
    print(
        f"{name:9} farthest {plan.states[0, :, 0].abs().max():.4f} m, cost {plan.cost.item():.1f}"
    )
plt.axhline(TRACK, color="grey", linestyle="--")
plt.axhline(-TRACK, color="grey", linestyle="--")
plt.xlabel("time [s]")
plt.ylabel("position [m]")
plt.legend()
plt.show()
print(f"violation of the plan with the track: {plans['track'].violation.item():.1e} m")

# %% [markdown]
# ## While PPO explores
#
# PPO adds noise to the first control of a plan, and a plan that rests at the end of the track
# would leave it by that noise half of the time. So the policy plans with a track that is shorter
# by 5 cm. That is no guarantee, since noise has no limit; it is counted here by what the
# environment says.


# %%
class Left(BaseCallback):
    """Counts the episodes that left the track."""

    def __init__(self):
        super().__init__()
        self.at = []

    def _on_step(self):
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done and not info["TimeLimit.truncated"]:
                self.at.append(self.num_timesteps)
        return True


def explore(policy, **kwargs):
    envs = make_sb3_vec_env("DiffCartPole-v0", 16, seed=0, track=TRACK)
    noise = {"log_std_init": math.log(5.0)}  # [N]
    model = PPO(policy, envs, n_steps=200, batch_size=800, policy_kwargs=noise | kwargs, seed=0)
    if policy is MPCPolicy:
        model.policy.mpc.constraints.limit.fill_(TRACK - 0.05)
    left = Left()
    model.learn(STEPS, callback=left)
    return left.at


left = {"plans": explore(MPCPolicy, learn="terminal"), "network": explore("MlpPolicy")}
plt.figure(figsize=(6, 3))
for name, at in left.items():
    plt.step([0, *at, STEPS], [*range(len(at) + 1), len(at)], where="post", label=name)
    print(f"{name:8} left the track in {len(at)} episodes")
plt.xlabel("steps of PPO")
plt.ylabel("episodes that left the track")
plt.legend()
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. Set the margin to zero, and to 20 cm. How often is the track left, and what return does the
#    larger margin cost?
# 2. Tell the planner that the cart has twice its mass
#    (`model.policy.mpc.dynamics.cart_mass.data.fill_(2.0)`). Does the constraint still hold? How
#    large has the margin to be?
# 3. Start at x = 0.99 m with 3 m/s towards the end, from where nothing helps. What do
#    `plan.violation` and `plan.converged` say? What does `make_mpc(..., soft=100.0)` change?
# 4. The last state of a plan may be doomed, though each state of the plan is on the track. Add a
#    terminal constraint that lets the cart stop in time.
