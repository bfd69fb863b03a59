"""save_pretrained and load_pretrained: policies as JSON and tensors, safe to load."""

import base64
import hashlib
import io
import itertools
import json
import os
import pickle
import random
import re
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from mpc_gym.models import LinearDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import LSTMPolicy, MPCPolicy
from mpc_gym.policies.sharing.pretrained import (
    Pretrained,
    load_pretrained,
    pretrained_kwargs,
    save_pretrained,
)
from tests.covering import covering_product
from tests.killing import at_every_call, at_random, largest_file, names, needs_fork
from tests.mutations import of_bytes, of_json, refusals
from tests.policies.planners import POLICIES, assert_same, make_model

FILES = ["README.md", "config.json", "policy.safetensors"]
MPC_KWARGS = {
    "horizon": 3,
    "max_iterations": 30,
    "backend": "torch",
    "learn": {"gravity": 12.0, "mass": 1.5},
    "net_arch": [8, 4],
    "activation_fn": nn.ELU,
    "optimizer_class": torch.optim.AdamW,
    "optimizer_kwargs": {"betas": (0.8, 0.99), "eps": 1e-6},
    "log_std_init": -0.5,
}


class OwnMPCPolicy(MPCPolicy, Pretrained):
    """A user's policy, with the two methods."""


def tiny_mpc(horizon: int = 3) -> MPC:
    """A linear-quadratic controller with the shapes of Pendulum-v1."""
    A = torch.eye(3, dtype=torch.float64) * 0.9
    B = torch.tensor([[0.0], [0.1], [1.0]], dtype=torch.float64)
    cost = QuadraticCost(torch.ones(4, dtype=torch.float64))
    return MPC(LinearDynamics(A, B), cost, horizon, backend="torch")


def make_policy(
    policy_class: type[BasePolicy], env_id: str = "DiffPendulum-v0", **kwargs
) -> BasePolicy:
    torch.manual_seed(0)
    env = gym.make(env_id)
    policy = policy_class(env.observation_space, env.action_space, lambda _: 2e-3, **kwargs)
    with torch.no_grad():  # so that no weight is the one that a new policy begins with
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.rand_like(parameter))
    return policy


def observations(count: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-np.pi, np.pi, count), rng.uniform(-1, 1, count)
    return np.stack((np.cos(angle), np.sin(angle), speed), 1).astype(np.float32)


def actions(policy: BasePolicy) -> np.ndarray:
    return policy.predict(observations(), deterministic=True)[0]


