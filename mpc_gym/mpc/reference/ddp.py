"""Box-constrained differential dynamic programming, in readable PyTorch.

Solves the problem stated in `problem.py` after Tassa, Mansard & Todorov (2014), "Control-limited
differential dynamic programming", ICRA, with the exact second derivatives of the dynamics. With
v, V the gradient and Hessian of the value at stage t + 1 and F = [A B] the Jacobian of f,

    q = grad l + F' v,    Q = hess l + F' V F + sum_i v_i hess f_i,

each stage minimises 1/2 k' Q_uu k + q_u' k within the bounds; K = -Q_uu^-1 Q_ux on the controls
that are free there and zero on the clamped ones. The forward pass applies
u + alpha k + K (x_new - x), clipped, for the first alpha in 1, 1/2, 1/4 ... that decreases the
cost enough; a control that k moves to a bound nearby arrives there at once. Where Q_uu is not
positive definite or no alpha does, the iteration is done again without the last term of Q
(Gauss-Newton), and only then with Q_uu + mu diag(s), where s_i = |Q_uu,ii| + |q_u,i| / range_i.
Without that term the program is curved more than the cost, whose own curvature may be negative:
where such a step finds the cost falling as along a straight line, the next one begins at an alpha
twice as long. Where that, too, comes to an end, or its steps become small, although the exact
program is not convex, the iteration leaves along negative curvature (`escape.py`).

Every instance of the batch has its own step length, mode and regularisation. It has converged when
a full step of the exact, undamped, convex program

- moves no control by more than the tolerance, relative to the size of that control and to the range
  of its bounds, as it is taken: with feedback, and clipped;
- promises a decrease -q_u' k, which measures the gradient in the metric of the Hessian, of no more
  than tolerance^1.5 of the size of the cost's terms (it is quadratic in the error of a control, but
  tolerance^2 would ask for less than rounding leaves);
- starts from a gradient q_u whose product with the controls is small beside the cost's terms, which
  it is not where controls have run away so far that rounding makes up their curvature;
- and changes the cost as promised, but for rounding;

and the cost of the controls it leads to is the same where they and the start state are off by a few
roundings. A system that runs away amplifies these over a long horizon, until the cost of the
controls alone is that of no other rollout; then it has to be the same with the plan's own gains,
which act against what roundings do as those of the iterations did. States and controls of such a
plan are an optimum together, which is what it is differentiated at.

As that step is taken, the error that is left is quadratic in the tolerance. Nothing here depends on
the units of cost, states or controls. Everything is built from differentiable operations, so that
autograd through the iterations ("unrolled" differentiation) works too.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import Expansion, Problem
from mpc_gym.mpc.reference.escape import ESCAPE_LENGTHS, downwards, failed_stage, move_length
from mpc_gym.mpc.reference.gains import Gains, backward_pass
from mpc_gym.mpc.reference.progress import (
    IDLE_GAIN,
    MU_FACTOR,
    MU_MAX,
    MU_MIN,
    SETTLED,
    STEP,
    STRAIGHT,
    STUCK,
    Progress,
)

STEP_LENGTHS = tuple(0.5**i for i in range(10))
SUFFICIENT_DECREASE = 1e-4
SHORTER = tuple(0.5**i for i in range(1, len(STEP_LENGTHS) + 6))  # from the longest step, too
# Of its range. A control that is to move to a bound as near as this arrives there whatever alpha:
# as long as it only comes closer, the exact program may be curved downwards along it, and no Newton
# step is taken. Measured on ten systems: 0.1 is nearly as good, 1 is bad (0.001 is nearly as good,
# on three of them). A network fitted to a cart-pole converges from all of 1,024 start states
# instead of 89 %.
NEAR_BOUND = 0.01
# By how much of it the change of the cost may differ from that of the quadratic. The curvature of
# Gauss-Newton may be far larger than the true one: then the change is nearly double.
FORESEEN, FORESEEN_GAUSS_NEWTON = 0.1, 1.0
NEGLIGIBLE = 1e-22  # of that size: a decrease so small that controls count as settled at zero
# Change of start state and controls, relative to them: eight roundings, as in any other rollout;
# and how far the cost may follow, relative to the size of its terms.
NUDGE, REPRODUCED = 2.0**-49, 1e-9
PULL = 1e-3  # of that size: a gradient so small that it vanishes beside the terms it is summed from
MU_SETTLED = 1.0  # the largest mu with which a small step says that the gradient is small


def solve(
    problem: Problem,
    x_init: Float[Tensor, "batch n_state"],
    U: Float[Tensor, "batch time n_ctrl"],
    *,
    exact: bool,
    tolerance: float,
    max_iterations: int,
    kinked: bool = False,
) -> Plan:
    """Minimise from the controls U (within the bounds).

    An instance whose cost is not finite from there is returned as it is, after 0 iterations.

    Args:
        exact: use the second derivatives of the dynamics; otherwise Gauss-Newton throughout, and
            what is known of negative curvature is that of the Gauss-Newton Hessian.
        tolerance: see the top of this file.
        max_iterations: after which an instance is given up as not converged.
        kinked: give up sooner where a step gains nothing (see `progress.py`).
    """
    X = problem.rollout(x_init, U)
    cost = problem.total_cost(X, U)
    no = torch.zeros(len(cost), dtype=torch.bool, device=U.device)
    plan = Plan(X, U, cost, converged=no, iterations=no.long())
    mu = torch.zeros_like(cost, requires_grad=False)
    now = Progress(
        plan,
        no | exact,
        mu,
        torch.ones_like(mu),
        no.long(),
        cost.isfinite(),
        no.long(),
        kinked,
    )
    while bool(now.active.any()):
        active = now.active.nonzero()[:, 0]
        rows, found = problem.rows(active), now.plan.rows(active)
        expansion = rows.expand(found.states, found.controls, second_order=exact)
        gains, mode, mu = _convex_gains(rows, expansion, found, now, active)
        now.second_order[active], now.mu[active] = mode, mu
        usable, aim = gains.usable, now.aim[active]
        now.look_down(active[~usable & (aim == STEP)], STUCK, exact)
        over = ((aim == STUCK) & usable) | (
            ((aim != STEP) | usable) & (found.iterations == max_iterations)
        )
        now.finish(active[over], converged=False)
        step = (usable & ~over).nonzero()[:, 0]
        _take_step(problem, now, active[step], gains.rows(step), exact, tolerance)
        leave = (~usable & (aim != STEP) & ~over).nonzero()[:, 0]
        _leave(problem, now, active[leave], gains.rows(leave), exact)
    return now.plan


def _convex_gains(
    problem: Problem, expansion: Expansion, at: Plan, now: Progress, active: Tensor
) -> tuple[Gains, Tensor, Tensor]:
    """Gains from a convex expansion, with the mode and the regularisation that made it so.

    Those of an instance that looks for negative curvature are from the exact one as it is.
    """
    second_order, mu, aim = now.second_order[active], now.mu[active], now.aim[active]
    gains = backward_pass(problem, expansion, at, second_order, mu)
    while bool((failed := ~gains.usable & (mu <= MU_MAX) & (aim == STEP)).any()):
        mu = torch.where(failed & ~second_order, (mu * MU_FACTOR).clamp(min=MU_MIN), mu)
        second_order = second_order & ~failed
        gains = backward_pass(problem, expansion, at, second_order, mu)
    return gains, second_order, mu


def _take_step(
    problem: Problem, now: Progress, index: Tensor, gains: Gains, exact: bool, tolerance: float
) -> None:
    """The first sufficient step of some instances, and what follows from it.

    The first length is tried for all; where it fails, the shorter ones are tried side by side.
    """
    if not index.numel():
        return
    now.plan.iterations[index] += 1
    replaced = now.second_order[index] != exact
    newton = ~replaced & (now.mu[index] == 0)
    mild = now.mu[index] <= MU_SETTLED
    alpha = torch.where(replaced, now.stride[index], 1.0)
    before = now.plan.rows(index)
    X, U, cost, accepted, change, settled = _first_trial(
        problem.rows(index), before, gains, alpha, tolerance
    )
    slope, noise = gains.slope.detach(), gains.noise
    expected = gains.change.detach()
    foreseen = FORESEEN if exact else FORESEEN_GAUSS_NEWTON
    known = (change - expected).abs() <= foreseen * expected.abs() + noise
    done = settled & newton & torch.where(accepted, known, -slope <= noise)
    keep = accepted.nonzero()[:, 0]
    now.adopt(index[keep], X[keep], U[keep], cost[keep])
    now.lengthen(index[keep], alpha[keep], change[keep] <= (STRAIGHT * alpha * slope)[keep], exact)
    now.accepted(index[keep], exact)
    gained = (newton & (alpha == 1)) | (change < -IDLE_GAIN * gains.size)
    now.note_gain(index[keep], gained[keep])
    now.look_down(index[accepted & settled & ~newton & mild], SETTLED, exact)
    _settle(problem, now, index[done], gains.size[done], exact)
    retry = (~accepted & ~done).nonzero()[:, 0]
    _take_shorter_step(problem, now, index[retry], gains.rows(retry), alpha[retry], exact)


def _first_trial(
    problem: Problem, at: Plan, gains: Gains, alpha: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The trial of these lengths; whether it is sufficient, its change, whether it is settled.

    Settled: it moves no control, and promises no decrease, worth mentioning.
    """
    every = torch.arange(len(at.cost), device=at.cost.device)
    X, U = _feedback_rollout(problem, at.states, at.controls, gains, every, alpha)
    cost = problem.total_cost(X, U)
    change = (cost - at.cost).detach()
    slope = gains.slope.detach()
    accepted = _is_enough(change, SUFFICIENT_DECREASE * alpha * slope + gains.noise)
    moved, span = (U - at.controls).detach().abs().amax(1), U.detach().abs().amax(1)  # (rows, m)
    ranges = (problem.high - problem.low).detach().amax(0)
    negligible = -slope <= NEGLIGIBLE * gains.size
    settled = (moved <= tolerance * span).all(-1) | negligible
    settled = settled & (moved <= tolerance * ranges).all(-1)
    settled = settled & (-slope <= tolerance**1.5 * gains.size) & (gains.pull <= PULL * gains.size)
    return X, U, cost, accepted, change, settled


