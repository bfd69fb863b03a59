"""The benchmark as it is called."""

import csv
import errno

import pytest
import torch

from benchmarks import targets
from benchmarks.differentiation import MODES, measure
from benchmarks.fresh import peak_memory
from benchmarks.options import Options
from benchmarks.problems import PROBLEMS
from benchmarks.report import Table
from benchmarks.solver import main, parse


def test_options_come_from_the_command_line(tmp_path):
    found = parse(["--quick", "--only", "scaling", "targets", "--folder", str(tmp_path)])
    assert found == Options(quick=True, only=("scaling", "targets"), folder=tmp_path, seed=0)


def test_an_unknown_section_is_refused():
    with pytest.raises(SystemExit):
        parse(["--only", "nothing"])


def test_peak_memory_sees_what_torch_allocates():
    megabytes = 64
    assert peak_memory(lambda: torch.ones(megabytes, 125_000, dtype=torch.float64)) == (
        pytest.approx(megabytes, rel=0.2)
    )


def test_every_way_to_differentiate_is_measured_after_the_same_iterations():
    found = [measure(mode, tolerance=10.0, seconds=0.0) for mode in MODES]
    assert len({iterations for iterations, *_ in found}) == 1
    assert all(min(forward, backward) > 0 for _, forward, backward, *_ in found)


def test_the_solver_that_is_timed_alone_finds_the_controllers_plan():
    for problem in PROBLEMS:
        mpc = problem.controller(backend="native")
        x_init = torch.from_numpy(problem.start_states(2, seed=0))
        alone = targets._kernel(mpc, x_init)()
        assert torch.equal(alone.controls, mpc(x_init).controls)


def test_a_table_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, monkeypatch):
    table = Table("some", "Some", ("number",))
    table.add(1)
    table.write(tmp_path / "new")
    table.add(2)

    def fails(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match=r"some\.csv"):
        table.write(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["some.csv"]
    assert (tmp_path / "new" / "some.csv").read_text() == "number\n1\n"


@pytest.mark.slow
def test_a_quick_section_writes_its_table_and_its_figure(tmp_path):
    main(["--quick", "--only", "scaling", "--folder", str(tmp_path)])
    with (tmp_path / "scaling.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["over"] for row in rows} == {"batch", "horizon", "states", "threads"}
    assert all(float(row["us a solve"]) > 0 for row in rows)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
