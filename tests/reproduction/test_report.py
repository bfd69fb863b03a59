import csv
import json
from pathlib import Path

from mpc_gym.experiments.tables import Table
from reproduction.report import Finding, Section, write_report

SECTION = Section(
    title="An experiment",
    text="What was run.",
    findings=[
        Finding("x", "It is small.", True, {"loss": 1e-9, "losses": [1e-9, 2.0]}),
        Finding("y", "It is large.", False, {"loss": float("inf")}, "It is not."),
    ],
    tables=[Table("losses", "All losses", ("seed", "loss"), [[0, 0.25]])],
)


def test_the_report_states_each_finding_with_its_numbers_and_whether_it_holds(
    tmp_path: Path,
) -> None:
    write_report(tmp_path, {"experiment": SECTION}, quick=False, versions="Run with torch 3.")
    text = (tmp_path / "report.md").read_text()
    assert "| x | It is small. | yes |" in text
    assert "| y | It is large. | **no** |" in text
    assert "**Finding (x). It is small.** It holds." in text
    assert "- losses: 1.0e-09, 2" in text
    assert "**Finding (y). It is large.** It does not hold." in text
    assert text.index("It does not hold") < text.index("It is not.") < text.index("All losses")
    assert "quick run" not in text


def test_the_findings_are_strict_json(tmp_path: Path) -> None:
    write_report(tmp_path, {"experiment": SECTION}, quick=True, versions="Run with torch 3.")
    found = json.loads((tmp_path / "findings.json").read_text())
    assert found["quick"] is True
    first, second = found["findings"]
    assert (first["experiment"], first["name"], first["holds"]) == ("experiment", "x", True)
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
