"""Demonstrations: what an expert did, sliced by episode and kept in a file."""

import dataclasses
import io
import itertools
import json
import os
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mpc_gym.imitation import Demonstrations, concatenate
from mpc_gym.imitation.npz import read_npz, write_npz
from tests.killing import at_every_call, at_random, largest_file, names, needs_fork
from tests.mutations import of_bytes, refusals


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


def test_lists_are_taken_for_arrays():
    lists = {
        "observations": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
        "actions": [[1.0], [2.0], [3.0]],
        "rewards": [-1.0, -2.0, -3.0],
        "episode_lengths": [2, 1],
        "final_observations": [[6.0, 7.0], [8.0, 9.0]],
    }
    given = Demonstrations(**lists, env_id="Pendulum-v1")
    arrays = {name: np.array(values) for name, values in lists.items()}
    assert_equal(given, Demonstrations(**arrays, env_id="Pendulum-v1"))
    assert given.returns.tolist() == [-3.0, -3.0]
    with pytest.raises(ValueError, match="actions must be an array, or lists that make one"):
        Demonstrations(**{**lists, "actions": [[1.0], [2.0, 3.0], [4.0]]}, env_id="Pendulum-v1")


def test_tensors_and_unsigned_lengths_are_taken_for_arrays():
    whole = make((3, 1, 4))
    given = dataclasses.replace(
        whole,
        actions=torch.tensor(whole.actions, requires_grad=True),
        episode_lengths=np.array([3, 1, 4], dtype=np.uint64),
    )
    assert_equal(given, whole)
    np.testing.assert_array_equal(given.returns, whole.returns)
    np.testing.assert_array_equal(given.next_observations, whole.next_observations)


@pytest.mark.parametrize("dtype", [int, bool, np.uint8, np.longdouble, ">f8", ">f4"])
def test_numbers_of_any_kind_are_kept_as_ones_that_pytorch_has(dtype, tmp_path):
    ones = {name: np.ones_like(getattr(make(), name)) for name in ("observations", "actions")}
    given = dataclasses.replace(make(), **{name: each.astype(dtype) for name, each in ones.items()})
    given.save(tmp_path / "file.npz")
    for found in (given, Demonstrations.load(tmp_path / "file.npz")):
        for name, each in ones.items():
            tensor = torch.as_tensor(getattr(found, name))
            assert tensor.is_floating_point()
            assert torch.equal(tensor, torch.tensor(each, dtype=tensor.dtype))


@pytest.mark.parametrize("name", ["env_id", "env_kwargs"])
def test_an_environment_that_a_file_could_not_name_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} must be"):
        dataclasses.replace(make((3,)), **{name: None})


def test_they_print_in_one_line():
    text = repr(make((300, 200)))
    assert text.startswith("Demonstrations(env_id='DiffPendulum-v0', env_kwargs={'gravity': 9.8}")
    assert "episodes=2, steps=500, mean return=" in text
    assert "observations=[500, 3] float32, actions=[500, 1] float32" in text
    assert len(text) < 250
    assert "\n" not in text