def edit_config(folder: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def put_tensors(folder: Path, content: bytes) -> None:
    """Replace the tensor file, as one would who knows about the checksum."""
    (folder / "policy.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    edit_config(folder, lambda config: config.update(tensors_sha256=digest))


def edit_tensors(folder: Path, change: Callable[[dict], object]) -> None:
    tensors = safetensors.torch.load((folder / "policy.safetensors").read_bytes())
    change(tensors)
    put_tensors(folder, safetensors.torch.save(tensors))


@pytest.fixture
def mpc_folder(tmp_path):
    save_pretrained(make_policy(MPCPolicy, **MPC_KWARGS), tmp_path / "mpc")
    return tmp_path / "mpc"


@pytest.fixture
def mlp_folder(tmp_path):
    save_pretrained(make_policy(ActorCriticPolicy, net_arch=[4]), tmp_path / "mlp")
    return tmp_path / "mlp"


@pytest.mark.parametrize(
    ("policy_class", "kwargs"),
    [
        (MPCPolicy, MPC_KWARGS),
        (ActorCriticPolicy, {"net_arch": {"pi": [8], "vf": [4]}}),
        (ActorCriticPolicy, {"use_sde": True, "squash_output": True}),
        (SACPolicy, {"net_arch": [8], "activation_fn": nn.Tanh, "n_critics": 3}),
        (SACPolicy, {"net_arch": [8], "use_sde": True, "clip_mean": 1.5}),
        (TD3Policy, {"net_arch": {"pi": [8], "qf": [4]}, "optimizer_class": torch.optim.SGD}),
    ],
)
def test_a_loaded_policy_is_the_saved_one_to_the_last_bit(policy_class, kwargs, tmp_path):
    policy = make_policy(policy_class, **kwargs)
    save_pretrained(policy, tmp_path / "policy")
    loaded = load_pretrained(tmp_path / "policy")
    assert type(loaded) is policy_class
    np.testing.assert_array_equal(actions(loaded), actions(policy))
    saved = policy.state_dict()
    assert list(loaded.state_dict()) == list(saved)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == saved[name].dtype
        assert torch.equal(tensor, saved[name])
    spaces = {"observation_space", "action_space", "lr_schedule"}
    for name, value in policy._get_constructor_parameters().items():
        if name not in spaces:
            assert loaded._get_constructor_parameters()[name] == value


def test_a_loaded_policy_is_in_evaluation_mode_and_knows_its_environment(mpc_folder):
    policy = load_pretrained(mpc_folder)
    assert not policy.training
    assert policy.observation_space.env_id == "DiffPendulum-v0"
    assert policy.observation_space == gym.make("DiffPendulum-v0").observation_space
    assert policy.mpc.dynamics.gravity.dtype == torch.float64
    assert policy.value_net.weight.dtype == torch.float32
    assert policy.optimizer.param_groups[0]["lr"] == 2e-3


def test_a_policy_saves_and_loads_itself_with_its_two_methods(tmp_path):
    policy = make_policy(OwnMPCPolicy, **MPC_KWARGS)
    policy.save_pretrained(tmp_path / "own")
    loaded = OwnMPCPolicy.from_pretrained(tmp_path / "own", device="cpu")
    assert type(loaded) is OwnMPCPolicy
    np.testing.assert_array_equal(actions(loaded), actions(policy))


def test_an_unknown_class_is_loaded_only_where_the_caller_brings_it(tmp_path):
    save_pretrained(make_policy(OwnMPCPolicy, **MPC_KWARGS), tmp_path)
    with pytest.raises(ValueError, match=r"class must be one of MPCPolicy.*'OwnMPCPolicy'"):
        load_pretrained(tmp_path)
    assert type(load_pretrained(tmp_path, OwnMPCPolicy)) is OwnMPCPolicy


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (PPO, {"n_steps": 8, "batch_size": 8, "n_epochs": 1}),
        (A2C, {"n_steps": 8}),
        (SAC, {"learning_starts": 2, "batch_size": 4, "buffer_size": 50}),
        (TD3, {"learning_starts": 2, "batch_size": 4, "buffer_size": 50}),
        (DDPG, {"learning_starts": 2, "batch_size": 4, "buffer_size": 50}),
    ],
)
def test_training_goes_on_from_a_saved_mlp_policy(algorithm, options, tmp_path):
    env, kwargs = "DiffPendulum-v0", {"net_arch": [8]}
    model = algorithm("MlpPolicy", env, policy_kwargs=kwargs, seed=0, **options).learn(8)
    save_pretrained(model.policy, tmp_path)
    again = algorithm("MlpPolicy", env, policy_kwargs=pretrained_kwargs(tmp_path), **options)
    again.policy.load_state_dict(load_pretrained(tmp_path).state_dict())
    np.testing.assert_array_equal(actions(again.policy), actions(model.policy))
    again.learn(8)
    changed = zip(again.policy.parameters(), model.policy.parameters(), strict=True)
    assert any(not torch.equal(new, old) for new, old in changed)


def test_training_goes_on_from_a_saved_planning_policy(mpc_folder):
    model = PPO(
        MPCPolicy,
        "DiffPendulum-v0",
        policy_kwargs=pretrained_kwargs(mpc_folder),
        n_steps=8,
        batch_size=8,
        n_epochs=1,
    )
    loaded = load_pretrained(mpc_folder, MPCPolicy)
    model.policy.load_state_dict(loaded.state_dict())
    np.testing.assert_array_equal(actions(model.policy), actions(loaded))
    model.learn(8)
    assert not torch.equal(model.policy.log_std, loaded.log_std)


def test_the_function_that_makes_the_mpc_is_brought_by_the_caller(tmp_path):
    policy = make_policy(MPCPolicy, "Pendulum-v1", mpc=tiny_mpc, horizon=4)
    save_pretrained(policy, tmp_path)
    with pytest.raises(ValueError, match=rf"{tiny_mpc.__module__}\.tiny_mpc.*pass it as mpc="):
        load_pretrained(tmp_path)
    with pytest.raises(ValueError, match="pass it as mpc="):
        pretrained_kwargs(tmp_path)
    loaded = load_pretrained(tmp_path, mpc=tiny_mpc)
    assert loaded.mpc.horizon == 4
    np.testing.assert_array_equal(actions(loaded), actions(policy))
    assert pretrained_kwargs(tmp_path, mpc=tiny_mpc)["mpc"] is tiny_mpc


