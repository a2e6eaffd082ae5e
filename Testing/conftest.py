"""One thread per worker: the suite runs several workers, and two of them with two threads each wait for one another."""

import os

for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(name, "1")
