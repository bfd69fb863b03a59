import csv
import json
from pathlib import Path

from mpc_gym.experiments.tables import Table
from reproduction.report import Finding, Section, write_report

SECTION = Section(
    title="An experiment",
    text="What was run.",
    findings=[
        Finding("x", "It is small.", "paper", False, "2", {"loss": 2.0}),
        Finding("x", "It is small.", "ours", True, "1e-9", {"loss": 1e-9, "losses": [1e-9, 2.0]}),
        Finding("y", "It is large.", "ours", False, "0", {"loss": float("inf")}, "It is not."),
    ],
    tables=[Table("losses", "All losses", ("seed", "loss"), [[0, 0.25]])],
)


def test_the_report_states_each_finding_with_its_numbers_and_whether_it_holds(
    tmp_path: Path,
) -> None:
    write_report(tmp_path, {"experiment": SECTION}, quick=False, versions="Run with torch 3.")
    text = (tmp_path / "report.md").read_text()
    assert "| | finding | the paper's learner | ours |" in text.replace("|  |", "| |")
    assert "| x | It is small. | no: 2 | yes: 1e-9 |" in text
    assert "| y | It is large. | - | no: 0 |" in text
    assert "**Finding (x; the paper's learner). It is small.** It does not hold." in text
    assert "**Finding (x; ours). It is small.** It holds." in text
    assert "- losses: 1.0e-09, 2" in text
    assert "**Finding (y; ours). It is large.** It does not hold." in text
    assert text.rindex("It does not hold") < text.index("It is not.") < text.index("All losses")
    assert "quick run" not in text


def test_the_findings_are_strict_json(tmp_path: Path) -> None:
    write_report(tmp_path, {"experiment": SECTION}, quick=True, versions="Run with torch 3.")
    found = json.loads((tmp_path / "findings.json").read_text())
    assert found["quick"] is True
    _, first, second = found["findings"]
    assert (first["experiment"], first["name"], first["holds"]) == ("experiment", "x", True)
    assert (first["learner"], first["summary"]) == ("ours", "1e-9")
    assert first["numbers"] == {"loss": 1e-9, "losses": [1e-9, 2.0]}
    assert second["numbers"] == {"loss": None}
    assert "quick run" in (tmp_path / "report.md").read_text()


def test_the_tables_are_written_as_csv(tmp_path: Path) -> None:
    paths = write_report(
        tmp_path, {"experiment": SECTION}, quick=False, versions="Run with torch 3."
    )
    with (tmp_path / "tables" / "losses.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["seed", "loss"], ["0", "0.25"]]
    assert tmp_path / "tables" / "losses.csv" in paths
