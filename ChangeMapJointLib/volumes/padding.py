"""Voxels that no scanner measured: what lies outside a round field of view."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PADDING_HU = -1024  # reading raises whatever lies below it to this
_MARGIN_VOX = 2  # resampling before us may have mixed padding into its neighbours
_IN_PLANE = ndimage.generate_binary_structure(2, 1)


def padded(hu: NDArray[np.generic]) -> NDArray[np.bool_] | None:
    """Where the picture is only filled up: voxels of -1024 HU or less that reach the edge of their slice.

    Air round the patient that happens to be exactly that low counts as well, which does no harm: nothing
    is looked for there. The same value inside a lung does not count unless it is joined to the edge.

    Args:
        hu: ``[z, y, x]``.

    Returns:
        bool ``[z, y, x]``, two voxels wider in the slice than the padding itself; None where there is none.
    """
    result: NDArray[np.bool_] | None = None
    for z, plane in enumerate(hu):
        low = plane <= PADDING_HU
        edge = (low[0], low[-1], low[:, 0], low[:, -1])
        if not any(side.any() for side in edge):
            continue
        labels, count = ndimage.label(low, _IN_PLANE)
        outer = np.zeros(count + 1, dtype=bool)
        for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            outer[side] = True
        outer[0] = False
        if result is None:
            result = np.zeros(hu.shape, dtype=bool)
        result[z] = ndimage.binary_dilation(outer[labels], _IN_PLANE, iterations=_MARGIN_VOX)
    return result
