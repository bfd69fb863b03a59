"""What a system's first plan and first gradient cost in a new process, beyond imports [s of CPU].

`python -m benchmarks.scripts.first_system NAME` prints them as JSON.
"""

import json
import sys
import time

import torch

from benchmarks.rivals.ours import gradient
from benchmarks.system_models import NAMED
from mpc_gym.compiled.errors import ProgramTooLarge, UnsupportedOperation


def main(name: str) -> None:
    torch.set_num_threads(1)
    mpc, x_init = NAMED[name].controller(backend="native"), NAMED[name].start_states(1, 0)
    start = time.process_time()
    try:
        plan = mpc(x_init)
    except (ProgramTooLarge, UnsupportedOperation):
        print(json.dumps({}))
        return
    planned = time.process_time()
    gradient(mpc, plan)
    done = time.process_time()
    print(json.dumps({"plan": planned - start, "gradient": done - planned}))


if __name__ == "__main__":
    main(sys.argv[1])
