"""The first table: this project beside other solvers on the paper's problem."""

from dataclasses import dataclass

from benchmarks.judge import judge, judge_gradients
from benchmarks.measure import Timing, interleaved, timed
from benchmarks.options import Options
from benchmarks.problems import PROBLEMS, PaperProblem
from benchmarks.report import Table, console
from benchmarks.rivals.available import NATIVE, available
from benchmarks.rivals.base import Rival

COLUMNS = (
    "system", "batch", "solver", "forward [ms]", "best [ms]", "runs", "with backward [ms]",
    "us a solve", "times slower", "mean cost", "worst residual", "share <= 1e-5",
)  # fmt: skip
GROUPS = {"params": "physical", "x0": "start state", "q": "cost quadratic", "p": "cost linear"}
GRADIENT_COLUMNS = (
    "system", "solver", "states compared",
    *(f"{label}, {which}" for label in GROUPS.values() for which in ("median", "worst")),
)  # fmt: skip
CALL_LIMIT = 60.0  # a batch that would take longer is left out [s]
QUICK_CALL_LIMIT = 15.0
LEFT_OUT_WHEN_QUICK = ("CasADi ipopt", "CasADi sqpmethod+qrqp")


@dataclass
class Entry:
    """A rival, and how long its last batch took [s]."""

    rival: Rival
    last: float
    last_batch: int

    def predicted(self, batch: int) -> float:
        """About how long a batch will take [s]; batched solvers grow less than in proportion."""
        return self.last * float((batch / self.last_batch) ** 0.75)


def compare(options: Options) -> list[Table]:
    """Times, costs and residuals for every batch size; errors of the gradient."""
    rivals, missing = available()
    if options.quick:
        rivals = [rival for rival in rivals if rival.name not in LEFT_OUT_WHEN_QUICK]
    for line in missing:
        console.print(line)
    times = Table("comparison", "The paper's problem, horizon 20, one thread", COLUMNS)
    errors = Table("gradients", "Relative error of the gradient, by finite differences",
                   GRADIENT_COLUMNS)  # fmt: skip
    for problem in PROBLEMS:
        entries = [_warmed_up(rival, problem) for rival in rivals]
        for batch in (1, 128) if options.quick else (1, 32, 128, 1024):
            _compare_batch(options, problem, batch, entries, times)
        for entry in entries:
            _add_gradients(options, problem, entry, errors)
    return [times, errors]


def _warmed_up(rival: Rival, problem: PaperProblem) -> Entry:
    """The rival after its first solve and gradient, when what it compiles is compiled."""
    ready = rival.prepare(problem, problem.start_states(1, 0))
    ready.forward()
    ready.forward_backward()
    timing = Timing()
    return Entry(rival, timed(ready.forward, timing), 1)


def _call_limit(options: Options) -> float:
    return QUICK_CALL_LIMIT if options.quick else CALL_LIMIT


def _compare_batch(
    options: Options, problem: PaperProblem, batch: int, entries: list[Entry], table: Table
) -> None:
    x_init = problem.start_states(batch, options.seed)
    tasks, prepared = {}, {}
    for entry in entries:
        if entry.predicted(batch) > _call_limit(options):
            console.print(f"{entry.rival.name} is left out for {problem.name}, batch {batch}: slow")
            continue
        ready = prepared[entry.rival.name] = entry.rival.prepare(problem, x_init)
        tasks[entry.rival.name, "forward"] = ready.forward
        tasks[entry.rival.name, "backward"] = ready.forward_backward
    console.print(f"{problem.name}, batch {batch} ...")
    timings = interleaved(tasks, 0.2 if options.quick else 1.5)
    ours = timings[NATIVE, "forward"]
    for entry in entries:
        name = entry.rival.name
        if name not in prepared:
            continue
        forward: Timing = timings[name, "forward"]
        entry.last, entry.last_batch = forward.median, batch
        verdict = judge(problem, x_init, prepared[name].controls(forward.result))
        table.add(
            problem.name, batch, name, forward.median * 1e3, forward.best * 1e3,
            len(forward.samples), timings[name, "backward"].median * 1e3,
            forward.median / batch * 1e6, forward.median / ours.median, verdict.mean_cost,
            verdict.worst_residual, verdict.stationary,
        )  # fmt: skip


def _add_gradients(options: Options, problem: PaperProblem, entry: Entry, table: Table) -> None:
    if entry.predicted(64) > _call_limit(options):
        return
    U, gradients = entry.rival.gradients(problem, problem.reference("x_init"))
    verdicts = [judge_gradients(problem, U, gradients, group) for group in GROUPS]
    found = [error for verdict in verdicts for error in (verdict.median, verdict.worst)]
    table.add(problem.name, entry.rival.name, verdicts[0].compared, *found)