@torch.no_grad()
def _settle(problem: Problem, now: Progress, index: Tensor, size: Tensor, exact: bool) -> None:
    """Finish some instances: converged where other rollouts find the same cost.

    Of the controls alone, or with the gains at the plan.
    """
    if not index.numel():
        return
    rows, found = problem.rows(index), now.plan.rows(index)
    U = (found.controls * (1 + NUDGE)).clamp(problem.low, problem.high)
    X = rows.rollout(found.states[:, 0] * (1 + NUDGE), U)
    limit = REPRODUCED * size
    again = (rows.total_cost(X, U) - found.cost).abs() <= limit
    if not bool(again.all()):
        expansion = rows.expand(found.states, found.controls, second_order=exact)
        mode, mu = torch.full_like(again, exact), torch.zeros_like(size)
        gains = backward_pass(rows, expansion, found, mode, mu)
        X = torch.cat((X[:, :1], found.states[:, 1:]), 1)
        every = torch.arange(len(index), device=index.device)
        X, U = _feedback_rollout(rows, X, found.controls * (1 + NUDGE), gains, every, mu)
        again |= (rows.total_cost(X, U) - found.cost).abs() <= limit
    now.finish(index, converged=again)


def _take_shorter_step(
    problem: Problem, now: Progress, index: Tensor, gains: Gains, first: Tensor, exact: bool
) -> None:
    lengths = torch.tensor(SHORTER, dtype=first.dtype, device=first.device)
    alpha = lengths.unsqueeze(-1) * first
    slope, before = gains.slope.detach(), now.plan.cost[index].detach()
    enough = SUFFICIENT_DECREASE * alpha * slope + gains.noise
    enough = torch.where(alpha >= min(STEP_LENGTHS), enough, -torch.inf)
    taken = _first_sufficient(problem, now, index, gains, alpha, enough)
    keep = (taken != 0).nonzero()[:, 0]
    change = now.plan.cost[index].detach() - before
    straight = change[keep] <= (STRAIGHT * taken * slope)[keep]
    now.lengthen(index[keep], taken[keep], straight, exact)
    now.accepted(index[keep], exact)
    now.refused(index[taken == 0], exact)
    now.note_gain(index, change < -IDLE_GAIN * gains.size)