def test_a_single_episode_is_split_in_time():
    demonstrations = make((10,))
    kept, held_out = demonstrations.split(0.3, seed=0)
    assert (len(kept), len(held_out)) == (7, 3)
    np.testing.assert_array_equal(kept.observations, demonstrations.observations[:7])
    np.testing.assert_array_equal(held_out.observations, demonstrations.observations[7:])
    following = np.concatenate([kept.next_observations, held_out.next_observations])
    np.testing.assert_array_equal(following, demonstrations.next_observations)
    for part, fraction in (((2,), 0.01), ((2,), 0.99)):
        assert [len(each) for each in make(part).split(fraction, seed=0)] == [1, 1]


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

    def test_a_full_disk_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "expert.npz"
        make(seed=1).save(path)
        with largest_file(500), pytest.raises(OSError, match=r"expert\.npz' cannot be written"):
            make(seed=2).save(path)
        assert_equal(Demonstrations.load(path), make(seed=1))
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        "lengths",
        [
            [2**62, 2**62, 2**62, 2**62 + 8],  # whose sum wraps around to 8
            [2**63 - 1, 2**63 - 1, 10],
            [8, 2**64 - 1, 1],
            [0, 8],
            [-1, 9],
            [9],
            [8.0],
            [2.5, 5.5],
            [[8]],
            8,
            ["8"],
            [8 + 0j],
        ],
    )
    def test_lengths_that_do_not_part_the_steps_are_refused_before_they_are_summed(
        self, tmp_path, lengths
    ):
        edited(tmp_path, episode_lengths=np.array(lengths))
        with pytest.raises(ValueError, match=r"expert\.npz is damaged"):
            Demonstrations.load(tmp_path / "expert.npz")

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["observations", "actions", "rewards", "final_observations"])
    def test_numbers_that_are_not_finite_are_refused(self, tmp_path, name, wrong):
        array = getattr(make(), name).copy()
        array[1] = wrong
        edited(tmp_path, **{name: array})
        with pytest.raises(ValueError, match=rf"{name} must be finite, got .* in row 1"):
            Demonstrations.load(tmp_path / "expert.npz")

    @pytest.mark.parametrize("dtype", ["complex64", "U4", "S4", "M8[s]", "V4", [("a", "f4")]])
    def test_what_is_no_number_is_refused(self, tmp_path, dtype):
        edited(tmp_path, actions=np.zeros((8, 1), dtype))
        with pytest.raises(ValueError, match=r"expert\.npz is damaged.*actions"):
            Demonstrations.load(tmp_path / "expert.npz")

    @pytest.mark.parametrize(
        "metadata",
        [
            "[" * 100_000,
            "{",
            "[]",
            "null",
            '{"format": "mpc_gym.demonstrations", "version": 1}',
            '{"format": "mpc_gym.demonstrations", "version": 1, "env_id": 1, "env_kwargs": {}}',
            '{"format": "mpc_gym.demonstrations", "version": 1, "env_id": "a", "env_kwargs": []}',
            '{"format": "mpc_gym.demonstrations", "version": Infinity}',
        ],
    )
    def test_a_description_that_nobody_wrote_is_refused(self, tmp_path, metadata):
        edited(tmp_path, metadata=np.array(metadata))
        with pytest.raises(ValueError, match=r"expert\.npz (is damaged|holds no demonstrations)"):
            Demonstrations.load(tmp_path / "expert.npz")

    def test_a_small_file_that_stands_for_much_is_not_unpacked(self, tmp_path):
        path = tmp_path / "bomb.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            write_others(archive)
            with archive.open("observations.npy", "w") as file:
                file.write(npy(np.zeros((1, 3)))[:128].replace(b"(1, 3)", b"(99999999, 3)"))
                for _ in range(300):
                    file.write(bytes(2**20))
        assert path.stat().st_size < 2**20
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="bytes would grow to 31"):
                Demonstrations.load(path)
            assert tracemalloc.get_traced_memory()[1] < 2**22
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "shape", [(10**12, 3), (2**62, 4), (-1, 3), (8, 3, 10**9), (0, 10**18)]
    )
    def test_a_header_that_asks_for_more_than_there_is_is_refused(self, tmp_path, shape):
        header = npy(np.zeros((8, 3)))[:128].replace(b"(8, 3)", repr(shape).encode())
        with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
            write_others(archive)
            archive.writestr("observations.npy", header + bytes(8 * 3 * 8))
        with pytest.raises(ValueError, match=r"file\.npz is damaged"):
            Demonstrations.load(tmp_path / "file.npz")

    def test_a_directory_of_a_million_entries_is_not_read(self, tmp_path):
        path = tmp_path / "many.npz"
        make().save(path)
        content = path.read_bytes()
        end = content.rindex(b"PK\x05\x06")
        start = struct.unpack("<L", content[end + 16 : end + 20])[0]
        directory = content[start:end] * 10_000
        size = struct.pack("<L", len(directory))
        path.write_bytes(
            content[:start] + directory + content[end : end + 12] + size + content[end + 16 :]
        )
        with pytest.raises(ValueError, match="no directory of arrays"):
            Demonstrations.load(path)

    @pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
    def test_a_compression_that_numpy_does_not_use_is_refused(self, tmp_path, method):
        with zipfile.ZipFile(tmp_path / "file.npz", "w", method) as archive:
            for name, array in arrays_of(make()).items():
                archive.writestr(f"{name}.npy", npy(array))
        with pytest.raises(ValueError, match="compressed in a way"):
            Demonstrations.load(tmp_path / "file.npz")

    @pytest.mark.skipif(os.name == "nt", reason="there are none of these")
    def test_what_is_no_file_is_refused_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.npz")
        (tmp_path / "zero.npz").symlink_to("/dev/zero")
        for name, found in (("pipe.npz", "a pipe"), ("zero.npz", "a device"), (".", "a folder")):
            with pytest.raises(ValueError, match=f"must be a file, got {found}"):
                Demonstrations.load(tmp_path / name)

    @pytest.mark.parametrize("compressed", [True, False])
    def test_whatever_happens_to_a_file_it_is_read_or_refused(self, tmp_path, compressed):
        path = tmp_path / "expert.npz"
        make().save(path)
        if not compressed:  # where the checksums are all that notices
            np.savez(path, **arrays_of(make()))
        contents = of_bytes(path.read_bytes(), 400, seed=0)
        assert refusals(path, contents, lambda: Demonstrations.load(path)) > 300


