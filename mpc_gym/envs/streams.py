"""The random numbers of many environments, each with a generator of its own."""

from collections.abc import Sequence

import numpy as np
from gymnasium.utils.seeding import np_random
from jaxtyping import Float, Int
from numpy.typing import NDArray

AHEAD = 64


class Streams:
    """Uniform numbers from one generator an environment.

    They are drawn ahead, since a call of a generator takes far longer than a number: an environment
    gets the numbers that its generator would have given it one by one.

    Args:
        count: how many environments; at first their seeds come from the operating system.
    """

    def __init__(self, count: int) -> None:
        entropy = np.random.SeedSequence().spawn(count)
        self.generators = [np.random.Generator(np.random.PCG64(e)) for e in entropy]
        self.seeds = [-1] * count  # as Gymnasium has it for unknown ones
        self._ahead = np.empty((count, AHEAD))
        self._used = np.full(count, AHEAD)

    def seed(self, seeds: Sequence[int | None]) -> None:
        """Seed the generators; those whose seed is None go on as they are.

        Raises:
            ValueError: there is not one seed for each.
        """
        if len(seeds) != len(self.generators):
            raise ValueError(
                f"seed must be one number, or one for each of the {len(self.generators)} "
                f"environments, got {len(seeds)}"
            )
        for i, seed in enumerate(seeds):
            if seed is not None:
                self.generators[i], self.seeds[i] = np_random(seed)
                self._used[i] = AHEAD

    def draw(
        self, rows: Int[NDArray[np.integer], " rows"], count: int
    ) -> Float[NDArray[np.float64], "rows numbers"]:
        """The next `count` numbers in [0, 1), at most 64, of the environments in these rows."""
        assert count <= AHEAD, count
        for i in rows[self._used[rows] + count > AHEAD].tolist():
            used = self._used[i]
            self._ahead[i, : AHEAD - used] = self._ahead[i, used:]
            self.generators[i].random(out=self._ahead[i, AHEAD - used :])
            self._used[i] = 0
        columns = self._used[rows, np.newaxis] + np.arange(count)
        self._used[rows] += count
        drawn: NDArray[np.float64] = self._ahead[rows[:, np.newaxis], columns]
        return drawn
