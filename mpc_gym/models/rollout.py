"""Episodes through which a gradient flows.

    x_{t+1} = f(x_t, u_t),   r_t = -l(x_t, u_t),   u_t = clip(action_t, low, high),   t = 0 .. T-1

with the PyTorch modules themselves, so that PyTorch differentiates the return with respect to the
start state, the actions, the policy's weights, and the parameters of dynamics and cost.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpointed

from mpc_gym.checks import (
    check_bounds,
    check_count,
    check_floating,
    check_instance,
    check_module,
    check_size,
    found,
    real_tensor,
)
from mpc_gym.models.base import dynamics_sizes

Policy = Callable[[Float[Tensor, "*batch n_state"]], Float[Tensor, "*batch n_ctrl"]]


@dataclass(frozen=True)
class Rollout:
    """Simulated episodes.

    Attributes:
        states: the start state and the one after each action, [*batch, horizon + 1, n_state].
        actions: as they were applied, clipped, [*batch, horizon, n_ctrl].
        rewards: minus the cost of each state and action, [*batch, horizon].
    """

    states: Float[Tensor, "*batch states n_state"]
    actions: Float[Tensor, "*batch horizon n_ctrl"]
    rewards: Float[Tensor, "*batch horizon"]

    def __repr__(self) -> str:
        returns = self.returns.detach()
        return (
            f"Rollout(batch={list(returns.shape)}, horizon={self.rewards.shape[-1]}, "
            f"n_state={self.states.shape[-1]}, n_ctrl={self.actions.shape[-1]}, "
            f"mean return={returns.mean().item():.6g})"
        )

    @property
    def returns(self) -> Float[Tensor, "*batch"]:
        """Sums of rewards."""
        return self.rewards.sum(-1)


def rollout(
    dynamics: nn.Module,
    cost: nn.Module,
    x_init: Float[Tensor, "*batch n_state"],
    policy_or_controls: Policy | Tensor,
    horizon: int | None = None,
    *,
    control_low: Float[Tensor, " n_ctrl"] | float | None = None,
    control_high: Float[Tensor, " n_ctrl"] | float | None = None,
    truncate: int | None = None,
    checkpoint: int | None = None,
) -> Rollout:
    """Let a policy, or given controls, act for `horizon` time steps.

    With an environment's modules and limits this is what the environment does, without rounding to
    float32. Two clips cut the gradient, as they cut the motion: where the dynamics clip a speed
    (`PendulumDynamics.max_speed`), what came before is felt only through the other entries of the
    state; where an action is out of its limits, its own gradient is zero, and so is the policy's
    there. A policy that ends in a `tanh` scaled to the limits is never cut.

    The motion of a pendulum is chaotic: gradients through many steps are right and can yet be
    enormous. `truncate` cuts them.

    Args:
        dynamics: [..., n_state], [..., n_ctrl] -> [..., n_state].
        cost: [..., n_state], [..., n_ctrl] -> [...].
        x_init: start states; one of them, or a batch.
        policy_or_controls: a policy, [..., n_state] -> [..., n_ctrl], such as a module; or controls
            [*batch, horizon, n_ctrl].
        horizon: number of time steps; None: as many as there are controls.
        control_low: actions are clipped to this; None: not.
        control_high: likewise.
        truncate: gradients flow back through at most so many steps, counted from the start:
            between such segments the state is detached. None: through all.
        checkpoint: keep only each so many-th state for the backward pass, which computes the
            others again: memory for `horizon / checkpoint + checkpoint` steps instead of
            `horizon`, for twice the time forward. None: keep all. The policy must not draw
            random numbers from generators of its own.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: a shape, the horizon or a segment's length does not fit.
    """
    check_module("dynamics", dynamics)
    check_module("cost", cost)
    for name, length in (("truncate", truncate), ("checkpoint", checkpoint)):
        if length is not None:
            check_count(name, length)
    _check_x_init(x_init, dynamics_sizes(dynamics)[0])
    choose, steps = _choice(policy_or_controls, x_init, horizon)
    low = _limit("control_low", control_low, x_init)
    high = _limit("control_high", control_high, x_init)
    if low is not None and high is not None:
        check_bounds(low, high)

    def act(state: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """States after, actions and rewards of the steps from `start` to `stop`."""
        states, actions, rewards = [], [], []
        for step in range(start, stop):
            action = choose(state, step)
            _check_action(action, low, high)
            if low is not None or high is not None:
                action = action.clamp(low, high)
            rewards.append(-cost(state, action))
            state = dynamics(state, action)
            states.append(state)
            actions.append(action)
        return torch.stack(states, -2), torch.stack(actions, -2), torch.stack(rewards, -1)

    firsts = sorted({*range(0, steps, truncate or steps), *range(0, steps, checkpoint or steps)})
    state, parts = x_init, []
    for start, stop in zip(firsts, [*firsts[1:], steps], strict=True):
        if truncate is not None and start > 0 and start % truncate == 0:
            state = state.detach()
        if checkpoint is None:
            part = act(state, start, stop)
        else:
            part = checkpointed(act, state, start, stop, use_reentrant=False)
        state = part[0][..., -1, :]
        parts.append(part)
    states, actions, rewards = zip(*parts, strict=True)
    return Rollout(
        states=torch.cat((x_init.unsqueeze(-2), *states), -2),
        actions=torch.cat(actions, -2),
        rewards=torch.cat(rewards, -1),
    )


def _choice(
    policy_or_controls: Policy | Tensor, x_init: Tensor, horizon: int | None
) -> tuple[Callable[[Tensor, int], Tensor], int]:
    """What is done in a state at a time step, and the number of time steps."""
    if isinstance(policy_or_controls, Tensor):
        controls = policy_or_controls
        horizon = _checked_controls(controls, x_init, horizon)

        def choose(state: Tensor, step: int) -> Tensor:  # noqa: ARG001
            return controls[..., step, :]

    elif not callable(policy_or_controls):
        raise TypeError(
            "policy_or_controls must be a function of the state or a tensor of controls, got "
            f"{found(policy_or_controls)}"
        )
    elif horizon is None:
        raise ValueError(
            "horizon must be given with a policy, which policy_or_controls is: how many steps it "
            "acts for"
        )
    else:
        policy = policy_or_controls

        def choose(state: Tensor, step: int) -> Tensor:  # noqa: ARG001
            return policy(state)

    return choose, check_size("horizon", horizon)


def _checked_controls(controls: Tensor, x_init: Tensor, horizon: int | None) -> int:
    """The number of time steps."""
    check_floating("policy_or_controls", controls)
    batch = list(x_init.shape[:-1])
    if controls.ndim != x_init.ndim + 1 or list(controls.shape[:-2]) != batch:
        raise ValueError(
            f"policy_or_controls: controls must be [*batch, horizon, n_ctrl] with batch {batch} as "
            f"in x_init, got {list(controls.shape)}"
        )
    available = controls.shape[-2]
    if horizon is not None and check_size("horizon", horizon) > available:
        raise ValueError(
            f"horizon must be at most the number of controls, {available}, got {horizon}"
        )
    return available if horizon is None else horizon


def _check_x_init(x_init: Tensor, n_state: int | None) -> None:
    check_floating("x_init", x_init)
    if x_init.ndim < 1 or n_state not in (None, x_init.shape[-1]):
        size = "" if n_state is None else f" with n_state = {n_state}"
        raise ValueError(f"x_init must be [..., n_state]{size}, got shape {list(x_init.shape)}")


def _limit(name: str, value: Tensor | float | None, like: Tensor) -> Tensor | None:
    if value is None:
        return None
    limit = real_tensor(name, value, like.dtype).to(like.device)
    if limit.ndim > 1 or limit.numel() == 0:
        raise ValueError(f"{name} must be a number or [n_ctrl], got shape {list(limit.shape)}")
    return limit


def _check_action(action: object, low: Tensor | None, high: Tensor | None) -> None:
    """Refuse an action that is no tensor, or for which the limits are not."""
    check_instance("policy_or_controls", action, Tensor, "a function that returns a tensor")
    assert isinstance(action, Tensor)
    for name, limit in (("control_low", low), ("control_high", high)):
        if limit is not None and limit.numel() not in (1, action.shape[-1]):
            raise ValueError(
                f"{name} must be a number or [n_ctrl={action.shape[-1]}], got {list(limit.shape)}"
            )
