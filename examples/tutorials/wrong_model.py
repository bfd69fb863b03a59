# %% [markdown]
# # When the model is wrong
#
# A pendulum stands in a wind that is known, and its mass is not: the planner takes it for 0.5 kg,
# and it is 1 kg. Three cures, by what there is to learn from: transitions, an expert, or nothing
# but rewards.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
from stable_baselines3 import PPO

from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.imitation import (
    BehavioralCloning,
    RandomAgent,
    SystemIdentification,
    collect,
    evaluate,
)
from mpc_gym.policies import MPCPolicy

WIND = {"wind": 0.2}
N_ENVS = 32
STEPS = 24_576  # of PPO
env = gym.make("DiffPendulum-v0", **WIND)
unseen = range(1_000, 1_012)


def planner(**options):
    kwargs = {"learn": {"mass": 0.5}, **options}
    return PPO(MPCPolicy, env, policy_kwargs=kwargs, seed=0)


def mass(model):
    return model.policy.mpc.dynamics.mass.item()


def score(model):
    return evaluate(model, env, unseen).mean


wrong = planner()
best = evaluate(make_mpc(env), env, unseen).mean
returns = {"wrong": score(wrong)}
masses = {"wrong": mass(wrong)}
print(f"mass {mass(wrong)} kg: return {returns['wrong']:.0f}; with the right one {best:.0f}")

# %% [markdown]
# With the wrong mass it leans into the wind by the wrong torque, and stands askew.
#
# ## From transitions: identification
#
# Any actions do, random ones too. What followed them is what the model has to predict. There is
# no plan in this loss, so it takes seconds. It is the first thing to try.

# %%
identified = planner()
random_episodes = collect(RandomAgent(env), env, episodes=2, progress_bar=False)
SystemIdentification(identified.policy, random_episodes, learning_rate=0.1).train(
    100, progress_bar=False
)
masses["identified"], returns["identified"] = mass(identified), score(identified)
print(f"identified: {masses['identified']:.4f} kg, return {returns['identified']:.0f}")

# %% [markdown]
# ## From an expert: imitation
#
# Where only actions are shown, the planner asks with which mass it would have done the same. The
# gradient goes through the plan. This is the cure where the model cannot be right and has to be
# useful: it finds the mass with which it *acts* best.

# %%
imitating = planner()
shown = collect(make_mpc(env), env, episodes=4, seed=0, progress_bar=False)
BehavioralCloning(imitating.policy, shown, learning_rate=0.05, batch_size=128).train(
    20, progress_bar=False
)
masses["imitating"], returns["imitating"] = mass(imitating), score(imitating)
print(f"imitating: {masses['imitating']:.4f} kg, return {returns['imitating']:.0f}")

# %% [markdown]
# ## From rewards: PPO
#
# Where there is nothing but rewards, the policy gradient moves the mass. It is noisy, and takes
# the most steps: a short run is shown, with long episodes, so that holding upright counts.
# (`examples/ppo.py` goes on until the mass is right.)

# %%
envs = make_sb3_vec_env("DiffPendulum-v0", N_ENVS, seed=0, max_episode_steps=STEPS, **WIND)
rewarded = PPO(
    MPCPolicy,
    envs,
    policy_kwargs={"learn": {"mass": 0.5}, "net_arch": [], "log_std_init": -2.0},
    n_steps=64,
    batch_size=N_ENVS * 64,
    n_epochs=8,
    learning_rate=lambda remaining: 0.05 * remaining**2,
    clip_range=0.5,
    gae_lambda=1.0,
    seed=0,
)
rewarded.policy.log_std.requires_grad_(False)
rewarded.learn(STEPS)
masses["rewarded"], returns["rewarded"] = mass(rewarded), score(rewarded)
print(f"rewarded: {masses['rewarded']:.4f} kg, return {returns['rewarded']:.0f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3))
left.bar(list(masses), list(masses.values()))
left.axhline(1.0, color="grey", linestyle="--")
left.set_ylabel("mass [kg]")
right.bar(list(returns), list(returns.values()))
right.axhline(best, color="grey", linestyle="--")
right.set_ylabel("return")
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. Identify from actions that are held for ten steps each (`RandomAgent(env, hold=10)`). Does it
#    take fewer episodes? What do good actions for identification have in common?
# 2. Leave the wind out of the planner's model. What mass do identification and imitation come to,
#    and which acts better?
# 3. Repeat the training by rewards with three seeds and twice the steps. How much do the masses
#    differ? What of it is noise of the gradient, and what a return that hardly tells masses
#    apart?
# 4. Combine them: identify first, then learn from rewards. What is left to learn?
