"""What an experiment of the paper says in the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mpc_gym.experiments.tables import Table


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, and what came out.

    Args:
        name: unique in the report, for instance "a" or "b, pendulum".
        statement: the claim, in one sentence.
        holds: whether it came out.
        numbers: what decides it, as JSON data.
        diagnosis: where it does not hold, or not as expected: why. Markdown.
    """

    name: str
    statement: str
    holds: bool
    numbers: dict[str, Any]
    diagnosis: str = ""


@dataclass(frozen=True)
class Section:
    """One experiment in the report.

    Args:
        title: the heading.
        text: Markdown: what was run, its plots (see `picture`) and what they show.
        findings: stated after the text.
        tables: shown after the findings, and written as CSV.
    """

    title: str
    text: str
    findings: Sequence[Finding]
    tables: Sequence[Table] = field(default_factory=tuple)
