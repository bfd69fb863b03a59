"""Physical parameters from transitions, by nonlinear least squares.

    minimise over theta    L(theta) = 1/2 |r|^2,    r_ij = (f_theta(x_i, u_i) - x'_i)_j / s_j

with s_j the root mean square of the change of entry j. Levenberg (1944) and Marquardt (1963): with
the Jacobian J of r and D the diagonal of J'J (its largest so far, Moré 1978), a step is

    (J'J + lambda D) d = -J'r,    lambda a tenth after a step that lowers L, ten times after another

Where some combination of the parameters does not move the system, J'r has no part in its
direction, and the step none either: it stays where it was.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_count, check_instance
from mpc_gym.functional import LOCK
from mpc_gym.imitation.demonstrations import Demonstrations
from mpc_gym.imitation.losses import PredictionLoss
from mpc_gym.imitation.metrics import Row
from mpc_gym.imitation.transitions import Transitions, check_dynamics, transitions_of
from mpc_gym.messages import warn

DAMPING = (1e-3, 1e-10, 1e10)  # lambda at first, at least, and at most: no step lowers the loss
TOLERANCE = 1e-10  # relative decrease of the loss below which a step is the last

Residuals = Callable[[Tensor], Tensor]


def identify(
    dynamics: nn.Module, data: Transitions | Demonstrations, max_iterations: int = 50
) -> list[Row]:
    """Fit a handful of physical parameters to transitions, in place, from where they are.

    It ends at an optimum, usually the best one, after some eight steps. Each takes as many forward
    passes through all transitions as there are numbers to fit: for networks take `fit_dynamics`.
    A warning says where `max_iterations` were not enough.

    Args:
        dynamics: whose parameters that require a gradient are fitted. Masses and lengths stay
            positive after `keep_positive`, which policies apply themselves.
        data: transitions, or demonstrations whose observations are states and whose actions are
            controls.
        max_iterations: steps at most.

    Returns:
        The loss of `SystemIdentification` ("train/loss"), one row a step, the first before any.

    Raises:
        TypeError: an argument is something else.
        ValueError: there is no parameter to fit, or the model does not fit the transitions.
        FloatingPointError: the loss is not finite at first.
    """
    check_dynamics(dynamics)
    check_count("max_iterations", max_iterations)
    check_instance("data", data, (Transitions, Demonstrations), "Transitions or Demonstrations")
    transitions = data if isinstance(data, Transitions) else transitions_of(dynamics, data)
    learned = {name: each for name, each in dynamics.named_parameters() if each.requires_grad}
    if not learned:
        raise ValueError(
            f"dynamics must have parameters to fit, but no parameter requires a gradient in "
            f"{type(dynamics).__name__}"
        )
    start = torch.cat([each.detach().double().ravel() for each in learned.values()])
    residuals = _residuals(dynamics, learned, transitions)
    found, history = _least_squares(residuals, start, max_iterations)
    with torch.no_grad():
        chunks = torch.split(found, [each.numel() for each in learned.values()])
        for parameter, chunk in zip(learned.values(), chunks, strict=True):
            parameter.copy_(chunk.view_as(parameter))
    return history


def _residuals(
    dynamics: nn.Module, learned: dict[str, nn.Parameter], transitions: Transitions
) -> Residuals:
    """The scaled errors of the prediction, as a function of the parameters in one vector."""
    prediction = PredictionLoss(dynamics, transitions)
    fixed = {name: value.detach().double() for name, value in dynamics.named_parameters()}
    sizes = [each.numel() for each in learned.values()]

    def residuals(theta: Tensor) -> Tensor:
        chunks = zip(learned.items(), torch.split(theta, sizes), strict=True)
        values = {name: chunk.view(each.shape) for (name, each), chunk in chunks}
        return prediction.errors({**fixed, **values}).ravel()

    return residuals


def _least_squares(
    residuals: Residuals, theta: Float[Tensor, " k"], max_iterations: int
) -> tuple[Float[Tensor, " k"], list[Row]]:
    """Levenberg-Marquardt, from theta."""
    damping, least, most = DAMPING
    largest = torch.zeros_like(theta)
    errors, jacobian = _linearised(residuals, theta)
    loss = errors.square().mean().item()
    if not math.isfinite(loss):
        raise FloatingPointError(
            "the model's predictions are not finite: check its initial values and the transitions"
        )
    history: list[Row] = [{"train/loss": loss}]
    while damping <= most:
        normal = jacobian @ jacobian.mT
        largest = torch.maximum(largest, normal.diagonal())
        scale = torch.where(largest > 0, largest, 1.0)  # of what moves nothing
        step = torch.linalg.solve(normal + torch.diag(damping * scale), -(jacobian @ errors))
        with torch.no_grad():
            after = residuals(theta + step).square().mean().item()
        if not after < loss:  # NaN too
            damping *= 10
            continue
        theta, damping = theta + step, max(damping / 10, least)
        decrease, loss = loss - after, after
        history.append({"train/loss": loss})
        if decrease <= TOLERANCE * (loss + decrease):
            break
        if len(history) > max_iterations:
            warn(
                f"the fit used all of max_iterations={max_iterations} and was not at an optimum "
                "yet: check the values that were found. Begin nearer to the truth, keep masses "
                "and lengths positive (mpc_gym.models.keep_positive), or raise max_iterations"
            )
            break
        errors, jacobian = _linearised(residuals, theta)
    return theta, history


def _linearised(
    residuals: Residuals, theta: Float[Tensor, " k"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "k n"]]:
    """The residuals, and the derivative by each parameter.

    One direction after the other, so that a model may look at the values that it computes.
    """
    directions = torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
    with LOCK, torch.no_grad():
        pairs = [torch.func.jvp(residuals, (theta,), (each,)) for each in directions]
    return pairs[0][0], torch.stack([pair[1] for pair in pairs])
