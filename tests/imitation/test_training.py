"""Training by mini-batches: logged, the best kept, stopped and resumed without loss."""

import csv
import math
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from mpc_gym.files import InUseError
from mpc_gym.imitation.checkpoint import write_checkpoint
from mpc_gym.imitation.losses import Sum, Value
from mpc_gym.imitation.training import Training, TrainingOptions
from tests.killing import at_random, largest_file, needs_fork

ROWS = 40


class Regression:
    """Mean squared error of a module on fixed data; remembers how often it was asked."""

    def __init__(self, module: nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(ROWS, 3, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5]])
        self.counts = torch.ones(ROWS, dtype=torch.bool)
        self.module = module
        self.calls = 0

    def __call__(self, rows):
        self.calls += 1
        errors = (self.module(self.x[rows]) - self.y[rows]).square()[self.counts[rows]]
        total = Sum(errors.sum(), len(errors))
        return Value(((1.0, total),), {"error": Sum(errors.detach().sum(), len(errors))})

    def begin_epoch(self, epoch):
        pass

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def make_module() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


def make(folder=None, identity=None, checkpoint_seconds=0.0, log_epochs=1, **options) -> Training:
    module = make_module()
    rows = torch.arange(ROWS)
    settings = TrainingOptions(**{"batch_size": 8, "learning_rate": 1e-2, **options})
    identity = {"run": 1} if identity is None else identity
    loss = Regression(module)
    split = (rows[:30], rows[30:])
    return Training(
        module, loss, *split, settings, identity, folder, checkpoint_seconds, log_epochs
    )


def assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    for p, q in zip(left.parameters(), right.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_run_that_is_stopped_and_resumed_is_bitwise_the_uninterrupted_one(tmp_path, optimizer):
    whole = make(tmp_path / "whole", optimizer=optimizer)
    whole.run(6)
    make(tmp_path / "parts", optimizer=optimizer).run(2)
    torch.manual_seed(99)  # whatever happens in between
    resumed = make(tmp_path / "parts", optimizer=optimizer)
    assert resumed.epoch == 2
    resumed.run(6)
    assert_same_weights(whole.module, resumed.module)
    assert whole.history == resumed.history
    assert whole.loss.calls == resumed.loss.calls
    assert (tmp_path / "whole/metrics.csv").read_text() == (
        tmp_path / "parts/metrics.csv"
    ).read_text()


def test_a_run_continued_in_the_same_process_is_bitwise_the_uninterrupted_one():
    whole, parts = make(), make()
    whole.run(6)
    parts.run(2)
    parts.run(6)
    assert_same_weights(whole.module, parts.module)


def test_a_killed_run_repeats_the_epochs_after_its_last_checkpoint(tmp_path):
    whole = make(tmp_path / "whole")
    whole.run(6)
    parts = make(tmp_path / "parts", checkpoint_seconds=math.inf)
    parts.run(2)  # the end of a run always leaves a checkpoint

    def killed(history):
        if len(history) == 5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        parts.run(6, enough=killed)
    resumed = make(tmp_path / "parts")
    assert resumed.epoch == 2
    resumed.run(6)
    assert whole.history == resumed.history
    assert_same_weights(whole.module, resumed.module)
    assert (tmp_path / "whole/metrics.csv").read_text() == (
        tmp_path / "parts/metrics.csv"
    ).read_text()


def test_a_run_ends_where_it_is_told_that_it_is_enough(tmp_path):
    def enough(history):
        return len(history) > 3

    assert len(make(tmp_path).run(6, enough=enough)) == 4
    again = make(tmp_path)
    calls = again.loss.calls
    assert len(again.run(6, enough=enough)) == 4
    assert again.loss.calls == calls
    assert len(again.run(6)) == 7  # and goes on where nobody says so


def test_a_finished_run_is_not_repeated(tmp_path):
    make(tmp_path).run(3)
    again = make(tmp_path)
    calls = again.loss.calls
    again.run(3)
    assert again.loss.calls == calls


def test_the_weights_left_are_those_of_the_lowest_validation_loss():
    training = make()
    training.loss.y[30:] *= -1  # what is learned makes the held-out rows worse
    history = training.run(12)
    losses = [row["validation/loss"] for row in history]
    assert training.best.epoch == losses.index(min(losses))
    assert losses[-1] > min(losses)
    with torch.no_grad():
        assert training.loss(torch.arange(30, ROWS)).mean() == pytest.approx(min(losses))


def test_a_batch_weighs_as_much_as_there_is_in_it_that_counts():
    training = make(batch_size=8, learning_rate=0.0)
    training.loss.counts[31:38] = False  # of ten rows, batches of 8 and 2, one and two remain
    row = training.run(0)[0]
    training.module.eval()
    kept = torch.tensor([30, 38, 39])
    error = (training.module(training.loss.x[kept]) - training.loss.y[kept]).square().mean()
    assert row["validation/loss"] == pytest.approx(error.item())
    assert row["validation/error"] == pytest.approx(error.item())


def test_an_epoch_in_which_nothing_counts_is_never_the_best():
    training = make()
    training.loss.counts[30:] = False
    before = make_module()
    history = training.run(2)
    assert [row["validation/loss"] for row in history] == [math.inf] * 3
    assert training.best.epoch == -1
    assert_same_weights(training.module, before)


def test_a_batch_in_which_nothing_counts_takes_no_step():
    training = make()
    training.loss.counts[:30] = False
    training.run(2)
    assert_same_weights(training.module, make_module())
    assert training.history[2]["train/loss"] == math.inf


def test_the_log_has_one_row_an_epoch(tmp_path):
    training = make(tmp_path)
    training.run(4)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["epoch"])) for row in rows] == [0, 1, 2, 3, 4]
    assert float(rows[3]["train/error"]) == pytest.approx(training.history[3]["train/error"])
    assert any("tfevents" in path.name for path in tmp_path.iterdir())


