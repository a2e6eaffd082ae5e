"""Peak memory of this process, and whether an error means that memory ran out."""

from __future__ import annotations

import sys

# messages of torch on a GPU, on Linux, on Windows, of cuDNN, ITK, C++ and the system; some are plain RuntimeErrors
OUT_OF_MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "failed to allocate memory",
    "bad_alloc",
    "cannot allocate memory",
)


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process in MB (10^6 bytes); None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the CPU or a GPU ran out of memory."""
    message = str(error).lower()
    is_torch_error = type(error).__name__ == "OutOfMemoryError"  # by name, so that torch need not be imported
    return is_torch_error or isinstance(error, MemoryError) or any(m in message for m in OUT_OF_MEMORY_MESSAGES)
