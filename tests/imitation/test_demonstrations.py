"""Demonstrations: what an expert did, sliced by episode and kept in a file."""

import json

import numpy as np
import pytest

from mpc_gym.imitation import Demonstrations, concatenate


def make(lengths=(3, 1, 4), seed: int = 0, env_id: str = "DiffPendulum-v0") -> Demonstrations:
    rng = np.random.default_rng(seed)
    steps, episodes = sum(lengths), len(lengths)
    return Demonstrations(
        observations=rng.normal(size=(steps, 3)).astype(np.float32),
        actions=np.arange(1, steps + 1, dtype=np.float32)[:, None],
        rewards=rng.normal(size=steps),
        episode_lengths=np.array(lengths),
        final_observations=rng.normal(size=(episodes, 3)).astype(np.float32),
        env_id=env_id,
        env_kwargs={"gravity": 9.8},
    )


def assert_equal(left: Demonstrations, right: Demonstrations) -> None:
    for name in (
        "observations",
        "actions",
        "rewards",
        "episode_lengths",
        "final_observations",
    ):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.env_id == right.env_id
    assert left.env_kwargs == right.env_kwargs


def test_the_next_observation_stays_within_its_episode():
    demonstrations = make((2, 1))
    following = demonstrations.next_observations
    np.testing.assert_array_equal(following[0], demonstrations.observations[1])
    np.testing.assert_array_equal(following[1], demonstrations.final_observations[0])
    np.testing.assert_array_equal(following[2], demonstrations.final_observations[1])


def test_a_window_holds_the_next_actions_of_its_episode_and_no_others():
    windows, mask = make((3, 1)).action_windows(2)
    np.testing.assert_array_equal(windows[..., 0], [[1, 2], [2, 3], [3, 0], [4, 0]])
    np.testing.assert_array_equal(mask, [[1, 1], [1, 1], [1, 0], [1, 0]])


def test_returns_are_sums_of_rewards_by_episode():
    demonstrations = make((3, 1, 4))
    r = demonstrations.rewards
    expected = [r[:3].sum(), r[3:4].sum(), r[4:].sum()]
    np.testing.assert_allclose(demonstrations.returns, expected)


def test_selected_episodes_put_together_again_are_the_whole():
    demonstrations = make((3, 1, 4))
    parts = [demonstrations.select([i]) for i in range(3)]
    assert_equal(concatenate(parts), demonstrations)
    assert_equal(demonstrations.select([-1]), parts[2])


def test_a_split_parts_whole_episodes_and_repeats_with_its_seed():
    demonstrations = make((3, 1, 4, 2, 5))
    kept, held_out = demonstrations.split(0.4, seed=1)
    assert (kept.episodes, held_out.episodes) == (3, 2)
    actions = np.concatenate([kept.actions, held_out.actions])
    np.testing.assert_array_equal(np.sort(actions, 0), demonstrations.actions)
    assert_equal(demonstrations.split(0.4, seed=1)[1], held_out)


def test_a_saved_file_reads_as_it_was(tmp_path):
    demonstrations = make()
    path = tmp_path / "new folder" / "expert.npz"
    demonstrations.save(path)
    loaded = Demonstrations.load(path)
    assert_equal(loaded, demonstrations)
    assert loaded.fingerprint() == demonstrations.fingerprint()
    assert [p.name for p in path.parent.iterdir()] == ["expert.npz"]


def test_a_fingerprint_tells_demonstrations_apart():
    demonstrations = make()
    other = make()
    other.actions[2] += 1e-6
    assert demonstrations.fingerprint() == make().fingerprint()
    assert demonstrations.fingerprint() != other.fingerprint()
    assert demonstrations.fingerprint() != make(env_id="DiffCartPole-v0").fingerprint()


class TestBadFiles:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
            Demonstrations.load(tmp_path / "nowhere.npz")

    @pytest.mark.parametrize("cut", [0, 10, 400, -30])
    def test_a_file_cut_short_is_refused(self, tmp_path, cut):
        path = tmp_path / "expert.npz"
        make().save(path)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ValueError, match=r"expert\.npz is damaged"):
            Demonstrations.load(path)

    def test_flipped_bytes_are_noticed(self, tmp_path):
        path = tmp_path / "expert.npz"
        make((50, 50)).save(path)
        content = bytearray(path.read_bytes())
        content[200:230] = bytes(byte ^ 0xFF for byte in content[200:230])
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"expert\.npz is damaged"):
            Demonstrations.load(path)

    def test_a_foreign_archive_is_refused(self, tmp_path):
        path = tmp_path / "other.npz"
        np.savez(path, observations=np.zeros(3))
        with pytest.raises(ValueError, match="holds no demonstrations"):
            Demonstrations.load(path)

    def test_a_single_array_is_refused(self, tmp_path):
        path = tmp_path / "array.npy"
        np.save(path, np.zeros(3))
        with pytest.raises(ValueError, match="holds no demonstrations"):
            Demonstrations.load(path)

    def test_a_pickle_is_not_run(self, tmp_path):
        path = tmp_path / "pickle.npz"
        np.savez(path, metadata=np.array([object()], dtype=object))
        with pytest.raises(ValueError, match="allow_pickle=False"):
            Demonstrations.load(path)

    def test_a_newer_version_is_refused(self, tmp_path):
        path = tmp_path / "new.npz"
        make().save(path)
        with np.load(path) as file:
            arrays = dict(file)
        metadata = json.loads(str(arrays["metadata"]))
        metadata["version"] += 1
        np.savez(path, **{**arrays, "metadata": np.array(json.dumps(metadata))})
        with pytest.raises(ValueError, match=r"version 2.* up to 1"):
            Demonstrations.load(path)

    def test_a_file_without_its_actions_is_refused(self, tmp_path):
        path = tmp_path / "part.npz"
        make().save(path)
        with np.load(path) as file:
            arrays = dict(file)
        del arrays["actions"]
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match="holds no actions"):
            Demonstrations.load(path)

    def test_an_interrupted_save_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "expert.npz"
        make(seed=1).save(path)

        def fail(file, **arrays):
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(np, "savez_compressed", fail)
        with pytest.raises(OSError, match="disk full"):
            make(seed=2).save(path)
        monkeypatch.undo()
        assert_equal(Demonstrations.load(path), make(seed=1))
        assert list(tmp_path.iterdir()) == [path]


class TestBadInput:
    def test_shapes_that_do_not_fit_are_named(self):
        good = make((2,))
        with pytest.raises(ValueError, match=r"rewards must have shape \[2\].* got \[3\]"):
            Demonstrations(
                good.observations,
                good.actions,
                np.zeros(3),
                good.episode_lengths,
                good.final_observations,
                good.env_id,
            )

    def test_lengths_that_do_not_sum_up_are_refused(self):
        good = make((2, 1))
        with pytest.raises(ValueError, match=r"episode_lengths .* sum to the 3 .* \[2, 2\]"):
            Demonstrations(
                good.observations,
                good.actions,
                good.rewards,
                np.array([2, 2]),
                good.final_observations,
                good.env_id,
            )

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
    def test_a_split_must_leave_both_parts(self, fraction):
        with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
            make().split(fraction, seed=0)

    def test_one_episode_cannot_be_split(self):
        with pytest.raises(ValueError, match="at least 2 episodes"):
            make((5,)).split(0.5, seed=0)

    def test_demonstrations_of_two_environments_are_not_mixed(self):
        with pytest.raises(ValueError, match=r"DiffPendulum-v0.*DiffCartPole-v0"):
            concatenate([make(), make(env_id="DiffCartPole-v0")])
