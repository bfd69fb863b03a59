# %% [markdown]
# # Ten demonstrations are enough
#
# An expert swings a pendulum up. A network clones it, and so does a policy that plans with wrong
# physics at first. How many demonstrations does each take to act as well as the expert?

# %%
import matplotlib.pyplot as plt
from stable_baselines3 import PPO

from mpc_gym import make_mpc
from mpc_gym.imitation import BehavioralCloning, collect, evaluate
from mpc_gym.policies import MPCPolicy

ENV = "DiffPendulum-v0"
COUNTS = [1, 3, 10]
unseen = range(1_000, 1_020)

# %% [markdown]
# ## The expert
#
# It plans with the true model. `collect` lets it act, and writes down what it sees, does and
# earns.

# %%
expert = make_mpc(ENV, starts=4)
demonstrations = collect(expert, ENV, episodes=10, seed=0, progress_bar=False)
best = evaluate(expert, ENV, unseen)
print(f"{demonstrations.episodes} episodes of {len(demonstrations) // 10} steps")
print(f"the expert's return: {best.mean:.0f} ± {best.standard_error:.0f}")

# %% [markdown]
# ## Two clones
#
# The planner begins with gravity 15 m/s², mass 3 kg and length 0.5 m, where Amos et al. (2018)
# begin; 10, 1 and 1 are true. Its loss is the error of its actions, differentiated through the
# plan, and the error of its model on what was observed next (`prediction_weight`), which tells
# the physics from afar. A network has no model that could be told.


# %%
def clone_planner(episodes):
    wrong = {"gravity": 15.0, "mass": 3.0, "length": 0.5}
    policy = PPO(MPCPolicy, ENV, policy_kwargs={"learn": wrong, "starts": 4}, seed=0).policy
    cloning = BehavioralCloning(
        policy, episodes, prediction_weight=10.0, learning_rate=0.1, batch_size=256
    )
    return cloning.train(40 if episodes.episodes == 1 else 15, progress_bar=False)


def clone_network(episodes):
    policy = PPO("MlpPolicy", ENV, seed=0).policy
    cloning = BehavioralCloning(policy, episodes, learning_rate=3e-3, batch_size=128)
    return cloning.train(200, progress_bar=False)


returns = {"plans": [], "network": []}
for count in COUNTS:
    some = collect(expert, ENV, episodes=count, seed=0, progress_bar=False)
    planner, network = clone_planner(some), clone_network(some)
    returns["plans"].append(evaluate(planner, ENV, unseen).mean)
    returns["network"].append(evaluate(network, ENV, unseen).mean)
    print(f"{count:2} episodes:", {name: round(means[-1]) for name, means in returns.items()})

# %%
plt.figure(figsize=(6, 3))
plt.axhline(best.mean, color="grey", linestyle="--", label="expert")
for (name, means), marker in zip(returns.items(), "os", strict=True):
    plt.plot(COUNTS, means, marker=marker, label=name)
plt.xlabel("demonstrations")
plt.ylabel("return, unseen start states")
plt.legend()
plt.show()

# %% [markdown]
# ## What it has learned
#
# Three numbers, of which the motion tells two: gravity / length and 1 / (mass length²). These
# come out right, gravity, mass and length one by one need not.

# %%
dynamics = planner.mpc.dynamics
stiffness = (dynamics.gravity / dynamics.length).item()
push = (1 / (dynamics.mass * dynamics.length**2)).item()
print(f"gravity / length = {stiffness:.3f} (true: 10), 1 / (mass length²) = {push:.3f} (true: 1)")

# %% [markdown]
# ## Exercises
#
# 1. Clone with `prediction_weight=0`. From how many demonstrations does the planner still find
#    the physics? Plot its loss: where does it rest, and what do plans at their limits have to do
#    with it? (`smoothing=(10.0, 1e-4)` is a remedy.)
# 2. Let the network learn by `DAgger` from the same number of labels. What does it see that the
#    demonstrations do not show?
# 3. Demonstrate in `DiffPendulumWindy-v0`, whose wind and friction the planner's model does not
#    have. Which is better now, a large `prediction_weight` or none? Why?