def test_of_several_epochs_one_is_logged_also_when_a_run_is_resumed(tmp_path):
    make(tmp_path, log_epochs=3).run(4)
    training = make(tmp_path, log_epochs=3)
    training.run(7)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["epoch"])) for row in rows] == [0, 3, 6]
    assert len(training.history) == 8


def test_training_leaves_the_callers_random_numbers_alone():
    training = make()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    training.run(1)
    assert torch.equal(torch.rand(1), expected)


def test_nothing_is_printed(tmp_path, capsys):
    make(tmp_path).run(1)
    assert capsys.readouterr().out == ""


class TestBadInput:
    def test_another_runs_checkpoint_is_refused_and_left_alone(self, tmp_path):
        make(tmp_path, identity={"run": 1, "seed": 0}).run(1)
        before = (tmp_path / "checkpoint.pt").read_bytes()
        with pytest.raises(ValueError, match=r"another run: run was 1 and is 2"):
            make(tmp_path, identity={"run": 2, "seed": 0})
        assert (tmp_path / "checkpoint.pt").read_bytes() == before

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
    def test_a_damaged_checkpoint_is_refused(self, tmp_path, content):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged"):
            make(tmp_path)

    def test_a_checkpoint_that_would_run_code_does_not(self, tmp_path):
        class Malicious:
            def __reduce__(self):
                return (open, (str(tmp_path / "owned"), "w"))

        torch.save({"format": Malicious()}, tmp_path / "checkpoint.pt")
        with pytest.raises(ValueError, match="damaged"):
            make(tmp_path)
        assert not (tmp_path / "owned").exists()

    def test_a_module_with_nothing_to_learn_is_refused(self):
        module = make_module().requires_grad_(False)
        rows = torch.arange(ROWS)
        with pytest.raises(ValueError, match="nothing to train"):
            Training(module, Regression(module), rows, rows, TrainingOptions(), {}, None)

    def test_a_loss_that_is_not_finite_stops_the_run(self):
        training = make()
        training.loss.y[0] = float("nan")
        with pytest.raises(FloatingPointError, match="learning_rate"):
            training.run(1)

    @pytest.mark.parametrize(
        "option",
        [{"optimizer": "sgd"}, {"learning_rate": -1.0}, {"batch_size": 0}],
        ids=["optimizer", "learning_rate", "batch_size"],
    )
    def test_an_option_out_of_range_is_named(self, option):
        with pytest.raises(ValueError, match=next(iter(option))):
            TrainingOptions(**option)


def killed(folder: Path, kills: int, epochs: int, longest: float) -> None:
    whole = make(folder / "whole")
    whole.run(epochs)
    rng = random.Random(0)
    for _ in range(kills):
        at_random(lambda: make(folder / "parts").run(epochs), longest, rng)
    resumed = make(folder / "parts")
    assert resumed.history == whole.history[: len(resumed.history)]
    resumed.run(epochs)
    assert resumed.history == whole.history
    assert_same_weights(resumed.module, whole.module)
    tables = [(folder / name / "metrics.csv").read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]
    assert not list((folder / "parts").glob(".*"))


@needs_fork
def test_a_run_that_is_killed_again_and_again_ends_as_the_uninterrupted_one(tmp_path):
    killed(tmp_path, kills=8, epochs=60, longest=0.3)


@needs_fork
@pytest.mark.slow
def test_fifty_kills_of_a_run_lose_nothing_and_leave_nothing(tmp_path):
    killed(tmp_path, kills=50, epochs=400, longest=0.5)


def test_a_folder_where_another_run_trains_is_refused_and_left_to_it(tmp_path):
    whole, first, second = make(), make(tmp_path / "run"), make(tmp_path / "run")

    def meanwhile(_: list) -> bool:
        with pytest.raises(InUseError, match=r"folder '.*run' is in use by another process"):
            second.run(9)
        return False

    whole.run(3)
    first.run(3, enough=meanwhile)
    assert first.history == whole.history
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [float(row["epoch"]) for row in csv.DictReader(file)] == [0, 1, 2, 3]


@pytest.mark.parametrize("file", ["metrics.csv", "checkpoint.pt"])
def test_a_disk_that_is_full_is_one_clear_error_and_training_goes_on_when_there_is_room(
    tmp_path: Path, file: str
):
    whole = make()
    whole.run(20)
    make(tmp_path).run(2)
    room = (tmp_path / file).stat().st_size + 10
    with largest_file(room), pytest.raises(OSError, match="cannot be written: File too large"):
        make(tmp_path).run(20)
    resumed = make(tmp_path)
    assert resumed.epoch >= 2
    resumed.run(20)
    assert resumed.history == whole.history
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_with_something_else_in_it_is_refused(tmp_path):
    write_checkpoint(tmp_path / "checkpoint.pt", {"run": 1}, {"weights": 1})
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged.*Remove it"):
        make(tmp_path)
