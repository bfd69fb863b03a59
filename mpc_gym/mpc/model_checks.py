"""Checks of what dynamics and cost compute, made when a model is first used.

A model must map each row of a batch on its own, and its derivatives by autograd must be those of
its values. Where one of these fails, the solver would find a plan that is not optimal and call it
converged. They are checked at random points near the first start state, and again when a `Watch`
says that they have changed.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from operator import is_, itemgetter

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.compiled.autograd import first_derivatives, second_derivatives
from mpc_gym.compiled.errors import ImpureModule, UnsupportedOperation
from mpc_gym.compiled.trace import captured
from mpc_gym.compiled.watch import Watch
from mpc_gym.functional import LOCK
from mpc_gym.mpc.checks import check_takes_batches
from mpc_gym.mpc.native.generate import check_functions
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import Problem, RowFunction

SPREAD = 0.1  # of the points, relative to 1 + |z|
SPREADS = torch.logspace(-1.0, 1.0, 8, dtype=torch.float64)  # of points between which an `if` lies
SAME = 1e-8  # relative difference up to which two values are the same
WRONG = 0.01  # relative error of a wrong derivative
STEPS = (1e-2, 1e-4, 1e-6)  # of finite differences, relative to 1 + |z|
POINTS = 4
OTHERS = 16  # rows of a plan that are looked at one by one, beside the extreme ones
STAGES = 32  # at most so many stages of a cost are looked at one by one

_RANDOM_OR_COUPLED = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
)
_CALLS = "from call to call"
_OTHERS = "with the other instances of the batch"
_STAGES = "with the states and controls of other stages"
_DIMENSIONS = "with the number of batch dimensions"


class NoSecondDerivative(ValueError):  # noqa: N818  # it reads as what happened
    """Autograd cannot differentiate a model twice; the message names the operation."""


@dataclass(frozen=True)
class _Points:
    """States, controls and contexts of so many instances and stages."""

    x: Float[Tensor, "*rows n_state"]
    u: Float[Tensor, "*rows n_ctrl"]
    context: Float[Tensor, "*rows n_context"] | None

    def map(self, change: Callable[[Tensor], Tensor]) -> "_Points":
        """All three changed in the same way."""
        context = None if self.context is None else change(self.context)
        return _Points(change(self.x), change(self.u), context)

    def at_all_stages(self, stage: int) -> "_Points":
        """The same at every stage, which is as it is at one."""
        return self.map(lambda a: a[:, stage : stage + 1].expand_as(a))

    def replaced(self, index: tuple[Tensor, Tensor], by: "_Points") -> "_Points":
        """The same but for the rows at the index, which are those of others."""
        context = None
        if self.context is not None and by.context is not None:
            context = self.context.index_put(index, by.context)
        return _Points(self.x.index_put(index, by.x), self.u.index_put(index, by.u), context)


class ModelChecks:
    """Checks the model of one controller where it is new to the reference, and remembers it."""

    def __init__(self) -> None:
        self._passed: tuple[tuple[int, ...], tuple[nn.Module, ...], Watch | None] | None = None
        self._traced = True

    def __reduce__(self) -> tuple[type["ModelChecks"], tuple[()]]:
        return ModelChecks, ()

    def check(self, problem: Problem, x_init: Tensor, U: Tensor) -> None:
        """Check a problem that the reference solves.

        Raises:
            ImpureModule: no backend can plan with dynamics or cost.
            ValueError: see `check_derivatives`.
        """
        modules = (problem.f.module, problem.l.module)
        n_context = 0 if problem.context is None else problem.context.shape[-1]
        sizes = (x_init.shape[1], U.shape[2], n_context)
        if self._passed is not None:
            known, owners, watch = self._passed
            same = known == sizes and all(map(is_, owners, modules))
            if same and (watch is None or watch.unchanged()):
                return
        with LOCK:
            check_rows(problem, x_init, U)
            self._traced = check_functions(*modules, *sizes)
            check_derivatives(problem, x_init, U)
            try:
                self._passed = (sizes, modules, Watch(*modules))
            except UnsupportedOperation:  # too large to be compared each time
                self._passed = (sizes, modules, None)

    @torch.no_grad()
    def check_plan(self, problem: Problem, plan: Plan) -> None:
        """Check that rows have their values alone along a plan of the problem checked last.

        An `if` in a model that cannot be traced may have decided for several. One on an entry of
        state or control parts the least and the greatest; these and some others are looked at.

        Raises:
            ImpureModule: the value of a row changes with those of others.
        """
        rows = plan.states.isfinite().flatten(1).all(1).nonzero()[:, 0]
        if self._traced or not len(rows):
            return
        context = None if problem.context is None else problem.context[rows]
        points = _Points(plan.states[rows], plan.controls[rows], context)
        flat, horizon = points.map(lambda a: a.flatten(0, 1)), problem.horizon
        z = torch.cat((flat.x, flat.u), 1)
        others = torch.linspace(0, len(z) - 1, OTHERS, device=z.device).long()
        chosen = torch.cat((z.argmin(0), z.argmax(0), others))
        alone = _one_by_one(problem.f, flat.map(itemgetter(chosen)))
        _require_same("dynamics", problem.f, _OTHERS, _value(problem.f, flat)[chosen], alone)
        here = flat.map(lambda a: a[chosen, None].expand(-1, horizon, -1))
        instances, stages = chosen // horizon, chosen % horizon
        alone = _one_by_one(problem.l, here)[torch.arange(len(chosen)), stages]
        together = _value(problem.l, points)[instances, stages]
        _require_same("cost", problem.l, _STAGES, together, alone)


@torch.no_grad()
def check_rows(problem: Problem, x_init: Tensor, U: Tensor) -> None:
    """Check that dynamics and cost map each row on its own, near the first start state.

    Raises:
        ImpureModule: one does not, or is random.
    """
    _check_every_row("dynamics", problem.f, problem.context, x_init, U)
    _check_cost_rows(problem, x_init, U)


def check_compiled_derivatives(problem: Problem, x_init: Tensor, U: Tensor) -> None:
    """`check_derivatives`, but compiled code needs no second ones from autograd."""
    with suppress(NoSecondDerivative):
        check_derivatives(problem, x_init, U)


@torch.no_grad()
def check_derivatives(problem: Problem, x_init: Tensor, U: Tensor) -> None:
    """Check the derivatives of dynamics and cost by autograd, near the first start state.

    Raises:
        ValueError: one has a derivative that is not that of its values.
        NoSecondDerivative: autograd cannot differentiate it twice.
    """
    near = _near(problem.context, x_init, U, POINTS)
    _check_derivatives("dynamics", problem.f, near.map(lambda a: a[:, 0]), x_init.shape[1])
    _check_derivatives("cost", problem.l, near, None)


def check_constraint(
    name: str, function: RowFunction, x_init: Tensor, U: Tensor, context: Tensor | None
) -> None:
    """Check that constraints map each row of a batch on its own, and their first derivatives.

    Raises:
        ImpureModule: they do not, or are random.
        ValueError: their derivative is not that of their values.
    """
    near = _near(context, x_init, U, POINTS)
    rows = _check_every_row(name, function, context, x_init, U).shape[-1]
    with suppress(NoSecondDerivative):
        _check_derivatives(name, function, near.map(lambda a: a[:, 0]), rows)


def _near(
    context: Tensor | None, x_init: Tensor, U: Tensor, count: int, spread: float | Tensor = SPREAD
) -> _Points:
    """Random points near the first finite start state and its controls, [count, time, .]."""
    generator = torch.Generator().manual_seed(0)
    finite = (x_init.isfinite().all(1) & U.isfinite().flatten(1).all(1)).nonzero()
    row = int(finite[0]) if len(finite) else 0

    def given(a: Tensor) -> Tensor:
        return a[row] if len(a) else a.new_zeros(a.shape[1:])

    X = given(x_init).expand(U.shape[1], -1)
    context = None if context is None else given(context)

    def near(a: Tensor) -> Tensor:
        noise = torch.randn((count, *a.shape), dtype=a.dtype, generator=generator).to(a.device)
        a = a.nan_to_num(posinf=0.0, neginf=0.0)
        return a + spread * (1 + a.abs()) * noise

    return _Points(X, given(U), context).map(near)


def _check_every_row(
    name: str, function: RowFunction, context: Tensor | None, x_init: Tensor, U: Tensor
) -> Tensor:
    """Check a function of a vector at every row; its values near the first stage."""
    near = _near(context, x_init, U, POINTS)
    first = near.map(lambda a: a[:, 0])
    together = _value(function, first)
    _require_same(name, function, _CALLS, _value(function, first), together)
    _require_same(name, function, _OTHERS, _one_by_one(function, first), together)
    flat = _value(function, near.map(lambda a: a.flatten(0, 1)))
    stages = _value(function, near)
    _require_same(name, function, _STAGES, flat.reshape(stages.shape), stages)
    _check_far_apart(name, function, context, x_init, U)
    _check_single(name, function, first, together)
    return together


def _one_by_one(function: RowFunction, at: _Points) -> Tensor:
    """Each instance without the others: twice, since a layer may refuse a single row."""
    each = [_value(function, at.map(itemgetter([i, i])))[0] for i in range(len(at.x))]
    return torch.stack(each)


def _check_far_apart(
    name: str, function: RowFunction, context: Tensor | None, x_init: Tensor, U: Tensor
) -> None:
    """Check instances far from each other, as one may change others only if it is far.

    Where no trace tells what the function does, it is checked along each plan (`check_plan`).
    """
    spreads = SPREADS.to(x_init.device)[:, None, None]
    far = _near(context, x_init, U, len(spreads), spreads)
    over_time = name == "cost"
    far = far.at_all_stages(0) if over_time else far.map(lambda a: a[:, 0])
    try:
        together = _value(function, far)
        compared = [(_OTHERS, _one_by_one(function, far), together)]
        if over_time:
            instances = torch.arange(len(spreads), device=U.device)
            index = (instances, instances % U.shape[1])
            mixed = far.map(lambda a: a.roll(1, 0)).replaced(index, far.map(itemgetter(index)))
            compared.append((_STAGES, _value(function, mixed)[index], together[index]))
    except Exception:  # it need not be defined there, and may say so in its own way
        return
    for changes, found, expected in compared:
        if not _same(found, expected) and _is_traced(function, far):
            _require_same(name, function, changes, found, expected)


def _is_traced(function: RowFunction, at: _Points) -> bool:
    n_context = 0 if at.context is None or not function.takes_context else at.context.shape[-1]
    return captured(function.module, at.x.shape[-1], at.u.shape[-1], n_context) is not None


def _check_cost_rows(problem: Problem, x_init: Tensor, U: Tensor) -> None:
    l = problem.l
    near = _near(problem.context, x_init, U, POINTS)
    first = near.map(itemgetter([0, 0]))  # twice: a layer may refuse a single row
    alone = _value(l, first)
    _require_same("cost", l, _CALLS, _value(l, first), alone)
    _require_same("cost", l, _OTHERS, _value(l, near)[0], alone[0])
    # in each instance one stage is as before, and all others are not
    count = min(problem.horizon, STAGES)
    stages = torch.linspace(0, problem.horizon - 1, count, device=U.device).long()
    index = (torch.arange(count, device=U.device), stages)
    others = _near(problem.context, x_init, U, POINTS + count).map(lambda a: a[POINTS:])
    mixed = others.replaced(index, first.map(lambda a: a[0, stages]))
    _require_same("cost", l, _STAGES, _value(l, mixed)[index], alone[0, stages])
    _check_far_apart("cost", l, problem.context, x_init, U)
    _check_single("cost", l, first.map(lambda a: a[:, 0]), alone[:, 0])


def _check_single(name: str, function: RowFunction, at: _Points, expected: Tensor) -> None:
    """Check that a state without a batch, which a trace is made of, is mapped as one in a batch."""
    single = at.map(itemgetter(0))
    try:
        found = function(single.x, single.u, single.context)
    except Exception:  # then there is no trace, and only batches are evaluated
        return
    if isinstance(found, Tensor) and found.shape == expected[0].shape:
        _require_same(name, function, _DIMENSIONS, found, expected[0])


def _value(function: RowFunction, at: _Points) -> Tensor:
    try:
        value: Tensor = function(at.x, at.u, at.context)
    except (RuntimeError, TypeError, ValueError) as error:
        check_takes_batches(function.module, error)
        named = function.module.named_parameters()
        parameters = ", ".join(f"{name} {list(each.shape)}" for name, each in named)
        raise ImpureModule(
            f"{function.shown_as} must map each row of a batch on its own, but fails "
            f"on states {list(at.x.shape)}: {str(error).splitlines()[0]}. Values that differ from "
            "instance to instance belong into the context, those that differ from stage to stage "
            f"into per_stage_parameters (its parameters: {parameters or 'none'})"
        ) from error
    return value


def _same(found: Tensor, expected: Tensor) -> bool:
    size = expected.abs().nan_to_num(posinf=0.0).amax() if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=SAME, atol=float(SAME * size), equal_nan=True)


def _require_same(
    name: str, function: RowFunction, changes: str, found: Tensor, expected: Tensor
) -> None:
    if _same(found, expected):
        return
    at_fault = [
        f"{path or name} ({type(part).__name__})"
        for path, part in function.module.named_modules()
        if isinstance(part, _RANDOM_OR_COUPLED) and part.training
    ]
    if at_fault:
        remedy = f"{', '.join(at_fault)} is in training mode: call eval() on {name}"
    elif changes == _CALLS:
        remedy = "draw no random numbers in it; noise can be given as a context"
    elif changes == _DIMENSIONS:
        remedy = (
            "do not ask for ndim or shape in it (x[..., i] and dim=-1 fit any batch), nor with an "
            "`if` for the value of a tensor (torch.where chooses for each row)"
        )
    else:
        remedy = (
            "write it without sums, means or differences over the batch or over time (a previous "
            "state or control that it needs can be a part of the state), and without an `if` on a "
            "tensor, which chooses once for all rows: torch.where chooses for each"
        )
    raise ImpureModule(
        f"{name} must map each row of a batch on its own, and the same way at each call, but the "
        f"value of {function.shown_as} at a state and control changes {changes}: {remedy}"
    )


def _check_derivatives(name: str, function: RowFunction, at: _Points, outputs: int | None) -> None:
    """Compare first and second derivatives, along a direction, with finite differences."""
    n = at.x.shape[-1]
    z = torch.cat((at.x, at.u), -1)
    generator = torch.Generator().manual_seed(1)
    along = torch.randn(z.shape, dtype=z.dtype, generator=generator).to(z.device) * (1 + z.abs())

    def g(z: Tensor, context: Tensor | None) -> Tensor:
        return _value(function, _Points(z[..., :n], z[..., n:], context))

    def gradient(z: Tensor, context: Tensor | None) -> Tensor:
        return first_derivatives(g, z, context, outputs=outputs)

    try:
        first, second = second_derivatives(g, z, at.context, outputs=outputs)
    except (RuntimeError, NotImplementedError) as error:
        raise NoSecondDerivative(
            f"{name} cannot be differentiated twice by autograd, which the PyTorch reference "
            f"needs: {str(error).splitlines()[0]}"
        ) from error
    _require_close(name, function, "first", g, first, (z, along, at.context))
    _require_close(name, function, "second", gradient, second, (z, along, at.context))


def _require_close(
    name: str,
    function: RowFunction,
    order: str,
    of: Callable[..., Tensor],
    derivative: Tensor,
    where: tuple[Tensor, Tensor, Tensor | None],
) -> None:
    """Raise if a derivative of `of`, with N as its last axis, is wrong at most of the points.

    At a kink, or where a single step is too long or too short, finite differences are wrong
    themselves.
    """
    z, along, context = where
    inner = (1,) * (derivative.ndim - z.ndim)
    exact = (derivative * along.reshape(*z.shape[:-1], *inner, -1)).sum(-1)
    size = of(z, context).abs().amax()
    wrong, quotients = [], []
    for step in STEPS:
        ahead, behind = of(z + step * along, context), of(z - step * along, context)
        quotient = (ahead - behind) / (2 * step)
        largest = torch.maximum(quotient.abs(), exact.abs())
        allowed = WRONG * largest + 1e-6 * largest.amax() + 1e-12 * size / step
        wrong.append((quotient - exact).abs() > allowed)  # False where one of them is NaN
        quotients.append(quotient)
    entries = torch.stack(wrong).all(0)
    points = entries.reshape(*z.shape[:-1], -1).any(-1)
    if 2 * int(points.sum()) <= points.numel():
        return
    i = entries.flatten().nonzero()[0, 0]
    raise ValueError(
        f"{name}: the {order} derivative of {type(function.module).__name__} by autograd is not "
        f"that of its values ({exact.flatten()[i].item():.6g} along a random direction, "
        f"{quotients[1].flatten()[i].item():.6g} by finite differences), so that a plan would not "
        "be optimal: remove what hides a dependence from autograd in forward (detach, no_grad, "
        ".item(), NumPy) or gives it another derivative (an autograd.Function, straight-through "
        "rounding), or plan with a smooth model"
    )
