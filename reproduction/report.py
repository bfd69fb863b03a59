"""The report: Markdown with plots, the findings as JSON, tables as CSV."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.table

from mpc_gym.experiments.tables import shown
from mpc_gym.files import write
from reproduction.section import Finding, Section

REPORT = "report.md"
FINDINGS = "findings.json"
TABLES = "tables"
IMAGES = "images"

INTRODUCTION = """\
# The experiments of "Differentiable MPC for End-to-end Planning and Control"

B. Amos, I. Rodriguez, J. Sacks, B. Boots, J. Z. Kolter, NeurIPS 2018,
[arXiv:1810.13400](https://arxiv.org/abs/1810.13400), section 5, run again with `mpc-gym reproduce`.
Lines in the plots are medians over the seeds, bands reach from the lowest to the highest, and
where every seed has its own line the title says so."""
QUICK = """\
**This is a quick run, with few seeds and steps. It shows that everything works; what its numbers
say about the findings means nothing.**"""


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
    texts = {
        folder / REPORT: _report(sections, quick, versions),
        folder / FINDINGS: json.dumps(_data(sections, quick), indent=2, allow_nan=False) + "\n",
    }
    for section in sections.values():
        for table in section.tables:
            texts[folder / TABLES / f"{table.name}.csv"] = table.csv()
    for path, text in texts.items():
        write(path, text)
    return list(texts)


def findings_table(sections: Mapping[str, Section]) -> rich.table.Table:
    """The findings for a terminal."""
    table = rich.table.Table()
    for heading in ("", "finding", "holds"):
        table.add_column(heading)
    for section in sections.values():
        for finding in section.findings:
            table.add_row(finding.name, finding.statement, "yes" if finding.holds else "no")
    return table


def _data(sections: Mapping[str, Section], quick: bool) -> dict[str, Any]:
    findings = [
        {"experiment": name, **vars(finding)}
        for name, section in sections.items()
        for finding in section.findings
    ]
    return {"quick": quick, "findings": _finite(findings)}


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
    findings = [finding for section in sections.values() for finding in section.findings]
    parts = [INTRODUCTION, *([QUICK] if quick else []), "## Findings", _overview(findings)]
    for section in sections.values():
        parts += [f"## {section.title}", section.text.strip()]
        parts += map(_finding, section.findings)
        parts += [table.markdown() for table in section.tables]
    about = "Each run's folder holds its settings, versions, metrics and TensorBoard events."
    parts.append(f"---\n\n{versions} {about}")
    return "\n\n".join(parts) + "\n"


def _overview(findings: Sequence[Finding]) -> str:
    rows = [f"| {each.name} | {each.statement} | {_verdict(each)} |" for each in findings]
    return "\n".join(["| | finding | holds |", "| --- | --- | --- |", *rows])


def _finding(finding: Finding) -> str:
    numbers = "\n".join(f"- {name}: {_number(value)}" for name, value in finding.numbers.items())
    verdict = "It holds." if finding.holds else "It does not hold."
    claim = f"**Finding ({finding.name}). {finding.statement}** {verdict}"
    parts = [claim, numbers, finding.diagnosis]
    return "\n\n".join(part for part in parts if part)


def _verdict(finding: Finding) -> str:
    return "yes" if finding.holds else "**no**"


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_number(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_number, value))
    return shown(value)