def test_an_mpc_is_of_no_use_to_a_policy_without_a_plan(mlp_folder):
    with pytest.raises(ValueError, match="planning policies only"):
        load_pretrained(mlp_folder, mpc=tiny_mpc)


def test_the_module_before_an_environments_id_is_not_saved(tmp_path):
    policy = make_policy(MPCPolicy, "Pendulum-v1", mpc="mpc_gym:DiffPendulum-v0", **MPC_KWARGS)
    save_pretrained(policy, tmp_path)
    np.testing.assert_array_equal(actions(load_pretrained(tmp_path)), actions(policy))


@pytest.mark.parametrize("make_path", [str, Path])
def test_a_folder_is_named_by_text_or_path_relative_or_with_spaces(
    make_path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    policy = make_policy(ActorCriticPolicy, net_arch=[4])
    folder = make_path("a new folder/of mine")
    save_pretrained(policy, folder)
    assert sorted(file.name for file in Path(folder).iterdir()) == FILES
    np.testing.assert_array_equal(actions(load_pretrained(folder)), actions(policy))


@pytest.mark.parametrize(
    ("algorithm", "learn"),
    covering_product(POLICIES, ["dynamics", "linear", "terminal", "cost_map"]),
)
def test_a_policy_of_every_algorithm_acts_alike_after_the_way_through_a_folder(
    algorithm, learn, tmp_path
):
    policy = make_model(algorithm, policy_kwargs={"learn": [learn]}).policy
    with torch.no_grad():
        for parameter in getattr(policy, "actor", policy).parameters():
            parameter.add_(0.01 * torch.rand_like(parameter))
    save_pretrained(policy, tmp_path)
    again = load_pretrained(tmp_path)
    assert type(again) is type(policy)
    assert_same(again.state_dict(), policy.state_dict())
    np.testing.assert_array_equal(actions(again), actions(policy))


@pytest.mark.parametrize("algorithm", POLICIES, ids=lambda algorithm: algorithm.__name__)
def test_a_folder_of_the_format_before_is_read(algorithm, tmp_path):
    def rename(tensors: dict) -> None:
        for name in [name for name in tensors if "planner." in name]:
            tensors[name.replace("planner.", "")] = tensors.pop(name)

    policy = make_model(algorithm, policy_kwargs={"learn": ["mass", "cost_map"]}).policy
    with torch.no_grad():
        for parameter in getattr(policy, "actor", policy).parameters():
            parameter.add_(0.01 * torch.rand_like(parameter))
    save_pretrained(policy, tmp_path)
    edit_tensors(tmp_path, rename)
    with pytest.raises(ValueError, match=r"planner\.mpc\.dynamics\.gravity is missing"):
        load_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: config.update(format_version=1))
    assert_same(load_pretrained(tmp_path).state_dict(), policy.state_dict())


def test_the_package_of_an_environment_is_not_imported_because_a_file_names_it(
    mpc_folder, tmp_path, monkeypatch
):
    (tmp_path / "plugin_of_others.py").write_text("raise SystemError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    gym.register("OfOthers-v0", entry_point="plugin_of_others:Env")
    try:
        edit_config(mpc_folder, lambda config: config["arguments"].update(mpc="OfOthers-v0"))
        with pytest.raises(ValueError, match="of this package or of one that has been imported"):
            load_pretrained(mpc_folder)
    finally:
        del gym.registry["OfOthers-v0"]


def test_saving_again_replaces_the_policy_and_nothing_else(mpc_folder):
    (mpc_folder / "notes.txt").write_text("mine")
    policy = make_policy(TD3Policy, net_arch=[4])
    save_pretrained(policy, mpc_folder)
    assert sorted(file.name for file in mpc_folder.iterdir()) == sorted([*FILES, "notes.txt"])
    np.testing.assert_array_equal(actions(load_pretrained(mpc_folder)), actions(policy))


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_files_of_another_origin_are_not_overwritten(name, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"not written by save_pretrained.*another folder"):
        save_pretrained(make_policy(ActorCriticPolicy, net_arch=[4]), tmp_path)
    assert (tmp_path / name).read_text() == "{}"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="got the file"):
        save_pretrained(make_policy(ActorCriticPolicy, net_arch=[4]), tmp_path / "file")


def weights(policy: BasePolicy) -> bytes:
    return safetensors.torch.save(dict(policy.state_dict()))


