"""Planning again at every step, from the last plan.

The recurrent state is SB3's: a tuple with one array [n_env, horizon, n_ctrl], the last plan moved
on by one step; with constraints, their multipliers [n_env, horizon, k] are a second one. It is
returned and passed back, never kept.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mpc_gym.checks import check_instance
from mpc_gym.mpc import MPC, Plan
from mpc_gym.mpc.plan import WarmStart
from mpc_gym.policies.fit import check_array, check_finite

PlanState = tuple[NDArray[np.floating], ...]


class RecedingHorizon(nn.Module):
    """An `MPC` as a controller with SB3's `predict`: an expert to collect demonstrations from.

    Args:
        mpc: the controller. Its model's state is the observation.
    """

    def __init__(self, mpc: MPC) -> None:
        super().__init__()
        check_instance("mpc", mpc, MPC, "an MPC")
        self.mpc = mpc

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: PlanState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,  # noqa: ARG002  (SB3's signature; a plan has no noise)
    ) -> tuple[NDArray[np.floating], PlanState]:
        """The first control of the plan, and the plan to start from at the next step.

        Args:
            observation: [n_state] or [n_env, n_state]. (That it may be a dict is SB3's
                signature; it is refused.)
            state: what the last call returned; None plans from nothing.
            episode_start: [n_env], true where an episode begins: its plan is forgotten.

        Returns:
            Controls [n_ctrl] or [n_env, n_ctrl], and the recurrent state.

        Raises:
            TypeError: the observation is a dict.
            ValueError: the observation is not finite or comes with an info, or a shape does not
                fit.
        """
        check_array(observation)
        x_init = torch.as_tensor(np.asarray(observation))
        n_state = self.mpc.n_state
        if n_state not in (None, x_init.shape[-1] if x_init.ndim else 1):
            raise ValueError(
                f"observation must be [n_state] or [n_env, n_state] with n_state = {n_state}, got "
                f"{list(x_init.shape)}"
            )
        check_finite(x_init)
        rows = x_init.reshape(-1, x_init.shape[-1]) if x_init.ndim else x_init.reshape(1, 1)
        with torch.no_grad():
            plan = self.mpc(rows, warm_start(self.mpc, len(rows), state, episode_start))
        controls = plan.controls[:, 0].cpu().numpy()
        return controls.reshape(*x_init.shape[:-1], -1), carry(plan)


def carry(plan: Plan) -> PlanState:
    """The recurrent state that a plan leaves behind."""
    shifted = plan.shift()
    arrays = (shifted, shifted.multipliers) if isinstance(shifted, WarmStart) else (shifted,)
    return tuple(array.detach().cpu().numpy() for array in arrays)


def warm_start(
    mpc: MPC, n_env: int, state: PlanState | None, episode_start: ArrayLike | None
) -> Float[Tensor, "n_env horizon n_ctrl"] | None:
    """The solver's warm start from a recurrent state, zero where an episode begins.

    Raises:
        ValueError: the state is not one finite array [n_env, horizon, n_ctrl], or episode_start
            not [n_env].
    """
    if state is None:
        return None
    expected = (n_env, mpc.horizon, mpc.n_ctrl)
    shapes = [np.shape(array) for array in state]
    multiplied = mpc.has_constraints and len(state) == 2 and shapes[1][:2] == expected[:2]
    if shapes[:1] != [expected] or not (len(state) == 1 or multiplied):
        raise ValueError(
            f"state must be a tuple of one array [n_env, horizon, n_ctrl] = {list(expected)} (and, "
            "with constraints, one of their multipliers), as predict returns it, got arrays of "
            f"shape {[list(shape) for shape in shapes]}"
        )
    if not all(np.isfinite(array).all() for array in state):
        raise ValueError("state must be finite, as predict returns it, got NaN or infinity")
    # copies: the caller's arrays stay as they are
    controls, *more = (torch.tensor(np.asarray(array)) for array in state)
    if episode_start is not None:
        begins: Bool[Tensor, " n_env"] = torch.as_tensor(np.asarray(episode_start, dtype=bool))
        if begins.shape != (n_env,):
            raise ValueError(
                f"episode_start must have one entry for each of {n_env} observations, got shape "
                f"{list(begins.shape)}"
            )
        for array in (controls, *more):
            array[begins] = 0.0
    device = mpc.control_low.device
    return WarmStart.of(controls.to(device), more[0].to(device)) if more else controls.to(device)
