"""What this process has used of the memory, and whether it was too little."""

from __future__ import annotations

import sys

# of torch: on a GPU, on Linux, on Windows, in cuDNN; some as a RuntimeError of no kind of its own
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def peak_memory_mb() -> float | None:
    """Highest resident memory of this process so far, in MB of 10^6 bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def is_lack_of_memory(error: BaseException) -> bool:
    """Did a computation end for want of memory, of the CPU or of a GPU?"""
    said = str(error).lower()
    kind = type(error).__name__ == "OutOfMemoryError"  # torch's, which need not be imported to find out
    return kind or isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY)
