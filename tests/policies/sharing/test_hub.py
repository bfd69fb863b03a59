"""Policies from and to the Hugging Face Hub, of which a folder takes the place here."""

import inspect
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.file_download import DryRunFileInfo
from huggingface_hub.utils import filter_repo_objects
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from mpc_gym.policies import (
    MPCPolicy,
    load_pretrained,
    pretrained_kwargs,
    push_to_hub,
    save_pretrained,
)
from mpc_gym.policies.sharing.policy_folder import MAX_CONFIG_BYTES, MAX_TENSOR_BYTES
from tests.killing import names
from tests.policies.planners import SHORT, observations

NAME = "someone/swing-up"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DOWNLOADED = ["config.json", "policy.safetensors"]
UPLOAD_FOLDER = inspect.signature(huggingface_hub.HfApi.upload_folder)
SNAPSHOT_DOWNLOAD = inspect.signature(huggingface_hub.snapshot_download)


def patterns(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: options[name] for name in ("allow_patterns", "ignore_patterns") if name in options
    }


class Hub:
    """Repositories as folders, and the functions of huggingface_hub that go to them."""

    def __init__(self, folder: Path) -> None:
        self.repositories = folder / "hub"
        self.cache = folder / "cache"
        self.asked: list[str] = []
        self.private: bool | None = None

    def repository(self, repo_id: str = NAME) -> Path:
        folder = self.repositories / repo_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def downloaded(self) -> list[str]:
        return sorted(file.name for file in self.cache.rglob("*") if file.is_file())

    def snapshot_download(self, *arguments: Any, **options: Any) -> Any:
        given = SNAPSHOT_DOWNLOAD.bind(*arguments, **options).arguments
        repo_id = given["repo_id"]
        self.asked.append(repo_id)
        repository = self.repository(repo_id)
        chosen = list(filter_repo_objects(names(repository), **patterns(given)))
        if given.get("dry_run"):
            return [
                DryRunFileInfo(
                    COMMIT, (repository / name).stat().st_size, name, "", False, will_download=True
                )
                for name in chosen
            ]
        assert given["revision"] == COMMIT
        folder = self.cache / repo_id
        folder.mkdir(parents=True)
        for name in chosen:  # links, as in the library's own cache
            (folder / name).symlink_to(repository / name)
        return str(folder)

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        assert exist_ok
        self.repository(repo_id)
        self.private = private

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> Any:
        UPLOAD_FOLDER.bind(self, repo_id=repo_id, folder_path=folder_path, **options)
        for name in filter_repo_objects(names(folder_path), **patterns(options)):
            (self.repository(repo_id) / name).write_bytes((folder_path / name).read_bytes())
        address = f"https://huggingface.co/{repo_id}/commit/{COMMIT}"
        return huggingface_hub.CommitInfo(
            commit_url=address, commit_message="", commit_description="", oid=COMMIT
        )


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda library_name: hub)
    return hub


def make_policy(policy_class: type[BasePolicy] = MPCPolicy, **options: Any) -> BasePolicy:
    env = gym.make("DiffPendulum-v0")
    options = {**(SHORT if policy_class is MPCPolicy else {}), "net_arch": [4], **options}
    return policy_class(env.observation_space, env.action_space, lambda _: 1e-3, **options)


def act(policy: BasePolicy) -> np.ndarray:
    return policy.predict(observations(), deterministic=True)[0]


class Payload:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("policy_class", [MPCPolicy, ActorCriticPolicy])
def test_a_policy_goes_to_the_hub_and_comes_back(policy_class, hub):
    policy = make_policy(policy_class)
    address = push_to_hub(policy, NAME, "Swings up.", private=True)
    assert address == f"https://huggingface.co/{NAME}/commit/{COMMIT}"
    assert names(hub.repository()) == ["README.md", *DOWNLOADED]
    assert hub.private
    card = (hub.repository() / "README.md").read_text()
    assert "Swings up." in card
    assert f'policy = load_pretrained("{NAME}")' in card
    np.testing.assert_array_equal(act(load_pretrained(NAME)), act(policy))
    assert hub.downloaded() == DOWNLOADED


def test_a_planning_policy_does_so_by_its_methods(hub):
    policy = make_policy(learn={"mass": 2.0})
    policy.push_to_hub(NAME)
    np.testing.assert_array_equal(act(MPCPolicy.from_pretrained(NAME)), act(policy))


