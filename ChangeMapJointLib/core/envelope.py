"""The lower envelope of paraboloids along one axis, compiled by Numba for the CPU.

:mod:`~ChangeMapJointLib.core.filters` holds the same in NumPy; the tests compare both, bit for bit. The kernel releases
the interpreter's lock, so that both scans of a pair can be worked on at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_WIDTH = 64  # neighbouring lines at a time, so that they fit into the cache


@njit(cache=True, nogil=True)
def lower_envelope_lines(values, rises):
    """Replace ``values`` by ``min over s of values[.., i + s, ..] + rises[|s| - 1]``, along the middle axis, in place.

    Args:
        values: float32 ``[n, length, m]``; beyond its ends along the middle axis there is nothing.
        rises: float32 ``[steps]``: what is added at a distance of 1, 2, ... samples.
    """
    outer, length, inner = values.shape
    width = min(_WIDTH, inner)
    whole, border = length * width, rises.shape[0] * width
    source = np.full(whole + 2 * border, np.float32(np.inf), np.float32)
    lowest = np.empty(whole, np.float32)
    for n in range(outer):
        for first in range(0, inner, width):
            count = min(width, inner - first)
            for i in range(length):
                for j in range(count):
                    source[border + i * width + j] = values[n, i, first + j]
            lowest[:] = source[border : border + whole]
            for s in range(rises.shape[0]):
                rise, apart = rises[s], (s + 1) * width
                before = source[border - apart : border - apart + whole]
                after = source[border + apart : border + apart + whole]
                for k in range(whole):
                    one, other = before[k] + rise, after[k] + rise
                    nearer = one if one < other else other
                    lowest[k] = nearer if nearer < lowest[k] else lowest[k]
            for i in range(length):
                for j in range(count):
                    values[n, i, first + j] = lowest[i * width + j]


@njit(cache=True, nogil=True)
def lower_envelope_rows(values, rises):
    """The same along the last axis of float32 ``[n, length]``, in place."""
    rows, length = values.shape
    border = rises.shape[0]
    source = np.full(length + 2 * border, np.float32(np.inf), np.float32)
    for n in range(rows):
        row = values[n]
        source[border : border + length] = row
        for s in range(border):
            rise = rises[s]
            before = source[border - s - 1 : border - s - 1 + length]
            after = source[border + s + 1 : border + s + 1 + length]
            for k in range(length):
                one, other = before[k] + rise, after[k] + rise
                nearer = one if one < other else other
                row[k] = nearer if nearer < row[k] else row[k]