def _leave(problem: Problem, now: Progress, index: Tensor, gains: Gains, exact: bool) -> None:
    """Move some instances along negative curvature; converged if it is zero but for rounding."""
    ranges = (problem.high - problem.low).detach().amax(0)
    moving, bends = [], []
    k, K = torch.zeros_like(gains.k), gains.K.clone()
    for row, instance in enumerate(index.tolist()):
        t = failed_stage(gains.convex[row])
        u = now.plan.controls[instance, t].detach()
        program = gains.Q_uu[row, t].detach(), gains.q_u[row, t].detach()
        found = downwards(*program, problem.low[t] - u, problem.high[t] - u)
        if found is None:
            now.finish(index[row], converged=False)
            continue
        direction, curvature, flat = found
        length, tiny = move_length(
            direction, curvature, ranges, float(gains.size[row]), float(gains.noise[row])
        )
        # of the stages before this one the pass has not told whether they are convex
        if t == 0 and (flat or tiny) and now.aim[instance] == SETTLED:
            _settle(problem, now, index[row : row + 1], gains.size[row : row + 1], exact)
            continue
        k[row, t] = length * direction
        K[row, : t + 1] = 0.0
        moving.append(row)
        bends.append(curvature * length**2)
    if not moving:
        return
    rows = torch.tensor(moving, device=index.device)
    now.plan.iterations[index[rows]] += 1
    gains = replace(gains, k=k, K=K).rows(rows)
    alpha = k.new_tensor(ESCAPE_LENGTHS).unsqueeze(-1).expand(-1, len(rows))
    expected = 0.5 * alpha.square() * k.new_tensor(bends)
    enough = SUFFICIENT_DECREASE * expected - gains.noise
    accepted = _first_sufficient(problem, now, index[rows], gains, alpha, enough) != 0
    now.accepted(index[rows[accepted]], exact)
    now.finish(index[rows[~accepted]], converged=False)


