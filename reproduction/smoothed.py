"""Whether smoothed plans free learners that are stuck (Amos et al., 2018, section 5.3).

From 10 plans of the pendulum, learners through the plan (`mpc.dx`) come to rest where most controls
of the wrong model's plans are at their limits, and have no gradient. Here their training plans are
smoothed at first. Two things differ from the paper's learner, each tried without the other: the
smoothing, and five steps an epoch in the place of one batch of all plans. Settings are otherwise
those of `nonconvex` with a falling learning rate, and learning never ends early. Smoothing and
steps were chosen by validation losses of the seeds 0 to 23.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from mpc_gym.experiments.runs import Run
from mpc_gym.experiments.tables import picture, shown
from mpc_gym.imitation import FallingSmoothing
from reproduction.learning import (
    BATCH,
    SMALL,
    SYSID,
    ImitationLoss,
    ModelLoss,
    learn,
    make_planner,
    never,
)
from reproduction.nonconvex_section import BEST, EPOCHS, LEVEL, curves
from reproduction.problems import PENDULUM, expert_plans
from reproduction.report import Finding, Panel, Result, Section, make_table, plot

__all__ = ["run", "runs", "section"]

SEEDS = 8
FEW, MORE = 10, (50, 100)  # demonstrations
QUICK_EPOCHS = 40
MUS = (10.0, 1e-4)  # first and last
SMOOTHED = 0.3  # of the epochs
FREE = 1e-3  # a learner with a lower test loss is not stuck

# By their names in the report: method, smoothed by, steps an epoch.
DX, DX_STEPS, DX_SMOOTHED = "mpc.dx", "mpc.dx, five steps", "mpc.dx smoothed, one step"
BOTH = "mpc.dx smoothed"
LEARNERS: dict[str, tuple[str, tuple[float, float] | None, int]] = {
    SYSID: (SYSID, None, 1),
    DX: ("mpc.dx", None, 1),
    DX_STEPS: ("mpc.dx", None, 5),
    DX_SMOOTHED: ("mpc.dx", MUS, 1),
    BOTH: ("mpc.dx", MUS, 5),
}
TEXT = """\
Of the learners of the last section that see 10 plans of the pendulum, some come to rest where most
controls of their plans are at their limits, which have no gradient. Here the plans that `mpc.dx`
is trained by are smoothed (`MPC(smoothing=mu)`, a logarithmic barrier): mu falls from {first:g} to
{last:g} in the first {percent:.0f} % of the {epochs:,} epochs. After that the plans are plain ones,
as in validation and test throughout, since the smoothed plan of the expert's own model is not what
the expert did.

Smoothing alone is not enough: with one batch an epoch there are too few steps. RMSprop moves each
number by about the rate, 0.01, in a step, so that some 250 steps lead from the physics that is
given to where the motion fits, and by then mu has nearly fallen. After that, some sets of 10
plans hardly tell apart the two numbers that move a pendulum, gravity / length and
1 / (mass length²): the curvature of the loss is hundreds of times smaller along one direction than
along another. So `{both}` takes five steps an epoch, of a fifth of the plans each. Each of the
two changes is also tried alone. The learning rate falls in the second half, for all. Schedule and
steps were chosen by validation losses of the seeds 0 to 23, those of a run from seed 0 among them;
what fresh ones say is in the documentation of imitation.

