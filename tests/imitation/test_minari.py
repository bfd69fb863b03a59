"""Demonstrations to and from Minari data sets."""

import json
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from mpc_gym.imitation import Demonstrations, read_minari, write_minari

minari = pytest.importorskip("minari")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

ENV_KWARGS = {"g": 9.0}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def demonstrations() -> Demonstrations:
    """Three episodes of different lengths."""
    rng = np.random.default_rng(0)
    return Demonstrations(
        rng.normal(size=(9, 3)).astype(np.float32),
        rng.normal(size=(9, 1)).astype(np.float32),
        rng.normal(size=9),
        np.array([4, 2, 3]),
        rng.normal(size=(3, 3)).astype(np.float32),
        "Pendulum-v1",
        ENV_KWARGS,
    )


def test_what_is_written_is_read_again(demonstrations):
    write_minari(demonstrations, "pendulum/random-v0", author="somebody")
    found = read_minari("pendulum/random-v0")
    assert found.fingerprint() == demonstrations.fingerprint()


def test_others_find_episodes_and_the_environment_in_it(demonstrations):
    write_minari(demonstrations, "random-v0")
    dataset = minari.load_dataset("random-v0")
    assert [len(episode.rewards) for episode in dataset.iterate_episodes()] == [4, 2, 3]
    assert [episode.truncations[-1] for episode in dataset.iterate_episodes()] == [True] * 3
    assert dataset.recover_environment().unwrapped.g == ENV_KWARGS["g"]


def test_discrete_actions_are_read_as_their_numbers():
    from minari.data_collector import EpisodeBuffer

    env = gym.make("CartPole-v1")
    episodes = []
    for action in range(2):
        seen = [env.reset(seed=action)[0]]
        seen += [env.step(action)[0] for _ in range(5)]
        episode = EpisodeBuffer(
            id=action,
            observations=np.stack(seen),
            actions=np.full(5, action),
            rewards=[1.0] * 5,
            terminations=[False] * 5,
            truncations=[False] * 4 + [True],
        )
        episodes.append(episode)
    minari.create_dataset_from_buffers("cartpole-v0", episodes, env)
    found = read_minari("cartpole-v0")
    assert found.env_id == "CartPole-v1"
    np.testing.assert_array_equal(found.actions.ravel(), [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(
        found.observations, [*episodes[0].observations[:5], *episodes[1].observations[:5]]
    )
    np.testing.assert_array_equal(
        found.final_observations, [each.observations[5] for each in episodes]
    )


def test_nothing_that_a_data_set_names_is_run(demonstrations, folder, monkeypatch):
    """Minari would make the environment of a data set that does not say its spaces."""
    (folder / "trap.py").write_text("raise SystemExit('the data set was run')")
    monkeypatch.syspath_prepend(str(folder))
    write_minari(demonstrations, "trap-v0")
    path = folder / "trap-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["env_spec"] = metadata["env_spec"].replace(
        "gymnasium.envs.classic_control.pendulum:PendulumEnv", "trap:Env"
    )
    assert "trap:Env" in metadata["env_spec"]
    path.write_text(json.dumps(metadata))
    assert read_minari("trap-v0").env_id == "Pendulum-v1"
    del metadata["observation_space"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="trap-v0 must say what its observations"):
        read_minari("trap-v0")
    assert "trap" not in sys.modules


def test_episodes_of_no_environment_in_particular(demonstrations):
    unnamed = replace(demonstrations, env_id="", env_kwargs={})
    write_minari(unnamed, "unnamed-v0")
    assert read_minari("unnamed-v0").fingerprint() == unnamed.fingerprint()


class TestRefused:
    def test_a_name_that_is_taken(self, demonstrations):
        write_minari(demonstrations, "random-v0")
        with pytest.raises(ValueError, match="dataset_id must be a new one"):
            write_minari(demonstrations, "random-v0")

    def test_a_data_set_that_is_not_there(self):
        with pytest.raises(FileNotFoundError, match="`minari download no/such-v0`"):
            read_minari("no/such-v0")

    @pytest.mark.parametrize("name", ["", "../outside-v0", "no name", "no-version"])
    def test_a_name_that_is_none(self, demonstrations, name):
        for call in (lambda: read_minari(name), lambda: write_minari(demonstrations, name)):
            with pytest.raises(ValueError, match="dataset_id must be such as"):
                call()

    @pytest.mark.parametrize(
        "space",
        [
            gym.spaces.Dict(position=gym.spaces.Box(-1, 1, (2,))),
            gym.spaces.Box(0, 255, (8, 8, 3), np.uint8),
        ],
    )
    def test_observations_that_are_no_vectors(self, space):
        from minari.data_collector import EpisodeBuffer

        first = space.sample()
        both = (
            {name: np.stack([each, each]) for name, each in first.items()}
            if isinstance(first, dict)
            else np.stack([first, first])
        )
        episode = EpisodeBuffer(
            id=0,
            observations=both,
            actions=np.zeros((1, 1), np.float32),
            rewards=[0.0],
            terminations=[True],
            truncations=[False],
        )
        actions = gym.spaces.Box(-1, 1, (1,))
        minari.create_dataset_from_buffers(
            "other-v0", [episode], observation_space=space, action_space=actions
        )
        with pytest.raises(ValueError, match="observation_space of vectors of numbers"):
            read_minari("other-v0")

    def test_a_library_that_is_missing(self, demonstrations, monkeypatch):
        monkeypatch.setitem(sys.modules, "minari", None)
        with pytest.raises(ImportError, match=r"pip install 'mpc-gym\[minari\]'"):
            write_minari(demonstrations, "random-v0")
        with pytest.raises(ImportError, match=r"pip install 'mpc-gym\[minari\]'"):
            read_minari("random-v0")
