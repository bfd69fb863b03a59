# %% [markdown]
# # A policy that plans, in five minutes
#
# Stable-Baselines3 calls a policy with an observation and gets an action. `MPCPolicy` answers by
# planning: it solves an optimal control problem from the observed state and gives the first
# control of the best plan. So it acts well before it has learned anything, if its model is right.

# %%
import tempfile

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from stable_baselines3 import PPO

from mpc_gym.imitation import evaluate
from mpc_gym.policies import MPCPolicy

# %% [markdown]
# ## In the place of "MlpPolicy"
#
# The environment is Gymnasium's pendulum, whose motor is too weak to lift it at once: it has to
# swing. Its model is known, and the observation space says whose it is, so nothing more is to be
# given.

# %%
planner = PPO(MPCPolicy, "DiffPendulum-v0", seed=0)
network = PPO("MlpPolicy", "DiffPendulum-v0", seed=0)

scores = {
    name: evaluate(model, "DiffPendulum-v0", seeds=range(20))
    for name, model in {"plans": planner, "network": network}.items()
}
for name, score in scores.items():
    print(f"{name:8} return {score.mean:7.0f} ± {score.standard_error:.0f}")

# %% [markdown]
# Neither has learned anything yet. The network knows nothing; the planner knows how a pendulum
# moves and what its reward is.
#
# ## What it intends
#
# A policy's controller is there to be asked. The plan from a state is all that it expects to
# happen, with the controls that make it happen.

# %%
mpc = planner.policy.mpc
hanging = torch.tensor([[-1.0, 0.0, 0.5]])  # cos, sin of the angle, speed [rad/s]
with torch.no_grad():
    plan = mpc(hanging)
angle = torch.atan2(plan.states[0, :, 1], plan.states[0, :, 0])
time = 0.05 * np.arange(len(angle))

figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 4))
above.plot(time, np.rad2deg(np.unwrap(angle)), marker="o")
above.set_ylabel("angle [deg]")
below.step(time, plan.controls[0, :, 0], where="post", color="C1")
below.set(ylabel="torque [N m]", xlabel="time [s]")
plt.show()
print(f"converged: {bool(plan.converged)}, cost: {plan.cost.item():.1f}")

# %% [markdown]
# The torque rests at its limit of 2 N m to nearly the end of the second that the plan looks ahead.
# That does not bring the pendulum up, but away from where it hangs. The next plans go on from
# there. Environments of this package draw the plan of an agent in green, ahead of the pendulum in
# blue.

# %%
env = gym.make("DiffPendulum-v0", render_mode="rgb_array")
observation, _ = env.reset(seed=3)
pictures = []
for step in range(31):
    if step % 10 == 0:
        with torch.no_grad():
            env.unwrapped.show_plan(mpc(torch.from_numpy(observation)[None]))
        pictures.append(env.render())
    action, _ = planner.predict(observation, deterministic=True)
    observation, *_ = env.step(action)

figure, panels = plt.subplots(1, len(pictures), figsize=(10, 2.8))
for panel, picture in zip(panels, pictures, strict=True):
    panel.imshow(picture)
    panel.axis("off")
plt.show()

# %% [markdown]
# ## It is a policy like any other
#
# `learn`, `save`, `load`, callbacks, `evaluate_policy`: all of Stable-Baselines3 works as for
# `"MlpPolicy"`. What is learned is what you say, here the mass. A trained policy is kept in a
# folder of JSON and tensors, which runs no code of a stranger when it is loaded.

# %%
learner = PPO(MPCPolicy, "DiffPendulum-v0", policy_kwargs={"learn": {"mass": 0.5}}, seed=0)
print("mass in the model:", learner.policy.mpc.dynamics.mass.item(), "kg, which is learned")

with tempfile.TemporaryDirectory() as folder:
    planner.policy.save_pretrained(folder)
    loaded = MPCPolicy.from_pretrained(folder)
same = np.array_equal(
    loaded.predict(observation, deterministic=True)[0],
    planner.predict(observation, deterministic=True)[0],
)
print("the loaded policy acts the same:", same)

# %% [markdown]
# ## Exercises
#
# 1. Plan with `horizon=5` and with `horizon=40` (`policy_kwargs=dict(horizon=5)`). From which
#    horizon on does the pendulum come up from hanging? Why is a short plan not enough, though it
#    is made anew at every step?
# 2. Tell the planner that the mass is 0.5 kg and 3 kg (`policy_kwargs=dict(learn={"mass": 3.0})`,
#    without learning). How much return does that cost? What of the wrong model does planning anew
#    at each step make up for?
# 3. Plot the first torque of the plan over the start angle, at rest. Where does it jump, and why
#    can a network not learn this function to the last digit?