{picture}"""


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """All learners from few plans; the smoothed one, beside `sysid`, from more.

    Quick: one seed, and few plans and epochs.
    """
    tried = [(learner, FEW) for learner in LEARNERS]
    if not quick:
        tried += [(learner, count) for learner in (SYSID, BOTH) for count in MORE]
    epochs = QUICK_EPOCHS if quick else EPOCHS
    return [
        Run(
            f"smoothed/{learner}/plans-{count}/seed-{each}",
            f"{__name__}:run",
            {"learner": learner, "demonstrations": count, "seed": each, "epochs": epochs},
        )
        for learner, count in tried
        for each in range(seed, seed + (1 if quick else SEEDS))
    ]


def run(folder: Path, learner: str, demonstrations: int, seed: int, epochs: int) -> Result:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        learner: one of `LEARNERS`.
        demonstrations: the expert's plans to learn from.
        seed: of the start states and the order of learning.
        epochs: in the second half of which the learning rate falls.

    Returns:
        The settings, and what `learn` returns.
    """
    settings = {name: value for name, value in locals().items() if name != "folder"}
    method, mus, steps = LEARNERS[learner]
    plans = expert_plans(PENDULUM, seed)
    mpc = make_planner(PENDULUM, method, "exact", starts=1)
    smoothing = None if mus is None else FallingSmoothing(*mus, max(round(SMOOTHED * epochs), 1))
    imitates = method != SYSID
    loss = ImitationLoss(mpc, plans, smoothing=smoothing) if imitates else ModelLoss(mpc, plans)
    rows = (plans.training(demonstrations), plans.validation)
    batch = min(-(-demonstrations // steps), BATCH)
    found = learn(folder, loss, *rows, epochs, never, settings, epochs // 2, batch)
    return {**settings, **found}


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, a plot and a table."""
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results.values():
        groups.setdefault((result["learner"], result["demonstrations"]), []).append(result)
    path = images / "smoothed.png"
    panels = []
    for title, learners in (("one step", (DX, DX_SMOOTHED)), ("five steps", (DX_STEPS, BOTH))):
        lines = curves({learner: groups[learner, FEW] for learner in learners})
        panels.append(Panel(f"pendulum, {FEW} plans, {title} an epoch", "epoch", BEST, lines))
    plot(path, panels)
    text = TEXT.format(
        first=MUS[0],
        last=MUS[1],
        percent=100 * SMOOTHED,
        epochs=groups[BOTH, FEW][0]["epochs"],
        both=BOTH,
        picture=picture(path, f"Best validation loss so far from {FEW} plans of the pendulum"),
    )
    losses = {key: [result["test_loss"] for result in group] for key, group in groups.items()}
    findings = [_free_finding(losses), _sysid_finding(losses)]
    title = "Test imitation loss on the pendulum over the seeds, falling rate"
    table = make_table("smoothed", title, list(_rows(losses)))
    return Section("Smoothed learners", text, findings, [table])


Losses = dict[tuple[str, int], list[float]]  # of the test, by learner and demonstrations


def _rows(losses: Losses) -> Iterator[dict[str, Any]]:
    for (learner, count), values in losses.items():
        yield {
            "learner": learner,
            "plans": count,
            "median": median(values),
            "lowest": min(values),
            "highest": max(values),
            f"below {FREE:g}": f"{_free(values)} of {len(values)}",
        }


def _free(losses: list[float]) -> int:
    return sum(loss < FREE for loss in losses)


def _free_finding(losses: Losses) -> Finding:
    """Whether all smoothed learners come near the expert."""
    few = {learner: values for (learner, count), values in losses.items() if count == FEW}
    return Finding(
        name="smoothed",
        statement=f"From {FEW} plans of the pendulum, every mpc.dx that learns through smoothed "
        f"plans, in five steps an epoch, reaches a test imitation loss below {FREE:g}.",
        holds=_free(few[BOTH]) == len(few[BOTH]),
        numbers={
            learner: {
                f"seeds below {FREE:g}": _free(values),
                "seeds": len(values),
                "median test loss": median(values),
                "test losses": values,
            }
            for learner, values in few.items()
        },
    )


def _sysid_finding(losses: Losses) -> Finding:
    """Whether the smoothed learner is level with what fits the motion."""
    numbers, apart = {}, []
    for (learner, count), values in losses.items():
        if learner != BOTH:
            continue
        medians = {SYSID: median(losses[SYSID, count]), BOTH: median(values)}
        ratio = max(medians[SYSID], SMALL) / max(medians[BOTH], SMALL)
        numbers[f"{count} plans"] = {**medians, "ratio": ratio}
        if not 1 / LEVEL <= ratio <= LEVEL:
            apart.append(f"{count} plans ({SYSID} / {BOTH} = {shown(ratio)})")
    return Finding(
        name="c, smoothed",
        statement="On the pendulum, sysid and an mpc.dx that learns through smoothed plans, in "
        "five steps an epoch, are level when the learning rate falls: their median test imitation "
        f"losses are within a factor of {LEVEL:.0f} (what is below {SMALL:.0e} counts as that).",
        holds=not apart,
        numbers=numbers,
        diagnosis=f"Apart: {'; '.join(apart)}." if apart else "",
    )