def _first_sufficient(
    problem: Problem,
    now: Progress,
    index: Tensor,
    gains: Gains,
    alpha: Float[Tensor, "lengths rows"],
    enough: Float[Tensor, "lengths rows"],
) -> Float[Tensor, " rows"]:
    """Take the first step length whose change of the cost is at most `enough`; 0 if none is."""
    if not index.numel():
        return gains.slope.detach()
    before, count = now.plan.rows(index), len(index)
    every = torch.arange(count, device=index.device).repeat(len(alpha))  # (lengths * rows,)
    rows = problem.rows(index[every])
    X, U = _feedback_rollout(
        rows,
        before.states[every],
        before.controls[every],
        gains,
        every,
        alpha.flatten(),
    )
    cost = rows.total_cost(X, U)
    change = cost.detach().reshape(len(alpha), count) - before.cost.detach()
    sufficient = _is_enough(change, enough)
    accepted = sufficient.any(0)
    keep = accepted.nonzero()[:, 0]
    first = sufficient.int().argmax(0)
    chosen = (first * count + torch.arange(count, device=index.device))[keep]
    now.adopt(index[keep], X[chosen], U[chosen], cost[chosen])
    return torch.where(accepted, alpha.gather(0, first.unsqueeze(0))[0], 0.0)


def _is_enough(change: Tensor, enough: Tensor) -> Tensor:
    """Whether a change of the cost is sufficient: both are finite, where nothing has run away."""
    return (change <= enough) & change.isfinite() & enough.isfinite()


def _feedback_rollout(
    problem: Problem, X: Tensor, U: Tensor, gains: Gains, index: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """States and controls under u + alpha k + K (x_new - x), clipped to the bounds."""
    k, alpha = gains.k[index], alpha[:, None, None]
    low, high = problem.low, problem.high
    whole = (
        (alpha > 0) & ((U + k >= high) | (U + k <= low)) & (k.abs() <= NEAR_BOUND * (high - low))
    )
    U_ff = U + torch.where(whole, k, alpha * k)
    K = gains.K[index]
    x = X[:, 0]
    states, controls = [], []
    for t in range(problem.horizon):
        u = U_ff[:, t] + (K[:, t] @ (x - X[:, t]).unsqueeze(-1)).squeeze(-1)
        u = torch.minimum(torch.maximum(u, problem.low[t]), problem.high[t])
        states.append(x)
        controls.append(u)
        if t < problem.horizon - 1:
            x = problem.f(x, u, problem.context_at(t))
    return torch.stack(states, 1), torch.stack(controls, 1)