def arrays_of(demonstrations: Demonstrations) -> dict[str, np.ndarray]:
    buffer = io.BytesIO()
    write_npz_to(buffer, demonstrations)
    with np.load(buffer) as file:
        return dict(file)


def write_npz_to(buffer: io.BytesIO, demonstrations: Demonstrations) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "mpc_gym.imitation.demonstrations.write_npz",
            lambda _, arrays: np.savez(buffer, **arrays),
        )
        demonstrations.save("unused.npz")
    buffer.seek(0)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_others(archive: zipfile.ZipFile) -> None:
    """All arrays but the observations."""
    for name, array in arrays_of(make()).items():
        if name != "observations":
            archive.writestr(f"{name}.npy", npy(array))


def edited(folder: Path, **changes: np.ndarray) -> None:
    """A file of demonstrations with other arrays than it should have."""
    np.savez(folder / "expert.npz", **{**arrays_of(make()), **changes})


def test_what_hardly_takes_any_room_is_saved_so_that_it_can_be_loaded(tmp_path):
    steps = 5_000_000
    path = tmp_path / "zeros.npz"
    zeros = {"observations": np.zeros((steps, 3), np.float32), "rewards": np.zeros(steps)}
    write_npz(path, zeros)
    for name, array in read_npz(path).items():
        np.testing.assert_array_equal(array, zeros[name])


@needs_fork
def test_a_save_that_is_killed_at_any_call_leaves_the_old_file_or_the_new(tmp_path):
    path, found = tmp_path / "expert.npz", set()
    old, new = make(seed=1), make(seed=2)
    old.save(path)
    for _ in at_every_call(lambda: new.save(path)):
        found.add(Demonstrations.load(path).fingerprint())
        old.save(path)
        assert names(tmp_path) == ["expert.npz"]
    assert found == {old.fingerprint(), new.fingerprint()}


def killed_at_random_moments(path: Path, kills: int) -> None:
    both = [make((3000, 2000), seed=seed) for seed in (1, 2)]
    both[0].save(path)

    def save_for_ever() -> None:
        for demonstrations in itertools.cycle(both):
            demonstrations.save(path)

    rng = random.Random(0)
    for _ in range(kills):
        at_random(save_for_ever, 0.1, rng)
        assert Demonstrations.load(path).fingerprint() in {each.fingerprint() for each in both}
    both[0].save(path)
    assert names(path.parent) == [path.name]


@needs_fork
def test_a_save_that_is_killed_at_a_random_moment_loses_nothing(tmp_path):
    killed_at_random_moments(tmp_path / "expert.npz", 15)


@needs_fork
@pytest.mark.slow
def test_a_hundred_and_twenty_kills_lose_nothing(tmp_path):
    killed_at_random_moments(tmp_path / "expert.npz", 120)


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

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("observations", np.full((2, 3), np.nan), "observations must be finite"),
            ("actions", np.zeros((2, 1), complex), "actions must be real numbers, got complex128"),
            ("rewards", np.array(["a", "b"]), "rewards must be real numbers, got <U1"),
            ("episode_lengths", np.array([2.0]), "episode_lengths must be positive integers"),
        ],
    )
    def test_what_is_no_number_is_refused_by_name(self, name, value, message):
        good = vars(make((2,)))
        with pytest.raises(ValueError, match=message):
            Demonstrations(**{**good, name: value})

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
    def test_a_split_must_leave_both_parts(self, fraction):
        with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
            make().split(fraction, seed=0)

    def test_one_step_cannot_be_split(self):
        with pytest.raises(ValueError, match="at least 2 steps"):
            make((1,)).split(0.5, seed=0)

    def test_demonstrations_of_two_environments_are_not_mixed(self):
        with pytest.raises(ValueError, match=r"DiffPendulum-v0.*DiffCartPole-v0"):
            concatenate([make(), make(env_id="DiffCartPole-v0")])