@pytest.fixture(scope="module")
def three_policies() -> list[BasePolicy]:
    policies = [make_policy(ActorCriticPolicy, net_arch=[4]) for _ in range(3)]
    with torch.no_grad():
        for number, policy in enumerate(policies):
            policy.action_net.weight.add_(number)
    return policies


@needs_fork
def test_a_save_that_is_killed_at_any_call_leaves_the_old_policy_or_the_new(
    tmp_path, three_policies
):
    old, new, _ = three_policies
    folder, found = tmp_path / "policy", []
    save_pretrained(old, folder)
    for _ in at_every_call(lambda: save_pretrained(new, folder)):
        found.append(weights(load_pretrained(folder)))
        pretrained_kwargs(folder)
        save_pretrained(old, folder)  # goes on from whatever was left
        assert weights(load_pretrained(folder)) == weights(old)
        assert names(folder) == FILES
    assert weights(load_pretrained(folder)) == weights(new)
    assert set(found) == {weights(old), weights(new)}


@needs_fork
def test_kills_one_after_the_other_leave_one_of_the_policies_and_no_litter(
    tmp_path, three_policies
):
    known = {weights(policy) for policy in three_policies}
    folder, number = tmp_path / "policy", 0
    save_pretrained(three_policies[0], folder)

    def save() -> None:
        save_pretrained(three_policies[number % 3], folder)

    for number in at_every_call(save):  # noqa: B007  (the next child saves another)
        assert weights(load_pretrained(folder)) in known
        assert len(names(folder)) <= len(FILES) + 3
    assert names(folder) == FILES


@needs_fork
def test_a_first_save_that_is_killed_leaves_an_error_or_the_policy(tmp_path, three_policies):
    policy, folder = three_policies[0], tmp_path / "policy"
    loaded = set()
    for _ in at_every_call(lambda: save_pretrained(policy, folder)):
        loaded.add((folder / "config.json").exists())
        if (folder / "config.json").exists():
            assert weights(load_pretrained(folder)) == weights(policy)
        else:
            with pytest.raises(ValueError, match=r"first saving was cut short|does not exist"):
                load_pretrained(folder)
        shutil.rmtree(folder, ignore_errors=True)
    assert loaded == {False, True}
    assert names(folder) == FILES


def killed_at_random_moments(folder: Path, policies: list[BasePolicy], kills: int) -> None:
    known = {weights(policy) for policy in policies}
    save_pretrained(policies[0], folder)

    def save_for_ever() -> None:
        for policy in itertools.cycle(policies):
            save_pretrained(policy, folder)

    rng = random.Random(0)
    for _ in range(kills):
        at_random(save_for_ever, 0.2, rng)
        assert weights(load_pretrained(folder)) in known
    save_pretrained(policies[0], folder)
    assert names(folder) == FILES


@needs_fork
def test_a_save_that_is_killed_at_a_random_moment_loses_nothing(tmp_path, three_policies):
    killed_at_random_moments(tmp_path / "policy", three_policies, 20)


@needs_fork
@pytest.mark.slow
def test_a_hundred_and_fifty_kills_lose_nothing(tmp_path, three_policies):
    killed_at_random_moments(tmp_path / "policy", three_policies, 150)


@needs_fork
def test_a_policy_can_be_loaded_while_it_is_saved_again_and_again(tmp_path, three_policies):
    folder, known = tmp_path / "policy", {weights(policy) for policy in three_policies}
    save_pretrained(three_policies[0], folder)
    child = os.fork()
    if not child:
        for policy in itertools.islice(itertools.cycle(three_policies), 60):
            save_pretrained(policy, folder)
        os._exit(0)
    loaded = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert weights(load_pretrained(folder)) in known
        loaded += 1
    assert loaded


@needs_fork
def test_two_that_save_to_one_folder_leave_one_of_the_policies(tmp_path, three_policies):
    folder, children = tmp_path / "policy", []
    for policy in three_policies:
        children.append(os.fork())
        if not children[-1]:
            for _ in range(10):
                save_pretrained(policy, folder)
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert weights(load_pretrained(folder)) in {weights(policy) for policy in three_policies}
    assert names(folder) == FILES


