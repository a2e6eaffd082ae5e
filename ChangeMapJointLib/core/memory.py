"""What this process has used of the memory."""

from __future__ import annotations

import sys


def peak_memory_mb() -> float | None:
    """Highest resident memory of this process so far, in MB of 10^6 bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
