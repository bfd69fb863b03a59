"""One run of an experiment, and its folder.

The folder says at every moment how far the run is: `config.json` is written before it begins,
`result.json` when it has ended, each whole or not at all; what lies between is the function's own
checkpoint. A lock, which the operating system frees when its holder dies, keeps two processes from
working in one folder.
"""

import importlib
import inspect
import json
import pickle
import platform
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import mpc_gym
from mpc_gym.files import InUseError, differences, holding, read_json, write

CONFIG = "config.json"
RESULT = "result.json"
LOCK = ".lock"
MAX_BYTES = 2**30  # of a result, which is the user's own
PART_OF = {CONFIG: "versions", RESULT: "result"}  # what is in that file alone
VERSIONS = ("gymnasium", "numba", "numpy", "stable-baselines3", "torch")

# None of these leaves the folder, is hidden, or means something else on another system.
NAME_PART = re.compile(r"\w[\w .=,+@-]*")

# Runs draw from the generators that a process has one of, so two threads must not mix them.
_process = threading.Lock()


@dataclass(frozen=True)
class Run:
    """One independent run of an experiment.

    Args:
        name: unique in the experiment; the path of the run's folder below that of the experiment,
            such as "pendulum/nn/seed-0".
        function: "package.module:function", called as `function(folder, **settings)`; it returns a
            dict of JSON data, and goes on from what it left in the folder when it was stopped.
        settings: JSON data, the seed among it: all that the result depends on.

    Raises:
        ValueError: the name is no path inside the folder, the function cannot be imported or does
            not take the settings, or these are not JSON data.
    """

    name: str
    function: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        if not all(NAME_PART.fullmatch(part) for part in self.name.split("/")):
            raise ValueError(
                "name must be folders parted by '/', each of letters, digits, spaces and _.=,+@- "
                f"and begun by a letter, a digit or _, got {self.name!r}"
            )
        try:
            settings = self.identity["settings"]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"settings of run {self.name!r} must be JSON data, without nan and infinity, got "
                f"{self.settings!r}: {error}"
            ) from error
        try:
            inspect.signature(self.load()).bind(Path(), **settings)
        except TypeError as error:
            raise ValueError(
                f"{self.function} must take the folder and the settings of run {self.name!r}, "
                f"{settings!r}: {error}"
            ) from error

    @property
    def identity(self) -> dict[str, Any]:
        """What the result depends on, as JSON gives it back: tuples are lists."""
        data = {"function": self.function, "settings": self.settings}
        identity: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
        return identity

    def load(self) -> Callable[..., dict[str, Any]]:
        """The function itself."""
        module, _, name = self.function.partition(":")
        try:
            function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"function of run {self.name!r} must be 'package.module:function', got "
                f"{self.function!r}: {error}"
            ) from error
        return function


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt at a run.

    Attributes:
        name: of the run.
        result: what its function returned; None where there is no result.
        failure: what its function raised.
        trace: where it was raised, as text.
    """

    name: str
    result: dict[str, Any] | None = None
    failure: Exception | None = None
    trace: str = ""

    @property
    def busy(self) -> bool:
        """Whether another process is at this run."""
        return self.result is None and self.failure is None


def attempt(run: Run, folder: Path, timeout: float | None) -> Outcome:
    """Do a run, or what is left of it, unless it is finished.

    Args:
        run: what to do.
        folder: of the experiment.
        timeout: seconds to wait for another process that is at this run; None: as long as it takes.
    """
    place = folder / run.name
    try:
        if not place.is_dir():
            raise FileNotFoundError(
                f"there is no folder {str(place)!r} on {platform.node()}: the workers of a cluster "
                "must see the experiment's folder under the same path"
            )
        with holding(place / LOCK, f"folder {str(place)!r}", timeout):
            return Outcome(run.name, _result(run, place))
    except InUseError:
        return Outcome(run.name)
    except Exception as error:
        return Outcome(run.name, failure=_portable(error), trace=traceback.format_exc())


def check_folder(run: Run, place: Path) -> None:
    """Refuse a folder that holds anything but this run.

    Raises:
        ValueError: it holds another run, or files that are not of a run.
    """
    try:
        # before the settings are looked for: another process, which may begin this very run at
        # this moment, writes them before anything else
        entries = sorted(p.name for p in place.iterdir()) if place.exists() else []
    except OSError as error:
        raise ValueError(f"{str(place)!r} must be a folder: {error.strerror}") from error
    if not (place / CONFIG).exists():
        if files := [name for name in entries if not name.startswith(".")]:
            raise ValueError(
                f"{str(place)!r} holds files that are not of a run, such as {files[0]!r}. Choose "
                "another folder"
            )
        return
    recorded = read_record(place / CONFIG)
    if differing := _differences(recorded, run.identity):
        raise ValueError(f"{str(place)!r} holds another run: {differing}. Choose another folder")


def finished(run: Run, place: Path) -> dict[str, Any] | None:
    """The result of a run that has ended; None for another.

    Raises:
        ValueError: the file is damaged, or of another run.
    """
    if not (place / RESULT).exists():
        return None
    recorded = read_record(place / RESULT)
    if differing := _differences(recorded, run.identity):
        raise ValueError(
            f"{str(place / RESULT)!r} is of another run: {differing}. Choose another folder"
        )
    result: dict[str, Any] = recorded["result"]
    return result


def read_record(path: Path) -> dict[str, Any]:
    """A file that this module wrote.

    Raises:
        ValueError: it is damaged, or of something else.
    """
    try:
        data = read_json(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged, or not of a run: {error}") from error
    kinds = {"function": str, "settings": dict, PART_OF[path.name]: dict}
    for name, kind in kinds.items():
        if not isinstance(data, dict) or not isinstance(data.get(name), kind):
            raise ValueError(f"{str(path)!r} is damaged, or not of a run: it has no {name!r}")
    record: dict[str, Any] = data
    return record


def versions_text(places: Iterable[Path]) -> str:
    """With which versions some runs were done, as they recorded it; where they differ, with all."""
    numbers_of: dict[str, dict[str, None]] = {}
    for place in places:
        for name, number in read_record(place / CONFIG)["versions"].items():
            numbers_of.setdefault(name, {})[str(number)] = None
    each = [f"{name} {' and '.join(numbers)}" for name, numbers in numbers_of.items()]
    return f"Run with {', '.join(each)}."


def _result(run: Run, place: Path) -> dict[str, Any]:
    """The result of a run, computed where it is not there."""
    check_folder(run, place)
    before = finished(run, place)
    if before is not None:
        return before
    if not (place / CONFIG).exists():
        write(place / CONFIG, json.dumps(_config(run), indent=2) + "\n")
    with _process, _one_thread():
        result = run.load()(place, **run.identity["settings"])
    if not isinstance(result, dict):
        raise TypeError(f"{run.function} must return a dict, got {type(result).__name__}")
    write(place / RESULT, json.dumps({**run.identity, "result": result}, indent=2) + "\n")
    after = finished(run, place)  # as it will be read the next time: tuples are lists
    assert after is not None
    return after


def _config(run: Run) -> dict[str, Any]:
    versions = {"mpc-gym": mpc_gym.__version__, "python": platform.python_version()}
    return {
        **run.identity,
        "seed": run.settings.get("seed"),
        "versions": versions | {name: version(name) for name in VERSIONS},
        "platform": {"system": platform.platform(), "implementation": sys.implementation.name},
    }


def _differences(recorded: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Where the functions or the settings of two runs differ."""
    one, other = ({"function": run["function"], **run["settings"]} for run in (recorded, wanted))
    return differences(one, other)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order everywhere, so that numbers do not depend on who computes them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _portable(error: Exception) -> Exception:
    """The exception, or its text where it cannot be pickled for another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # anything may happen in a class's own way of being pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