@pytest.mark.parametrize("file", ["policy.safetensors", "config.json"])
def test_a_disk_that_is_full_keeps_the_old_policy_and_leaves_nothing(
    file, tmp_path, three_policies
):
    old, new, _ = three_policies
    save_pretrained(old, tmp_path)
    room = (tmp_path / file).stat().st_size - 1
    with largest_file(room), pytest.raises(OSError, match="cannot be written: File too large"):
        save_pretrained(new, tmp_path)
    assert weights(load_pretrained(tmp_path)) == weights(old)
    assert names(tmp_path) == FILES


def test_a_missing_folder_and_missing_files_are_named(mlp_folder):
    with pytest.raises(ValueError, match=r"nowhere does not exist"):
        load_pretrained(mlp_folder / "nowhere")
    with pytest.raises(ValueError, match=r"got the file .*config\.json"):
        load_pretrained(mlp_folder / "config.json")
    for name in ("policy.safetensors", "config.json"):
        (mlp_folder / name).unlink()
        with pytest.raises(ValueError, match=rf"{name} cannot be read: No such file"):
            load_pretrained(mlp_folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"format": "mpc_gym.policy", "format_version": NaN}',
        b'{"format": "mpc_gym.policy", "format_version": "1"}',
        b'{"format": "something else"}',
    ],
)
def test_a_damaged_config_is_named(content, mlp_folder):
    (mlp_folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json (is damaged|describes no|has format)"):
        load_pretrained(mlp_folder)


def test_a_truncated_config_is_named(mlp_folder):
    content = (mlp_folder / "config.json").read_bytes()
    (mlp_folder / "config.json").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_pretrained(mlp_folder)


def test_a_huge_config_is_not_read(mlp_folder):
    with (mlp_folder / "config.json").open("r+b") as file:
        file.truncate(10**12)  # a hole, which takes no space on disk
    with pytest.raises(ValueError, match="must be at most"):
        load_pretrained(mlp_folder)


def test_a_newer_format_asks_for_an_update(mlp_folder):
    edit_config(mlp_folder, lambda config: config.update(format_version=99))
    with pytest.raises(ValueError, match=r"format version 99.*Update mpc_gym"):
        load_pretrained(mlp_folder)


def nest(depth: int) -> list:
    nested: list = []
    for _ in range(depth):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("class", None, "class must be one of"),
        ("class", ["MPCPolicy"], "class must be one of"),
        ("class", "os.system", "class must be one of MPCPolicy.*'os.system'"),
        ("class", "builtins.eval", "class must be one of MPCPolicy.*'builtins.eval'"),
        ("arguments", None, "arguments must be an object"),
        ("arguments", {"activation_fn": "os.system"}, "activation_fn must be one of ELU"),
        ("arguments", {"activation_fn": ["Tanh"]}, "activation_fn must be one of ELU"),
        ("arguments", {"optimizer_class": "Tanh"}, "optimizer_class must be one of Adagrad"),
        ("arguments", {"features_extractor_class": "eval"}, "must be one of FlattenExtractor"),
        ("arguments", {"log_std_init": {"$eval": "1"}}, "no value is written as"),
        ("arguments", {"lr_schedule": 1}, "must not hold lr_schedule"),
        ("arguments", {"surprise": 1}, "cannot be made from the arguments.*surprise"),
        ("arguments", {"net_arch": "text"}, "ActorCriticPolicy cannot be made"),
        ("arguments", {"net_arch": nest(800)}, r"config\.json"),
        ("learning_rate", "fast", "learning_rate must be a number"),
        ("learning_rate", -1, "learning_rate must be a number"),
        ("learning_rate", 10**400, "learning_rate must be a number"),
        ("learning_rate", np.inf, "damaged: Infinity is no JSON"),
        ("action_space", None, "action_space must describe a Box"),
        ("action_space", {"type": "eval"}, "action_space must describe a Box"),
        ("action_space", {"type": "Box", "dtype": "object"}, "must describe a Box"),
    ],
)
def test_a_config_that_nobody_should_have_written_is_refused(key, value, message, mlp_folder):
    edit_config(mlp_folder, lambda config: config.update({key: value}))
    with pytest.raises(ValueError, match=message):
        load_pretrained(mlp_folder)


def test_another_class_than_expected_is_refused(mlp_folder, mpc_folder):
    with pytest.raises(ValueError, match=r"holds a ActorCriticPolicy, expected a MPCPolicy"):
        load_pretrained(mlp_folder, MPCPolicy)
    assert type(load_pretrained(mpc_folder, ActorCriticPolicy)) is MPCPolicy


