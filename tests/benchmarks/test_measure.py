"""Measuring side by side."""

from benchmarks.measure import MAX_RUNS, Timing, interleaved


def test_runs_of_all_tasks_are_spread_over_the_whole_time():
    calls = []
    timings = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, 1e-3)
    measured = calls[4:]  # after two runs of each to warm up
    for name, timing in timings.items():
        assert 2 * len(timing.samples) == measured.count(name)  # each after an untimed one
    assert 3 <= len(timings["a"].samples) <= MAX_RUNS
    assert measured[:3] not in (["a"] * 3, ["b"] * 3)


def test_a_task_longer_than_the_time_is_timed_once_and_keeps_its_result():
    calls = []

    def task():
        calls.append(1)
        return "result"

    timing = interleaved({"task": task}, seconds=0.0)["task"]
    assert len(calls) == 2  # the first to warm up
    assert len(timing.samples) == 1
    assert timing.result == "result"


def test_a_timing_knows_its_median_and_its_best():
    timing = Timing([3.0, 1.0, 2.0])
    assert (timing.median, timing.best) == (2.0, 1.0)
