"""What a model predicts, from what an environment shows.

observation  --state-->  state [, context]        action  --control-->  control
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from mpc_gym.checks import check_floating, check_module, found
from mpc_gym.imitation.demonstrations import Demonstrations
from mpc_gym.models.base import dynamics_sizes, takes_context
from mpc_gym.mpc import MPC
from mpc_gym.policies import PlanningPolicy
from mpc_gym.policies.observer import in_float32

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class Transitions:
    """Steps of a system in the units of a model, N of them, in float64.

    Args:
        states: [N, n_state], before each step.
        controls: [N, n_ctrl].
        next_states: [N, n_state].
        context: [N, n_context] of each step, of a model that takes one; None: it takes none.

    Raises:
        TypeError: one is no tensor of floating-point numbers.
        ValueError: the shapes do not fit each other, or a number is not finite.
    """

    states: Float[Tensor, "N n_state"]
    controls: Float[Tensor, "N n_ctrl"]
    next_states: Float[Tensor, "N n_state"]
    context: Float[Tensor, "N n_context"] | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None:
                continue
            check_floating(name, value)
            same = value.shape == self.states.shape or name != "next_states"
            if value.ndim != 2 or len(value) != len(self.states) or not same:
                raise ValueError(
                    f"{name} must be [steps, columns] and fit states {list(self.states.shape)}, "
                    f"got {list(value.shape)}"
                )
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")
            self.__dict__[name] = value.detach().double()

    def __repr__(self) -> str:
        n_context = 0 if self.context is None else self.context.shape[1]
        context = f", n_context={n_context}" if n_context else ""
        sizes = f"n_state={self.states.shape[1]}, n_ctrl={self.controls.shape[1]}{context}"
        return f"Transitions(steps={len(self.states)}, {sizes})"

    def __len__(self) -> int:
        """Number of steps N."""
        return len(self.states)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a model is called with."""
        context = () if self.context is None else (self.context,)
        return (self.states, self.controls, *context)


def check_dynamics(dynamics: nn.Module) -> None:
    """Refuse a policy or a controller where its dynamics are meant.

    Raises:
        TypeError: it is none of PyTorch's modules, or has dynamics of its own.
    """
    check_module("dynamics", dynamics)
    if isinstance(dynamics, (PlanningPolicy, MPC)):
        own = "policy.mpc.dynamics" if isinstance(dynamics, PlanningPolicy) else "mpc.dynamics"
        raise TypeError(
            f"dynamics must be a module from state and control to the next state, got "
            f"{type(dynamics).__name__}: pass {own}"
        )


def transitions_of(
    model: nn.Module | PlanningPolicy,
    demonstrations: Demonstrations,
    state: Map | None = None,
    control: Map | None = None,
) -> Transitions:
    """The steps of demonstrations as a model sees them.

    Args:
        model: dynamics, or a policy that plans, which says by its options what its model's state,
            context and control are.
        demonstrations: of the environment.
        state, control: of dynamics, functions that map observations [N, n_obs] to states and
            actions [N, n_act] to controls; None: these are the same.

    Raises:
        TypeError: a function is given with a policy, or returns something else.
        ValueError: the demonstrations do not fit the policy's spaces.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    before, actions, after = (
        torch.as_tensor(array, dtype=torch.float64, device=device)
        for array in (
            demonstrations.observations,
            demonstrations.actions,
            demonstrations.next_observations,
        )
    )
    if not isinstance(model, PlanningPolicy):
        states, next_states = (_mapped("state", state, each) for each in (before, after))
        controls = _mapped("control", control, actions)
        if takes_context(model):
            raise ValueError(
                f"{type(model).__name__} takes a context, which demonstrations do not hold: fit a "
                "policy, whose state= gives it, or make Transitions(..., context=...)"
            )
        sizes = zip(("state", "control"), (states, controls), dynamics_sizes(model), strict=True)
        for name, rows, size in sizes:
            if size is not None and rows.shape[1] != size:
                raise ValueError(
                    f"demonstrations must show the {size} numbers of a {name} of "
                    f"{type(model).__name__}, got {rows.shape[1]}: say how they follow, {name}=..."
                )
        return Transitions(states, controls, next_states)
    for name, given in (("state", state), ("control", control)):
        if given is not None:
            raise TypeError(
                f"{name} must be None for a policy, which has options for that, got {found(given)}"
            )
    return policy_transitions(
        model,
        unflattened(model.observation_space, before),
        actions,
        unflattened(model.observation_space, after),
    )


def policy_transitions(
    policy: PlanningPolicy, before: PyTorchObs, actions: Tensor, after: PyTorchObs
) -> Transitions:
    """The steps that a policy's model predicts, without gradients.

    Args:
        policy: one that plans.
        before, after: batches of observations as the environment gives them, before any
            normalisation.
        actions: [N, n_act], of the environment.

    Raises:
        ValueError: they do not fit the policy's spaces.
    """
    planner = policy.planner
    controls = planner.controls(actions)
    training = planner.observer.training
    planner.observer.eval()
    if isinstance(planner.observer.state_map, nn.Module):  # a network, in its own dtype
        before, after = in_float32(before), in_float32(after)
    with torch.no_grad():
        states, context = planner.observer.start(before)
        next_states, _ = planner.observer.start(after)
    planner.observer.train(training)
    if not takes_context(policy.mpc.dynamics):
        context = None
    if context is not None and context.ndim == 3:  # of each stage of a plan
        context = context[:, 0]
    return Transitions(states, controls, next_states, context)


def flattened(space: spaces.Space[Any], observations: Any) -> NDArray[np.floating]:
    """A batch of observations as rows, in the order of `gymnasium.spaces.flatten`.

    Args:
        space: of one observation.
        observations: [N, ...], or with a `Dict` space a dict of such.
    """
    parts = [observations]
    if isinstance(space, spaces.Dict):
        parts = [observations[name] for name in space.spaces]
    return np.concatenate([np.reshape(part, (len(part), -1)) for part in parts], 1)


def unflattened(space: spaces.Space[Any], rows: Float[Tensor, "N n_obs"]) -> PyTorchObs:
    """Rows as a batch of observations, in the order of `gymnasium.spaces.flatten`.

    Raises:
        ValueError: the space has another number of entries.
    """
    size = spaces.flatdim(space)
    if rows.shape[1] != size:
        raise ValueError(
            f"demonstrations must have observations of {size} numbers, as the policy's space "
            f"{space}, got {rows.shape[1]}"
        )
    if not isinstance(space, spaces.Dict):
        return rows.reshape(-1, *(space.shape or ()))
    parts = torch.split(rows, [spaces.flatdim(part) for part in space.values()], 1)
    return {
        name: part.reshape(-1, *(each.shape or ()))
        for (name, each), part in zip(space.items(), parts, strict=True)
    }


def _mapped(name: str, function: Map | None, rows: Tensor) -> Tensor:
    if function is None:
        return rows
    if not callable(function):
        raise TypeError(f"{name} must be a function, got {found(function)}")
    with torch.no_grad():
        mapped = function(rows)
    if not isinstance(mapped, Tensor) or mapped.ndim != 2 or len(mapped) != len(rows):
        raise TypeError(
            f"{name} must be a function that maps [{len(rows)}, {rows.shape[1]}] to as many rows, "
            f"got one that returns {found(mapped)}"
        )
    return mapped
