import csv
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mpc_gym.imitation.metrics import Metrics

ROWS = [{"step": 0.0, "loss": 1.0}, {"step": 5.0, "loss": 0.1, "noise": 0.25}]


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_on_disk_as_soon_as_they_are_recorded(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, [], by="step")
    for row in ROWS:
        metrics.record(row)
    assert [float(row["loss"]) for row in read(tmp_path)] == [1.0, 0.1]
    assert read(tmp_path)[0]["noise"] == ""
    assert metrics.rows == ROWS
    metrics.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("loss")] == [
        (0, 1.0),
        (5, 0.1),
    ]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    first = Metrics(tmp_path, [], by="step")
    for row in (*ROWS, {"step": 10.0, "loss": 0.05}):
        first.record(row)
    resumed = Metrics(tmp_path, ROWS, by="step")
    resumed.record({"step": 10.0, "loss": 0.04})
    resumed.close()
    assert [float(row["loss"]) for row in read(tmp_path)] == [1.0, 0.1, 0.04]
