"""One-file scripts: what they define for a policy is there again when another script loads it."""

import textwrap
from pathlib import Path

from tests.scripts import Ended, Scripts

DEFINES = """
    import torch
    from torch import nn
    from mpc_gym import MPC

    GAIN = 1.5

    class Cart(nn.Module):
        n_state, n_ctrl = 3, 1

        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(GAIN, dtype=torch.float64))

        def forward(self, state, control):
            return 0.9 * state + self.gain * control

    class Far(nn.Module):
        def forward(self, state, control):
            return (state**2).sum(-1) + 0.1 * (control**2).sum(-1)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, observation):
            return self.scale * observation

    def my_mpc(horizon=3):
        return MPC(Cart(), Far(), horizon, -2.0, 2.0, backend="torch")
"""

TRAINS = """
    import numpy as np
    import mpc_gym
    from mpc_gym.policies import MPCPolicy, SACMPCPolicy
    from stable_baselines3 import PPO, SAC

    def kwargs():
        return dict(policy_kwargs=dict(mpc=my_mpc, state=Scaled, horizon=4), device="cpu", seed=0)

    models = (
        PPO(MPCPolicy, "Pendulum-v1", n_steps=8, batch_size=8, n_epochs=2, **kwargs()),
        SAC(SACMPCPolicy, "Pendulum-v1", learning_starts=4, **kwargs()),
    )
    for model in models:
        model.learn(16)
        assert model.policy.mpc.dynamics.gain.item() != GAIN
        assert not torch.equal(model.policy.planner.observer.state_map.scale, torch.ones(3))
        name = type(model).__name__
        model.save(name)
        model.policy.save(name + ".policy")
        getattr(model.policy, "actor", model.policy).save(name + ".planner")
        model.policy.save_pretrained(name + ".folder")
        np.save(name, model.predict(np.float32([1.0, 0.0, 0.3]), deterministic=True)[0])
"""

LOADS = """
    import gymnasium as gym
    import numpy as np
    from mpc_gym.policies import MPCPolicy, SACMPCPolicy
    from mpc_gym.policies.off_policy import SACMPCActor
    from stable_baselines3 import PPO, SAC

    for algorithm, policy, planner in (
        (PPO, MPCPolicy, MPCPolicy), (SAC, SACMPCPolicy, SACMPCActor)
    ):
        name = algorithm.__name__
        model = algorithm.load(name, env=gym.make("Pendulum-v1"), device="cpu")
        expected = np.load(name + ".npy")
        for each in (
            model,
            policy.load(name + ".policy", device="cpu"),
            planner.load(name + ".planner", device="cpu"),
        ):
            action, _ = each.predict(np.float32([1.0, 0.0, 0.3]), deterministic=True)
            np.testing.assert_allclose(action, expected, rtol=1e-6)
        model.learn(16, reset_num_timesteps=False)
        assert model.num_timesteps == 32
        model.save("again")
        algorithm.load("again", device="cpu")
        try:
            policy.from_pretrained(name + ".folder")
        except ValueError as error:
            assert "__main__.my_mpc" in str(error) and "pass it as mpc=" in str(error)
        else:
            raise AssertionError("the folder holds no code")
"""

BRINGS_THE_FUNCTION = """
    import numpy as np
    from mpc_gym.policies import load_pretrained

    for name in ("PPO", "SAC"):
        policy = load_pretrained(name + ".folder", mpc=my_mpc, state=Scaled)
        action, _ = policy.predict(np.float32([1.0, 0.0, 0.3]), deterministic=True)
        np.testing.assert_array_equal(action, np.load(name + ".npy"))
"""


def run(scripts: Scripts, folder: Path, name: str, *parts: str) -> Ended:
    script = folder / name
    script.write_text("\n".join(map(textwrap.dedent, parts)), encoding="utf-8")
    return scripts.run(script)


def test_a_function_of_a_script_trains_saves_and_loads_in_another_script(tmp_path, scripts):
    for name, parts in {
        "trains.py": (DEFINES, TRAINS),
        "loads.py": (LOADS,),
        "brings.py": (DEFINES, BRINGS_THE_FUNCTION),
    }.items():
        done = run(scripts, tmp_path, name, *parts)
        assert done.returncode == 0, done.stderr


def test_a_function_that_cannot_be_kept_is_refused_before_training(tmp_path, scripts):
    script = """
        import functools
        import threading
        from mpc_gym import make_mpc
        from mpc_gym.policies import MPCPolicy
        from stable_baselines3 import PPO

        lock = threading.Lock()

        def locked():
            with lock:
                return make_mpc("DiffPendulum-v0")

        @functools.lru_cache
        def cached():
            return make_mpc("DiffPendulum-v0")

        def uses_cached():
            return cached()

        def makes(function):
            return lambda: function("DiffPendulum-v0")

        nameless = (lambda: make_mpc("DiffPendulum-v0"), makes(make_mpc))
        for mpc in (locked, cached, uses_cached, *nameless):
            try:
                PPO(MPCPolicy, "Pendulum-v1", policy_kwargs=dict(mpc=mpc))
            except TypeError as error:
                print(error)
    """
    done = run(scripts, tmp_path, "script.py", script)
    assert done.returncode == 0, done.stderr
    first, second, third, *others = done.stdout.splitlines()
    assert first.startswith("mpc=locked could not be saved with the policy")
    assert "cannot pickle '_thread.lock' object" in first
    for name, line in (("cached", second), ("uses_cached", third)):
        assert line.startswith(f"mpc={name} could not be saved with the policy")
        assert "'cached' is kept by its name" in line
    assert len(others) == 2
    assert all("Define it with `def` at the top level" in each for each in others)
