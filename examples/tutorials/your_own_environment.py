# %% [markdown]
# # Your own environment and model
#
# You have a `gymnasium.Env`, and know roughly how it moves. Two PyTorch modules and one function
# make a policy that plans in it.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from stable_baselines3 import PPO
from torch import nn

from mpc_gym import MPC
from mpc_gym.imitation import RandomAgent, SystemIdentification, collect, evaluate
from mpc_gym.policies import MPCPolicy

# %% [markdown]
# ## The environment
#
# A crane's trolley on a rail, from which a load hangs. It is to stand at the origin with the load
# at rest. It is written in NumPy and knows nothing of planning.


# %%
class Crane(gym.Env):
    """Observation: position, speed, angle, angular velocity. Action: acceleration."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gym.spaces.Box(-3.0, 3.0, (1,), np.float32)  # [m/s^2]
    rope, dt = 2.0, 0.1  # [m], [s]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-4.0, 4.0), 0.0, 0.0, 0.0])
        return self.state.astype(np.float32), {}

    def step(self, action):
        x, v, angle, spin = self.state
        acceleration = float(np.clip(action[0], -3.0, 3.0))
        spin = spin - self.dt * (9.81 * np.sin(angle) + acceleration * np.cos(angle)) / self.rope
        v = v + self.dt * acceleration
        self.state = np.array([x + self.dt * v, v, angle + self.dt * spin, spin])
        reward = -abs(x) - 2.0 * abs(angle)
        return self.state.astype(np.float32), reward, False, False, {}


gym.register("Crane-v0", Crane, max_episode_steps=80)

# %% [markdown]
# ## The model
#
# What follows a state and a control, for batches; and what a stage costs. What you do not know
# for sure is a parameter: the rope is taken for 0.8 m long. The cost need not be the reward. It
# is what the planner strives for, and smooth.


# %%
class CraneModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.rope = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))  # [m]

    def forward(self, state, control):
        x, v, angle, spin = state.unbind(-1)
        acceleration = control[..., 0]
        spin = spin - 0.1 * (9.81 * angle.sin() + acceleration * angle.cos()) / self.rope
        v = v + 0.1 * acceleration
        return torch.stack((x + 0.1 * v, v, angle + 0.1 * spin, spin), -1)


class AtRest(nn.Module):
    def forward(self, state, control):
        x, v, angle, spin = state.unbind(-1)
        return x**2 + 0.3 * v**2 + 4 * angle**2 + spin**2 + 0.01 * control[..., 0] ** 2


def make_controller():
    return MPC(CraneModel(), AtRest(), horizon=30, control_low=-3.0, control_high=3.0)


# %% [markdown]
# Before anything is trained, look at one plan. Is it what you would do?

# %%
with torch.no_grad():
    plan = make_controller()(torch.tensor([[3.0, 0.0, 0.0, 0.0]]))
print(f"converged: {bool(plan.converged)} after {plan.iterations.item()} iterations")

# %% [markdown]
# ## How they meet
#
# The policy takes the function that makes the controller. Observations are the model's states and
# actions its controls, so there is nothing more to say (`state=` and `control_scale=` say it
# where they are not).

# %%
env = gym.make("Crane-v0")
model = PPO(MPCPolicy, env, policy_kwargs={"mpc": make_controller}, seed=0)
guessed = evaluate(model, "Crane-v0", seeds=range(20))
print(f"with a rope of 0.8 m: {guessed.mean:.0f} ± {guessed.standard_error:.0f}")

# %% [markdown]
# ## What the model does not know
#
# Two episodes of random actions tell the length of the rope.

# %%
episodes = collect(RandomAgent(env), env, episodes=2, progress_bar=False)
identification = SystemIdentification(model.policy, episodes, learning_rate=0.05)
identification.train(epochs=200, progress_bar=False)
rope = model.policy.mpc.dynamics.rope.item()
fitted = evaluate(model, "Crane-v0", seeds=range(20))
print(f"rope: {rope:.6f} m (true: 2); return {fitted.mean:.0f} ± {fitted.standard_error:.0f}")

# %%
network = evaluate(PPO("MlpPolicy", env, seed=0), "Crane-v0", seeds=range(20))
scores = {
    "network,\nuntrained": network,
    "rope of 0.8 m": guessed,
    "rope from\ntwo episodes": fitted,
}
plt.figure(figsize=(6, 3))
plt.bar(
    list(scores),
    [each.mean for each in scores.values()],
    yerr=[each.standard_error for each in scores.values()],
)
plt.ylabel("return")
plt.show()

# %% [markdown]
# Observing again at every step makes up for most of what a wrong model does, so that the return
# hardly tells one rope from the other. The plans do: with the right one, the load goes where they
# say.
#
# ## Exercises
#
# 1. Let the environment give cosine and sine of the angle instead of the angle. Say with `state=`
#    what the model's state is.
# 2. Let actions be in [-1, 1]. What does the policy say, and what does `control_scale` change?
# 3. Add friction to the environment, but not to the model. What does system identification make
#    of the rope? Add a parameter for the friction.
# 4. A wall stands at x = 0.5 m. Make a module of constraints that keeps the load, at x + rope
#    sin(angle), away from it.