def test_a_damaged_tensor_file_is_refused(mlp_folder):
    file = mlp_folder / "policy.safetensors"
    content = file.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", content[:-1] + b"\x00"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"policy\.safetensors is not the one"):
            load_pretrained(mlp_folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2**27) + b"{}",
        struct.pack("<Q", 2) + b"[]",
    ],
)
def test_a_tensor_file_that_is_none_is_refused(content, mlp_folder):
    put_tensors(mlp_folder, content)
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        load_pretrained(mlp_folder)


def test_a_tensor_that_claims_bytes_that_are_not_there_is_refused(mlp_folder):
    claim = {"log_std": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    header = json.dumps(claim).encode()
    put_tensors(mlp_folder, struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        load_pretrained(mlp_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda each: each.pop("log_std"), "log_std is missing"),
        (lambda each: each.update(extra=torch.zeros(1)), "extra is unknown"),
        (lambda each: each.update(log_std=torch.zeros(2)), r"log_std is .*\[2\].*expected.*\[1\]"),
        (lambda each: each.update(log_std=torch.zeros(1).double()), "float64.*expected.*float32"),
        (lambda each: each["log_std"].fill_(torch.nan), "NaN or infinity in log_std"),
        (lambda each: each["log_std"].fill_(torch.inf), "NaN or infinity in log_std"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, mlp_folder):
    edit_tensors(mlp_folder, change)
    with pytest.raises(ValueError, match=message):
        load_pretrained(mlp_folder)


def test_physics_in_single_precision_are_refused(mpc_folder):
    name = "planner.mpc.dynamics.gravity"
    edit_tensors(mpc_folder, lambda tensors: tensors.update({name: tensors[name].float()}))
    with pytest.raises(ValueError, match=rf"{name} is .*float32.*expected .*float64"):
        load_pretrained(mpc_folder)


def test_a_policy_with_nan_is_not_saved(tmp_path):
    policy = make_policy(ActorCriticPolicy, net_arch=[4])
    with torch.no_grad():
        policy.log_std.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN or infinity in log_std"):
        save_pretrained(policy, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_weights_that_share_memory_or_are_transposed_are_saved(tmp_path):
    policy = make_policy(ActorCriticPolicy, net_arch=[3, 3])
    layers = policy.mlp_extractor.policy_net
    layers[0].weight.data = layers[0].weight.data.T
    layers[2].weight.data = layers[0].weight.data
    save_pretrained(policy, tmp_path)
    loaded = load_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], each) for name, each in policy.state_dict().items())


def test_a_file_does_not_set_the_bounds_of_the_control(tmp_path):
    policy = make_policy(MPCPolicy, "Pendulum-v1", mpc=tiny_mpc)
    policy.mpc.control_low.fill_(-torch.inf)
    save_pretrained(policy, tmp_path)
    assert load_pretrained(tmp_path, mpc=tiny_mpc).mpc.control_low.item() == -2.0


@pytest.mark.parametrize(
    "make_env",
    [
        lambda: "DiffCartPole-v0",
        lambda: gym.make("DiffCartPole-v0"),
        lambda: gym.make_vec("DiffCartPole-v0", 2),
        lambda: DummyVecEnv([lambda: gym.make("DiffCartPole-v0")]),
    ],
)
def test_the_wrong_environment_is_named_beside_the_right_one(make_env, mpc_folder):
    message = r"another environment: DiffPendulum-v0.*2\..*env is DiffCartPole-v0"
    with pytest.raises(ValueError, match=message):
        load_pretrained(mpc_folder, env=make_env())


@pytest.mark.parametrize(
    "make_env",
    [
        lambda: "DiffPendulum-v0",
        lambda: gym.make("Pendulum-v1"),
        lambda: gym.make_vec("DiffPendulum-v0", 2),
        lambda: DummyVecEnv([lambda: gym.make("DiffPendulum-v0")]),
    ],
)
def test_an_environment_with_the_saved_spaces_is_right(make_env, mlp_folder):
    assert isinstance(load_pretrained(mlp_folder, env=make_env()), ActorCriticPolicy)


def test_what_is_no_environment_is_refused(mlp_folder):
    with pytest.raises(TypeError, match="env must be an environment or its id, got int"):
        load_pretrained(mlp_folder, env=1)


