"""Checks that an observation is a state to plan from.

In NumPy, which takes a third of PyTorch's time for a single observation.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mpc_gym.checks import real_tensor

ANGLE_TOLERANCE = 1e-3  # of cos^2 + sin^2 = 1: rounding stays far below, normalising far above


def check_array(observation: object) -> None:
    """Refuse what is no array of numbers, such as the observation of a `Dict` space.

    Raises:
        TypeError: it is not.
        ValueError: it is what an environment's `reset` returns, an observation and an info.
    """
    if (
        isinstance(observation, tuple)
        and len(observation) == 2
        and isinstance(observation[1], dict)
    ):
        raise ValueError(
            "observation must be an array, got a tuple of an observation and an info. You are "
            "probably mixing Gym API with SB3's VecEnv API: `obs, info = env.reset()`, but "
            "`obs = vec_env.reset()`"
        )
    if isinstance(observation, dict):
        raise TypeError(
            f"observation must be an array, got a dict with entries {sorted(observation)}. Wrap "
            "the environment in gymnasium.wrappers.FlattenObservation, or choose the entry that "
            "is the model's state"
        )
    if not isinstance(observation, np.ndarray | np.generic):
        real_tensor("observation", observation)
    elif observation.dtype.kind not in "biuf":
        raise TypeError(
            f"observation must be an array of real numbers, got one of {observation.dtype}"
        )


def check_finite(observation: Tensor) -> None:
    """Refuse an observation from which no plan can be made.

    Raises:
        ValueError: it has an entry that is NaN or infinite.
    """
    finite = np.isfinite(observation.detach().cpu().numpy())
    if not finite.all():
        rows = ~finite.reshape(-1, observation.shape[-1]).all(-1)
        raise ValueError(
            "observation must be finite, got NaN or infinity in row(s) "
            f"{rows.nonzero()[0].tolist()} of {len(rows)}"
        )


def check_angles(
    observation: Float[Tensor, "batch n_state"], unit_pairs: Sequence[tuple[int, int]]
) -> None:
    """Refuse an observation that was scaled on its way from the environment.

    Nothing else tells: `VecNormalize` leaves the observation space as it was.

    Raises:
        ValueError: the cosine and the sine of one of the pairs are those of no angle.
    """
    values = observation.detach().cpu().numpy()
    for cosine, sine in unit_pairs:
        length = values[:, cosine] ** 2 + values[:, sine] ** 2
        wrong = np.abs(length - 1.0) > ANGLE_TOLERANCE
        if wrong.any():
            row = int(wrong.nonzero()[0][0])
            raise ValueError(
                "observation must be the model's state, as the environment gives it, with the "
                f"cosine and sine of an angle at entries {cosine} and {sine}, got "
                f"cos^2 + sin^2 = {length[row]:.4g} in row {row} of {len(wrong)}. Where "
                "VecNormalize wraps the environment, pass it norm_obs=False (norm_reward=True is "
                "fine)"
            )
