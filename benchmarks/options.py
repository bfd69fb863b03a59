"""Options of the benchmark."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What to run, and the folder of its results."""

    quick: bool = False  # fewer sizes and repetitions, in about two minutes
    only: tuple[str, ...] = ()  # sections to run; all, where there are none
    folder: Path = Path(__file__).parent / "results"
    seed: int = 0  # of the fresh start states
