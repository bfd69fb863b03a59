from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reproduction import runtime


def test_the_tolerance_sets_the_number_of_iterations() -> None:
    for iterations in (1, 4, 16):
        mpc = runtime.controller(runtime.tolerance_for(iterations), backend="native")
        with torch.no_grad():
            plan = mpc(runtime.start_states())
        assert plan.iterations.tolist() == [iterations] * runtime.BATCH
        assert plan.converged.all()


def test_compiled_code_and_the_reference_differentiate_alike() -> None:
    gradients = []
    for mode in ("implicit-native", "implicit-reference"):
        mpc = runtime.controller(1.0, **runtime.MODES[mode].options)
        mpc(runtime.start_states(1)).controls.square().mean().backward()
        gradients.append([p.grad.item() for p in mpc.dynamics.parameters()])
    np.testing.assert_allclose(*gradients, rtol=1e-6)


def test_a_run_measures_both_passes(tmp_path: Path) -> None:
    found = runtime.run(tmp_path, seed=0, mode="implicit-native", iterations=4, seconds=0.01)
    assert found["found_iterations"] == 4
    assert runtime.LEAST <= len(found["forward"]) == len(found["backward"]) <= runtime.MOST
    assert min(found["forward"] + found["backward"]) > 0
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 1 + len(found["forward"])


def test_every_way_is_measured_at_every_number_of_iterations() -> None:
    settings = [run.settings for run in runtime.runs(quick=False)]
    assert {(s["mode"], s["iterations"]) for s in settings} == {
        (mode, count) for mode in runtime.MODES for count in runtime.ITERATIONS
    }


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_is_that_of_the_iterations(power: float) -> None:
    counts = [1, 2, 8, 64]
    assert runtime.exponent(counts, [3.0 * n**power for n in counts]) == pytest.approx(power)


def results(backward: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    return {
        f"{mode}/{count}": {
            "mode": mode,
            "found_iterations": count,
            "forward": [0.001 * count] * 3,
            "backward": [time, 0.9 * time, 1.5 * time],
        }
        for mode, times in backward.items()
        for count, time in zip((1, 10, 100), times, strict=True)
    }


def test_the_finding_holds_where_one_is_constant_and_the_other_linear(tmp_path: Path) -> None:
    times = {
        "implicit-native": [0.001] * 3,
        "implicit-reference": [0.02, 0.03, 0.025],
        "unrolled-reference": [0.05, 0.4, 4.0],
    }
    section = runtime.section(results(times), tmp_path)
    assert [finding.learner for finding in section.findings] == ["paper", "ours"]
    assert all(finding.holds for finding in section.findings)
    ratios = section.findings[0].numbers["backward time, most to fewest iterations"]
    assert ratios["unrolled-reference"] == pytest.approx(80)
    assert section.tables[0].rows[0] == ["implicit-native", 1, 1.0, 1.0, 3]
    assert (tmp_path / "runtime.png").stat().st_size > 0


@pytest.mark.parametrize("mode", ["implicit-native", "unrolled-reference"])
def test_the_finding_does_not_hold_where_the_times_say_otherwise(mode: str, tmp_path: Path) -> None:
    times = {
        "implicit-native": [0.001] * 3,
        "implicit-reference": [0.02] * 3,
        "unrolled-reference": [0.05, 0.5, 5.0],
    }
    times[mode] = [0.05, 0.5, 5.0] if "implicit" in mode else [0.05] * 3
    paper, ours = runtime.section(results(times), tmp_path).findings
    assert not ours.holds
    assert paper.holds is (mode == "implicit-native")
