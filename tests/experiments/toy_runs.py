"""Functions that the tests of runs execute in other processes."""

import json
import os
import signal
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from mpc_gym.experiments.runs import Run, execute
from mpc_gym.files import replacing

WALK = f"{__name__}:walk"
STEPS = 6


def walk(
    folder: Path, *, seed: int, steps: int = STEPS, trouble: str = "", at: int = 3
) -> dict[str, Any]:
    """A random walk with a checkpoint after each step; `trouble` comes once, before step `at`."""
    path = folder / "checkpoint.json"
    positions = json.loads(path.read_text()) if path.exists() else []
    note(folder, f"begun at {len(positions)}")
    while len(positions) < steps:
        if trouble and len(positions) == at and not (folder / "troubled").exists():
            (folder / "troubled").touch()
            TROUBLES[trouble](folder)
        generator = torch.Generator().manual_seed(1000 * seed + len(positions))
        x = torch.rand(100, 100, generator=generator)
        positions.append(float((x @ x).sum()) / 1e6)
        note(folder, f"step {len(positions)}")
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(positions))
    return {"positions": positions, "threads": torch.get_num_threads()}


def release(folder: Path, *, seed: int) -> dict[str, Any]:
    """Lets a walk beside it go on that is waiting."""
    (folder.parent / "go").touch()
    return {"seed": seed}


def where(folder: Path) -> dict[str, Any]:
    return {"process": os.getpid()}


def note(folder: Path, line: str) -> None:
    with (folder / "log.txt").open("a") as file:
        file.write(line + "\n")


def notes(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text().splitlines()


def die(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_again(folder: Path) -> None:
    (folder / "troubled").unlink()
    die(folder)


def interrupt(_: Path) -> None:
    raise KeyboardInterrupt


def fill_disk(_: Path) -> None:
    raise OSError(28, "No space left on device")


def wait(folder: Path) -> None:
    while not (folder.parent / "go").exists():
        time.sleep(0.01)


class UnportableError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} is not {two}")
        self.lock = threading.Lock()  # nothing pickles it, whatever libraries teach pickle


def blunder(_: Path) -> None:
    raise UnportableError(1, 2)


TROUBLES = {
    "die": die,
    "die again": die_again,
    "interrupt": interrupt,
    "full disk": fill_disk,
    "wait": wait,
    "blunder": blunder,
}


def walks(count: int, **settings: Any) -> list[Run]:
    return [Run(f"walk/{seed}", WALK, {"seed": seed, **settings}) for seed in range(count)]


def execute_together(barrier: Barrier, runs: list[Run], folder: Path) -> None:
    """Begins when the other processes at the barrier have come as far as this."""
    barrier.wait()
    execute(runs, folder)
