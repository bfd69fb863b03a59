"""What measures speed, side by side with other solvers; run by `make bench`."""

import os

# Before NumPy and torch are imported, which read these once: a time is that of one thread.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
