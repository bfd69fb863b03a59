"""Which of a plan's states are drawn, and how faint."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

MAX_GHOSTS = 8
NEAREST, FARTHEST = 0.50, 0.10  # opacity


def ghosts(
    plan_states: Float[np.ndarray, "time n_state"],
) -> Iterator[tuple[Float[np.ndarray, " n_state"], float]]:
    """States ahead of the present one, evenly spaced in time, with their opacities.

    The first state of a plan is the present and left out. The farthest comes first, so that nearer
    ones are drawn over it. States that are not finite are skipped.
    """
    ahead = plan_states[1:]
    if not len(ahead):
        return
    count = min(MAX_GHOSTS, len(ahead))
    chosen = np.linspace(len(ahead) - 1, len(ahead) // (2 * count), count).round().astype(int)
    for index in chosen:
        if np.isfinite(ahead[index]).all():
            progress = (index + 1) / len(ahead)
            yield ahead[index], NEAREST + progress * (FARTHEST - NEAREST)