def test_an_algorithm_gets_the_arguments_of_a_policy_on_the_hub(hub):
    make_policy(learn={"mass": 2.0}).push_to_hub(NAME)
    assert pretrained_kwargs(NAME)["learn"] == {"mass": 2.0}


def test_a_pickle_beside_the_policy_is_not_downloaded(hub, tmp_path):
    policy = make_policy()
    policy.push_to_hub(NAME)
    for name in ("policy.zip", "pytorch_model.bin", "policy.pkl", "config.json.pkl"):
        (hub.repository() / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    np.testing.assert_array_equal(act(load_pretrained(NAME)), act(policy))
    assert hub.downloaded() == DOWNLOADED
    assert not (tmp_path / "ran").exists()


def test_a_repository_with_a_pickle_alone_is_refused_without_downloading_anything(hub, tmp_path):
    for name in ("policy.zip", "pytorch_model.bin", "policy.safetensors"):
        (hub.repository() / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(ValueError, match=rf"{NAME}.*no config.json. Pickles.*are not downloaded"):
        load_pretrained(NAME)
    assert hub.downloaded() == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dump", [pickle.dumps, lambda it: pickle.dumps({"mass": it})])
def test_a_pickle_in_the_place_of_the_tensors_is_not_run(dump, hub, tmp_path):
    make_policy().push_to_hub(NAME)
    (hub.repository() / "policy.safetensors").write_bytes(dump(Payload(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"policy\.safetensors is not the one that config\.json"):
        load_pretrained(NAME)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "limit"), [("config.json", MAX_CONFIG_BYTES), ("policy.safetensors", MAX_TENSOR_BYTES)]
)
def test_what_is_too_large_to_be_loaded_is_not_downloaded(name, limit, hub):
    make_policy().push_to_hub(NAME)
    os.truncate(hub.repository() / name, limit + 1)
    with pytest.raises(ValueError, match=rf"{name} of .*at most {limit} bytes, got {limit + 1}"):
        load_pretrained(NAME)
    assert hub.downloaded() == []


def test_a_folder_on_this_computer_comes_before_a_repository_of_its_name(
    hub, tmp_path, monkeypatch
):
    make_policy(learn={"mass": 2.0}).push_to_hub(NAME)
    monkeypatch.chdir(tmp_path)
    here = make_policy(learn={"mass": 3.0})
    here.save_pretrained(NAME)
    np.testing.assert_array_equal(act(MPCPolicy.from_pretrained(NAME)), act(here))
    assert not hub.asked


@pytest.mark.parametrize(
    "folder", [Path(NAME), f"./{NAME}", f"/{NAME}", "swing-up", f"runs/{NAME}", "../up", "a b/c"]
)
def test_what_has_not_the_form_of_a_repositorys_id_is_looked_for_on_this_computer_alone(
    folder, hub, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"folder on this computer, or user/name.*does not exist"):
        load_pretrained(folder)
    assert not hub.asked


@pytest.mark.parametrize("repo_id", ["swing-up", "a/b/c", "./x", f"/{NAME}", "someone/", 3, None])
def test_a_policy_is_pushed_to_a_repository_only(repo_id, hub):
    with pytest.raises(ValueError, match='repo_id must be "user/name", of a repository'):
        make_policy().push_to_hub(repo_id)
    assert not hub.repositories.exists()


def test_without_the_library_the_hub_is_answered_with_how_to_install_it(hub, tmp_path, monkeypatch):
    policy = make_policy()
    save_pretrained(policy, tmp_path / "policy")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for ask in (load_pretrained, pretrained_kwargs, policy.push_to_hub):
        with pytest.raises(ImportError, match=r"huggingface_hub: pip install 'mpc-gym\[hub\]'"):
            ask(NAME)
    np.testing.assert_array_equal(act(load_pretrained(tmp_path / "policy")), act(policy))


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """The library itself without a connection, and where it keeps what it has downloaded."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_a_repository_that_cannot_be_downloaded_is_named_with_the_reason(offline):
    with pytest.raises(ValueError, match=rf"no folder '{NAME}', and .* cannot be .*offline mode"):
        load_pretrained(NAME)


def test_without_a_connection_a_policy_that_was_downloaded_before_is_loaded(offline):
    policy = make_policy()
    repository = offline / "models--someone--swing-up"
    policy.save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    np.testing.assert_array_equal(act(load_pretrained(NAME)), act(policy))