def test_arguments_that_cannot_be_written_down_are_refused_when_saving(tmp_path):
    class OwnActivation(nn.ReLU):
        pass

    policy = make_policy(ActorCriticPolicy, activation_fn=OwnActivation)
    with pytest.raises(TypeError, match="activation_fn must be one of ELU"):
        save_pretrained(policy, tmp_path)
    env = gym.make("CartPole-v1")
    policy = ActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
    with pytest.raises(TypeError, match="action_space must be a Box to be saved"):
        save_pretrained(policy, tmp_path)
    assert not list(tmp_path.iterdir())


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it ran"


def test_a_pickle_in_the_place_of_the_tensors_is_not_run(mlp_folder, marker):
    content = pickle.dumps(Payload(marker))
    pickle.loads(content)
    assert marker.exists(), "the payload works"
    marker.unlink()
    for put in (put_tensors, lambda folder, it: (folder / "policy.safetensors").write_bytes(it)):
        put(mlp_folder, content)
        with pytest.raises(ValueError, match=r"policy\.safetensors is"):
            load_pretrained(mlp_folder)
    assert not marker.exists()


def test_a_file_of_torch_in_the_place_of_the_tensors_is_not_run(mlp_folder, marker):
    buffer = io.BytesIO()
    torch.save({"state_dict": Payload(marker)}, buffer)
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert marker.exists(), "the payload works"
    marker.unlink()
    put_tensors(mlp_folder, buffer.getvalue())
    with pytest.raises(ValueError, match="no safetensors file"):
        load_pretrained(mlp_folder)
    assert not marker.exists()


def make_zip(path: Path, marker: Path) -> None:
    """An SB3 zip whose data hold a pickle that runs."""
    PPO("MlpPolicy", "DiffPendulum-v0", n_steps=8, batch_size=8).save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(entries["data"])
    payload = base64.b64encode(cloudpickle.dumps(Payload(marker))).decode()
    data["ep_info_buffer"] = {":type:": "Payload", ":serialized:": payload}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**entries, "data": json.dumps(data).encode()}.items():
            archive.writestr(name, content)


def test_a_zip_that_runs_code_is_neither_loaded_nor_read(mlp_folder, marker):
    path = mlp_folder / "policy.zip"
    make_zip(path, marker)
    PPO.load(path)
    assert marker.exists(), "the payload works"
    marker.unlink()
    with pytest.raises(ValueError, match="a pickle, which can run code"):
        load_pretrained(path)
    load_pretrained(mlp_folder)  # beside the policy, it is nobody's
    (mlp_folder / "policy.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        load_pretrained(mlp_folder)
    put_tensors(mlp_folder, path.read_bytes())
    with pytest.raises(ValueError, match="no safetensors file"):
        load_pretrained(mlp_folder)
    (mlp_folder / "config.json").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        load_pretrained(mlp_folder)
    assert not marker.exists()


@pytest.fixture
def module_that_runs(marker, tmp_path, monkeypatch):
    """The name of a module that creates the marker when it is imported."""
    name = "module_that_runs"
    source = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(gym.error.NameNotFound):
        gym.make(f"{name}:Env-v0")
    assert marker.exists(), "the payload works"
    marker.unlink()
    del sys.modules[name]
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "path",
    [
        ("class",),
        ("arguments", "mpc"),
        ("arguments", "mpc", "$function"),
        ("arguments", "activation_fn"),
        ("arguments", "optimizer_class"),
        ("arguments", "features_extractor_class"),
        ("observation_space", "type"),
        ("observation_space", "env_id"),
        ("observation_space", "dtype"),
    ],
)
def test_no_name_in_a_config_is_imported_or_called(path, mpc_folder, marker, module_that_runs):
    original = (mpc_folder / "config.json").read_text()
    for name in (
        f"{module_that_runs}:Env-v0",
        f"{module_that_runs}.Thing",
        "os:system",
        "os.system",
    ):

        def put(config: dict, name: str = name) -> None:
            *parents, last = path
            for parent in parents:
                config[parent] = config[parent] or {}
                config = config[parent]
            config[last] = name

        (mpc_folder / "config.json").write_text(original)
        edit_config(mpc_folder, put)
        with pytest.raises(ValueError, match=re.escape(name)):
            load_pretrained(mpc_folder)
        if path != ("class",):  # which they do not ask for
            with pytest.raises(ValueError, match=re.escape(name)):
                pretrained_kwargs(mpc_folder)
    assert not marker.exists()
    assert module_that_runs not in sys.modules


