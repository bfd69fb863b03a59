"""What the imitation of an expert that cannot be realized shows."""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mpc_gym.experiments.plots import Line, draw_lines, make_figure, save_figure
from mpc_gym.experiments.tables import Table, picture, shown
from reproduction.section import Finding, Section

Result = dict[str, Any]

SYSID, EXACT, ROUGH = ("sysid", "exact"), ("mpc.dx", "exact"), ("mpc.dx", "gauss-newton")
TITLES = {SYSID: "sysid", EXACT: "mpc.dx", ROUGH: "mpc.dx, gauss-newton"}
END = 50  # epochs at the end whose mean counts: a constant rate leaves noise
TEXT = """\
The expert's pendulum has friction and stands in wind, the learner's has neither, so no gravity,
mass and length make the learner's plans the expert's. Both methods begin with the same physics
around (5, 1, 1). `sysid` comes to predict best, `mpc.dx` to plan most like the expert. The curves
are of the 100 plans learned from, each planned from nothing; 1,000 others are planned with the last
model. None is chosen by its loss.

{curves}"""


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, a plot and a table.

    Args:
        results: of the runs, by their names.
        images: folder for the plot.
    """
    groups = {
        key: sorted(
            (r for r in results.values() if (r["method"], r["hessian"]) == key),
            key=lambda result: int(result["seed"]),
        )
        for key in TITLES
    }
    path = images / "nonrealizable.png"
    _plot(groups, path)
    title = "Imitation and model loss of the plans learned from, over the epochs"
    text = TEXT.format(curves=picture(path, title))
    findings = [
        _finding(groups[SYSID], groups[EXACT]),
        _fresh_finding(groups[SYSID], groups[EXACT]),
        _hessian_finding(groups),
    ]
    return Section("Non-realizable expert (section 5.4)", text, findings, [_table(groups)])


def _at_end(result: Result, name: str) -> float:
    """The mean over the last epochs of a curve."""
    epochs = np.array(result["epoch"])
    return float(np.mean(np.array(result[name])[epochs > epochs[-1] - END]))


def _finding(fitted: list[Result], imitated: list[Result]) -> Finding:
    losses = {
        name: [[_at_end(result, name) for result in group] for group in (fitted, imitated)]
        for name in ("imitation_loss", "model_loss")
    }
    closer = [i < f for f, i in zip(*losses["imitation_loss"], strict=True)]
    worse = [i > f for f, i in zip(*losses["model_loss"], strict=True)]
    failed = [
        str(result["seed"])
        for result, *good in zip(imitated, closer, worse, strict=True)
        if not all(good)
    ]
    return Finding(
        name="d",
        statement="Where the expert is not realizable, mpc.dx comes to a lower imitation loss than "
        "sysid in every seed, though to a worse state-prediction loss, on the plans learned from.",
        holds=not failed,
        numbers={
            "seeds": len(closer),
            "seeds with a lower imitation loss": sum(closer),
            "seeds with a higher model loss": sum(worse),
            **{
                f"{name.replace('_', ' ')}, {method}": values
                for name, both in losses.items()
                for method, values in zip(("sysid", "mpc.dx"), both, strict=True)
            },
        },
        diagnosis=f"Not so in seeds {', '.join(failed)}." if failed else "",
    )


def _fresh_finding(fitted: list[Result], imitated: list[Result]) -> Finding:
    """Whether it also holds beyond the plans learned from."""
    pairs = [
        (f["last_test_loss"], i["last_test_loss"]) for f, i in zip(fitted, imitated, strict=True)
    ]
    closer = sum(i < f for f, i in pairs)
    medians = [median(values) for values in zip(*pairs, strict=True)]
    learned = median(_at_end(result, "imitation_loss") for result in imitated)
    holds = closer == len(pairs)
    return Finding(
        name="d, fresh plans",
        statement="It does so on 1,000 other plans, too, in every seed.",
        holds=holds,
        numbers={
            "seeds": len(pairs),
            "seeds with a lower imitation loss": closer,
            "imitation losses, sysid": [f for f, _ in pairs],
            "imitation losses, mpc.dx": [i for _, i in pairs],
        },
        diagnosis=""
        if holds
        else f"The median loss of mpc.dx is {shown(learned)} on the plans that it learned from and "
        f"{shown(medians[1])} on others, that of sysid {shown(medians[0])} there. Most controls "
        "sit at a limit whatever the model is, so a few of the 100 plans, whose controls switch at "
        "another time, decide what mpc.dx learns: it fits these, and gains little elsewhere.",
    )


def _hessian_finding(groups: dict[tuple[str, str], list[Result]]) -> Finding:
    exact, rough = groups[EXACT], groups[ROUGH]
    pairs = [
        (_at_end(e, "imitation_loss"), _at_end(g, "imitation_loss"))
        for e, g in zip(exact, rough, strict=True)
    ]
    wins = sum(e < g for e, g in pairs)
    medians = [median(values) for values in zip(*pairs, strict=True)]
    return Finding(
        name="exact, non-realizable",
        statement="Where the expert is not realizable, exact gradients come to a lower "
        "imitation loss of the plans learned from than Gauss-Newton's, in more than half of the "
        "seeds.",
        holds=2 * wins > len(exact),
        numbers={
            "seeds": len(exact),
            "exact is lower": wins,
            "median, exact": medians[0],
            "median, Gauss-Newton": medians[1],
        },
        diagnosis=""
        if 2 * wins > len(exact)
        else f"The medians are {shown(medians[0])} and {shown(medians[1])}: what separates the "
        "model class from the expert is larger than what separates the gradients.",
    )


def _table(groups: dict[tuple[str, str], list[Result]]) -> Table:
    rows: list[list[str | float | bool | None]] = []
    for (method, hessian), group in groups.items():
        for r in group:
            learned = [
                r["parameters"][f"dynamics.{name}"] for name in ("gravity", "mass", "length")
            ]
            gravity, mass, length = learned
            motion = [gravity / length, 1 / (mass * length**2)]
            losses = [_at_end(r, "imitation_loss"), r["last_test_loss"], _at_end(r, "model_loss")]
            rows.append([method, hessian, r["seed"], *losses, *motion])
    columns = (
        "method",
        "Hessian",
        "seed",
        "imitation loss",
        "imitation loss, fresh plans",
        "model loss",
        "gravity / length",
        "1 / (mass length^2)",
    )
    title = "Losses at the end, and the physics that imitates best (the expert's are 10 and 1)"
    return Table("nonrealizable", title, columns, rows)


def _plot(groups: dict[tuple[str, str], list[Result]], path: Path) -> None:
    figure, panels = make_figure(2)
    for axes, (key, title) in zip(
        panels,
        {"imitation_loss": "Imitation loss", "model_loss": "Model loss"}.items(),
        strict=True,
    ):
        axes.set(yscale="log", xlabel="epoch", ylabel="loss")
        axes.set_title(title)
        draw_lines(
            axes,
            [
                Line(name, group[0]["epoch"], np.array([r[key] for r in group]), colour)
                for colour, (name, group) in enumerate(
                    (TITLES[variant], group) for variant, group in groups.items()
                )
            ],
        )
    # the loss falls by less than two powers of ten
    panels[0].set_yticks((0.1, 0.2, 0.5, 1.0, 2.0), ("0.1", "0.2", "0.5", "1", "2"))
    save_figure(figure, path)
