"""Scripts that run in processes of their own, without importing PyTorch again and again.

As a program it forks a process for each script that it is told of. It has imported what takes long,
but nothing of mpc_gym, which a script finds as a new interpreter does. Where nothing can be forked,
each script has an interpreter of its own.
"""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CAN_FORK = hasattr(os, "fork")


class Ended(NamedTuple):
    """How a script ended: 0 where it came to its end; and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class Scripts:
    """Runs scripts; one after the other, each in its folder."""

    def __init__(self, server: "subprocess.Popen[str] | None") -> None:
        self._server = server

    def run(self, script: Path) -> Ended:
        """Run a script in a process of its own."""
        if self._server is None:
            command = [sys.executable, str(script)]
            ended = subprocess.run(
                command, cwd=script.parent, capture_output=True, text=True, check=False
            )
            return Ended(ended.returncode, ended.stdout, ended.stderr)
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(f"{script}\n")
        self._server.stdin.flush()
        return Ended(*json.loads(self._server.stdout.readline()))


@contextlib.contextmanager
def served() -> Iterator[Scripts]:
    """What runs scripts, as long as it is asked to."""
    if not CAN_FORK:
        yield Scripts(None)
        return
    command = [sys.executable, str(Path(__file__))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as server:
        yield Scripts(server)


def _forked(script: Path) -> Ended:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if not child:
            _become(script, stdout.fileno(), stderr.fileno())
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):  # workers that it has left
            os.killpg(child, signal.SIGKILL)
        written = []
        for file in (stdout, stderr):
            file.seek(0)
            written.append(file.read().decode(errors="replace"))
        return Ended(status, *written)


def _become(script: Path, stdout: int, stderr: int) -> None:
    """Run a script, and end."""
    status = 1
    try:
        os.setsid()
        os.chdir(script.parent)
        with Path(os.devnull).open("rb") as nothing:
            for number, file in enumerate((nothing.fileno(), stdout, stderr)):
                os.dup2(file, number)
        sys.argv = [str(script)]
        sys.path[0] = str(script.parent)
        runpy.run_path(str(script), run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _main() -> None:
    import matplotlib.pyplot as plt
    import numba  # noqa: F401
    import stable_baselines3  # noqa: F401
    import torch._dynamo

    torch.set_num_threads(1)
    plt.switch_backend("agg")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_forked(Path(line.rstrip("\n")))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