def test_a_registered_environment_without_a_model_is_not_made(mpc_folder):
    edit_config(mpc_folder, lambda config: config["arguments"].update(mpc="MountainCar-v0"))
    with pytest.raises(ValueError, match="with a differentiable model"):
        load_pretrained(mpc_folder)


# ---- what a stranger's folder can ask for


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 10**18}, "horizon must be at most 10000 in a saved policy, got 10000000"),
        ({"horizon": 1e300}, "horizon must be at most 10000"),
        ({"starts": 10**9}, "starts must be at most"),
        ({"max_iterations": 10**12}, "max_iterations must be at most"),
        ({"net_arch": {"pi": [], "vf": [8] * 10**5}}, "vf asks for a network of at least"),
        ({"net_arch": [10**9]}, "net_arch asks for a network of at least"),
        ({"net_arch": [1] * 10**5}, "net_arch asks for a network of at least"),
    ],
)
def test_a_config_that_asks_for_what_fills_the_memory_or_never_ends_is_refused(
    changes, message, mpc_folder
):
    edit_config(mpc_folder, lambda config: config["arguments"].update(changes))
    for load in (load_pretrained, pretrained_kwargs):
        with pytest.raises(ValueError, match=rf"config\.json: {message}"):
            load(mpc_folder)


@pytest.mark.parametrize(
    ("policy_class", "changes"),
    [
        (SACPolicy, {"n_critics": 10**7}),
        (TD3Policy, {"net_arch": {"pi": [4], "qf": [10**5, 10**5]}}),
        (LSTMPolicy, {"hidden": 10**6}),
    ],
)
def test_a_network_is_no_larger_than_its_weights(policy_class, changes, tmp_path):
    options = {} if policy_class is LSTMPolicy else {"net_arch": [4]}
    save_pretrained(make_policy(policy_class, **options), tmp_path)
    load_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: config["arguments"].update(changes))
    with pytest.raises(ValueError, match="and the saved weights are"):
        load_pretrained(tmp_path)


def test_a_header_of_the_tensors_that_is_longer_than_any_is_not_read(mlp_folder):
    put_tensors(mlp_folder, struct.pack("<Q", 90_000_000) + b'{"a":')
    with pytest.raises(ValueError, match="its header must be at most 1048576 bytes, got 9000000"):
        load_pretrained(mlp_folder)


def test_tensors_that_are_larger_than_any_are_not_read(mlp_folder):
    with (mlp_folder / "policy.safetensors").open("r+b") as file:
        file.truncate(10**12)  # a hole, which takes no space on disk
    with pytest.raises(ValueError, match="must be at most"):
        load_pretrained(mlp_folder)


@pytest.mark.skipif(os.name == "nt", reason="there are none of these")
@pytest.mark.parametrize("name", ["config.json", "policy.safetensors"])
def test_what_is_no_file_is_refused_at_once(name, mlp_folder):
    (mlp_folder / name).unlink()
    os.mkfifo(mlp_folder / name)
    with pytest.raises(ValueError, match=rf"{name} must be a file, got a pipe"):
        load_pretrained(mlp_folder)
    (mlp_folder / name).unlink()
    (mlp_folder / name).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=rf"{name} must be a file, got a device"):
        load_pretrained(mlp_folder)


def test_a_policy_that_could_not_be_loaded_is_not_saved(tmp_path):
    policy = make_policy(MPCPolicy, **{**MPC_KWARGS, "horizon": 10_001})
    with pytest.raises(ValueError, match="horizon must be at most 10000"):
        save_pretrained(policy, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


@pytest.mark.filterwarnings("ignore")  # of what the libraries think of such arguments
@pytest.mark.parametrize("file", ["config.json", "policy.safetensors"])
@pytest.mark.parametrize("kind", ["mlp", "mpc"])
def test_whatever_happens_to_a_folder_it_is_loaded_or_refused(
    kind, file, mlp_folder, request, tmp_path
):
    folder = request.getfixturevalue(f"{kind}_folder")
    content = (folder / file).read_bytes()
    contents = of_bytes(content, 150, seed=0)
    if file == "config.json":
        contents = itertools.chain(contents, of_json(content, 300, seed=1))
    if file == "policy.safetensors":  # as one would who knows about the checksum
        for changed in of_bytes(content, 150, seed=2):
            put_tensors(folder, changed)
            refusals(folder / file, iter([changed]), lambda: load_pretrained(folder))
        put_tensors(folder, content)
    assert refusals(folder / file, contents, lambda: load_pretrained(folder)) > 100
