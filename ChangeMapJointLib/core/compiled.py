"""Whether Numba can be used, and how its kernels are spread over threads."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable

from ChangeMapJointLib.core.parallel import run_parallel

LEAST_SLICES = 8  # for a thread of its own


@functools.cache
def compiled_available() -> bool:
    """Whether Numba can be imported. It is optional: without it the same is computed by torch or SciPy, more slowly.

    An installed Numba may still fail to import next to an incompatible NumPy.
    """
    try:
        importlib.import_module("numba")
    except Exception:  # ImportError, SystemError, or whatever an incompatible package raises
        return False
    return True


def over_slices(kernel: Callable[[int, int], object], count: int) -> None:
    """Call ``kernel(first, last)`` for parts of ``count`` slices, in as many threads as torch uses.

    For kernels that release the interpreter's lock and write to slices of their own. Unlike Numba's own parallel loops,
    they may run while another thread computes, whatever threading library Numba found.
    """
    import torch

    parts = max(min(torch.get_num_threads(), count // LEAST_SLICES), 1)
    if parts == 1:
        kernel(0, count)
        return
    ends = [count * part // parts for part in range(parts + 1)]
    run_parallel([functools.partial(kernel, a, b) for a, b in itertools.pairwise(ends)], lambda: None)
