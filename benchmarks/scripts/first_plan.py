"""From the start of a program to its first plan [s]."""

import time

_start = time.perf_counter()

import json  # noqa: E402

from benchmarks.problems import CARTPOLE  # noqa: E402
from benchmarks.rivals.ours import Ours  # noqa: E402


def main() -> None:
    prepared = Ours("native", "native").prepare(CARTPOLE, CARTPOLE.reference("x_init")[:1])
    prepared.forward()
    print(json.dumps({"seconds": time.perf_counter() - _start}))


if __name__ == "__main__":
    main()
