# %% [markdown]
# # No model: learn it
#
# Where nobody has written the motion down, a network learns it from what was seen, and plans go
# through the network. The cost is still yours.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch

from mpc_gym import MPC, QuadraticCost
from mpc_gym.imitation import FitOptions, RandomAgent, collect, concatenate, evaluate, fit_dynamics
from mpc_gym.models import LearnedDynamics

ENV = "Pendulum-v1"  # Gymnasium's own; nothing of its motion is told
EPISODES = 4

# %% [markdown]
# ## A network that predicts
#
# It predicts the change of the state. `unit_pairs` says that the first two entries are the cosine
# and the sine of an angle, which stay on the circle.

# %%
torch.manual_seed(0)
dynamics = LearnedDynamics(n_state=3, n_ctrl=1, hidden=(32, 32), unit_pairs=[(0, 1)])
cost = QuadraticCost.from_goal(
    goal_state=torch.tensor([1.0, 0.0, 0.0]),  # upright, at rest
    goal_weights=torch.tensor([1.0, 1.0, 0.1]),
    control_penalty=0.001,
)
limits = {"control_low": -2.0, "control_high": 2.0}
mpc = MPC(dynamics, cost, horizon=25, **limits, max_iterations=30)

# %% [markdown]
# ## Episode by episode
#
# One episode of random actions, then plans through what is known so far. A plan goes where the
# model promises much, and what is seen there corrects it.

# %%
options = FitOptions(epochs=150, learning_rate=1e-2, batch_size=64)
episodes = [collect(RandomAgent(gym.make(ENV)), ENV, episodes=1, progress_bar=False)]
losses = []
for i in range(1, EPISODES):
    history = fit_dynamics(dynamics, concatenate(episodes), options)
    losses.append(min(row["validation/loss"] for row in history))
    episodes.append(collect(mpc, ENV, episodes=1, seed=i, progress_bar=False))
earned = [float(each.returns[0]) for each in episodes]
print("returns, the first of random actions:", [round(each) for each in earned])
print("validation losses:", [f"{each:.1e}" for each in losses])

# %%
unseen = evaluate(mpc, ENV, seeds=range(100, 106))
print(f"unseen start states: {unseen.mean:.0f} ± {unseen.standard_error:.0f}")

# %% [markdown]
# ## How far to trust it
#
# What a plan promised, and what came of its controls: errors of one step add up over the horizon.
# Planning anew at every step is what makes the model good enough.

# %%
env = gym.make(ENV)
observation, _ = env.reset(seed=100)
with torch.no_grad():
    plan = mpc(torch.from_numpy(observation)[None])
seen = [observation]
for control in plan.controls[0, :-1].numpy():
    observation, *_ = env.step(control)
    seen.append(observation)
angle = [
    np.unwrap(np.arctan2(each[:, 1], each[:, 0]))
    for each in (plan.states[0].numpy(), np.array(seen))
]
plt.figure(figsize=(6, 3))
for name, line in zip(("planned", "what came"), angle, strict=True):
    plt.plot(0.05 * np.arange(len(line)), np.rad2deg(line), label=name)
plt.xlabel("time [s]")
plt.ylabel("angle [deg]")
plt.legend()
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. Give the network the physics that you know, `LearnedDynamics(...,
#    physics=PendulumDynamics(mass=2.0))`, and compare the returns after one episode.
# 2. Take five networks, `members=5`. Where do they disagree? Is that where the plan fails?
# 3. How does the validation loss fall with the number of episodes, of random actions and of
#    plans? Which data are worth more, and why?
# 4. Identify the true pendulum's three parameters from the same first episode
#    (`SystemIdentification`). What does knowing the form of the equations save?
