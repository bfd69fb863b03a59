"""What does not compile, takes too long or fails is a row of the table, and no end of the run."""

import pytest

from benchmarks import systems
from benchmarks.fresh import reports
from benchmarks.options import Options
from benchmarks.system_models import PENDULUM


def two_numbers(first):
    yield first
    yield first + 1


def never_ends():
    yield "something"
    while True:
        pass


def fails():
    yield "something"
    raise ValueError("as it should")


def test_a_process_reports_what_its_generator_yields():
    assert list(reports(two_numbers, 1, limit=60)) == [1, 2]


def test_a_process_that_takes_too_long_is_ended():
    found = reports(never_ends, limit=1)
    assert next(found) == "something"
    with pytest.raises(TimeoutError, match="more than 1 s"):
        next(found)


def test_a_process_that_fails_says_so():
    found = reports(fails, limit=60)
    assert next(found) == "something"
    with pytest.raises(RuntimeError, match="exit status 1"):
        next(found)


def rows_of_the_pendulum(first_plan, monkeypatch):
    monkeypatch.setattr(systems, "run_script", first_plan)
    tables = systems._tables()
    systems._measure(tables, PENDULUM, Options(quick=True), None)
    (solves,) = tables["solves"].records()
    return solves, list(tables["times"].records())


def test_a_model_that_does_not_compile_is_planned_with_by_the_reference(monkeypatch):
    solves, times = rows_of_the_pendulum(lambda *_, **__: ({}, 0.0), monkeypatch)
    assert solves["backend"] == "torch"
    assert solves["remark"].startswith("not native")
    assert solves["converged"] == "100.0%"
    assert all(row["mpc_gym"] > 0 for row in times)


def test_a_model_that_compiles_for_too_long_leaves_the_others_times(monkeypatch):
    pytest.importorskip("casadi")

    def too_long(*_, **__):
        raise TimeoutError

    solves, times = rows_of_the_pendulum(too_long, monkeypatch)
    assert solves["backend"] == "none"
    assert "more than" in solves["remark"]
    for row in times:
        assert row["fatrop interpreted"] > 0
        assert row["mpc_gym"] != row["mpc_gym"], "not a number"
