"""The report: what the experiments say, in Markdown with plots, findings in JSON, tables in CSV."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rich.table

from mpc_gym.experiments.plots import Line, draw_lines, make_figure, save_figure
from mpc_gym.experiments.tables import Cell, Table, shown
from mpc_gym.files import write

REPORT = "report.md"
FINDINGS = "findings.json"
TABLES = "tables"
IMAGES = "images"

INTRODUCTION = """\
# The experiments of "Differentiable MPC for End-to-end Planning and Control"

B. Amos, I. Rodriguez, J. Sacks, B. Boots, J. Z. Kolter, NeurIPS 2018,
[arXiv:1810.13400](https://arxiv.org/abs/1810.13400), section 5, run again with `make reproduce`.
Every finding is judged for two learners. **The paper's learner** is the paper's and its authors'
program's, as it is, Gauss-Newton derivatives among the rest. **Ours** has the same settings for all
seeds and systems of an experiment, none tuned to a run. In sections 5.3 and 5.4 it is one learner:
exact derivatives, smoothed plans with one schedule of mu, the loss of next states where these are
seen, and a learning rate that falls; the LQR and the closed loop have their own. What concerns one
of them alone has a dash for the other. Lines in the plots are medians over the seeds, bands reach
from the lowest to the highest, and where every seed has its own line the title says so."""
QUICK = """\
**This is a quick run, with few seeds and steps. It shows that everything works; what its numbers
say about the findings means nothing.**"""

Result = dict[str, Any]  # of a run, with its settings
PAPER, OURS = "paper", "ours"  # whose learner: the columns of the findings
COLUMNS = ("", "finding", "the paper's learner", "ours")
TITLES = {PAPER: "the paper's learner", OURS: "ours"}


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, and what came out.

    Args:
        name: for instance "a" or "b, pendulum"; unique in the report for a learner.
        statement: the claim, in one sentence, the same for both learners.
        learner: whose, `PAPER` or `OURS`.
        holds: whether it came out.
        summary: the number that says most, in a few words.
        numbers: what decides it, as JSON data.
        diagnosis: where it does not hold, or not as expected: why. Markdown.
    """

    name: str
    statement: str
    learner: str
    holds: bool
    summary: str
    numbers: dict[str, Any]
    diagnosis: str = ""


@dataclass(frozen=True)
class Section:
    """One experiment in the report.

    Args:
        title: the heading.
        text: Markdown: what was run, its plots (see `picture`) and what they show.
        findings: stated after the text.
        tables: after the findings, and as CSV.
    """

    title: str
    text: str
    findings: Sequence[Finding]
    tables: Sequence[Table] = field(default_factory=tuple)


@dataclass(frozen=True)
class Panel:
    """One panel of a plot, with a logarithmic y axis.

    Args:
        title: above it.
        xlabel, ylabel: of the axes.
        lines: medians and bands over the seeds.
        ticks: of a logarithmic x axis; none for a linear one.
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    ticks: Sequence[int] = ()


def plot(path: Path, panels: Sequence[Panel], y_ticks: Sequence[float] = ()) -> None:
    """Write panels side by side as a picture.

    Args:
        path: of the picture.
        panels: from left to right.
        y_ticks: of the first panel, where its values span less than two powers of ten.
    """
    figure, places = make_figure(len(panels))
    for axes, panel in zip(places, panels, strict=True):
        axes.set(xscale="log" if panel.ticks else "linear", yscale="log")
        axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
        axes.set_title(panel.title)
        draw_lines(axes, panel.lines)
        if panel.ticks:
            axes.set_xticks(panel.ticks, [str(tick) for tick in panel.ticks])
    if y_ticks:
        places[0].set_yticks(y_ticks, [f"{tick:g}" for tick in y_ticks])
    save_figure(figure, path)


def make_table(name: str, title: str, rows: Sequence[Mapping[str, Cell]]) -> Table:
    """A table of rows that all have the same columns."""
    return Table(name, title, tuple(rows[0]), [list(row.values()) for row in rows])


def write_report(
    folder: Path, sections: Mapping[str, Section], quick: bool, versions: str
) -> list[Path]:
    """Write the report, and what can be read by a program.

    Args:
        folder: where the folder of images is.
        sections: by the names of the experiments.
        quick: whether the numbers mean nothing.
        versions: with which the runs were done.

    Returns:
        The files written.
    """
    findings = [
        {"experiment": name, **vars(finding)}
        for name, section in sections.items()
        for finding in section.findings
    ]
    data = {"quick": quick, "findings": _finite(findings)}
    texts = {
        folder / REPORT: _report(sections, quick, versions),
        folder / FINDINGS: json.dumps(data, indent=2, allow_nan=False) + "\n",
    }
    for section in sections.values():
        for table in section.tables:
            texts[folder / TABLES / f"{table.name}.csv"] = table.csv()
    for path, text in texts.items():
        write(path, text)
    return list(texts)


def findings_table(sections: Mapping[str, Section]) -> rich.table.Table:
    """The findings for a terminal."""
    table = rich.table.Table(*COLUMNS)
    for row in _overview(sections):
        table.add_row(*row)
    return table


def _overview(sections: Mapping[str, Section]) -> list[tuple[str, str, str, str]]:
    """A row for each claim: its name and words, and what came out for either learner."""
    claims: dict[str, dict[str, Finding]] = {}
    for section in sections.values():
        for finding in section.findings:
            claims.setdefault(finding.name, {})[finding.learner] = finding
    rows = []
    for name, by_learner in claims.items():
        (statement,) = {each.statement for each in by_learner.values()}
        paper, ours = (
            f"{shown(by_learner[learner].holds)}: {by_learner[learner].summary}"
            if learner in by_learner
            else "-"
            for learner in TITLES
        )
        rows.append((name, statement, paper, ours))
    return rows


def _finite(data: Any) -> Any:
    """The data with None for infinity and for what is no number, which JSON does not have."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {name: _finite(each) for name, each in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(each) for each in data]
    return data


def _report(sections: Mapping[str, Section], quick: bool, versions: str) -> str:
    overview = [f"| {' | '.join(COLUMNS)} |", "| --- | --- | --- | --- |"]
    overview += [f"| {' | '.join(row)} |" for row in _overview(sections)]
    parts = [INTRODUCTION, *([QUICK] if quick else []), "## Findings", "\n".join(overview)]
    for section in sections.values():
        parts += [f"## {section.title}", section.text.strip()]
        parts += map(_finding, section.findings)
        parts += [table.markdown() for table in section.tables]
    about = "Each run's folder holds its settings, versions, metrics and TensorBoard events."
    parts.append(f"---\n\n{versions} {about}")
    return "\n\n".join(parts) + "\n"


def _finding(finding: Finding) -> str:
    numbers = "\n".join(f"- {name}: {_number(value)}" for name, value in finding.numbers.items())
    verdict = "It holds." if finding.holds else "It does not hold."
    whose = TITLES[finding.learner]
    claim = f"**Finding ({finding.name}; {whose}). {finding.statement}** {verdict}"
    return "\n\n".join(part for part in (claim, numbers, finding.diagnosis) if part)


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_number(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_number, value))
    return shown(value)
