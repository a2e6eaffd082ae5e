"""Where in the lungs a finding lies, in the words of a report: the patient's side, and upper, middle or lower third."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.scan.scan import Scan

Third = Literal["upper", "middle", "lower"]

_SAMPLES = 128  # of a slice along each edge, for the lung's height
_CUT_SHARE = 0.16  # area in the scan's last slice over the largest, from which the field of view cuts the lung


def third(scan: Scan, label: int, point_mm: FloatArray) -> Third | None:
    """Tell in which third of a lung's height a point lies.

    Height is along the patient's z axis, from the lung's lowest to its highest voxel, recesses included. Lobes are not
    named: that needs the fissures.

    Args:
        scan: a scan with its lungs.
        label: the lung, :data:`~ChangeMapJointLib.scan.lungs.RIGHT` or ``LEFT``.
        point_mm: the point, physical (x, y, z) LPS in the scan's space.

    Returns:
        The third; None where the scan does not show the lung's whole height.
    """
    height = scan.cached(("lung height", label), lambda: _height_mm(scan, label))
    if height is None:
        return None
    low, high = height
    share = (float(point_mm[2]) - low) / (high - low)
    return "lower" if share < 1 / 3 else "middle" if share < 2 / 3 else "upper"


def _height_mm(scan: Scan, label: int) -> tuple[float, float] | None:
    """Lowest and highest z of a lung in mm; None where there is none, or the field of view cuts it."""
    along = int(np.argmax(np.abs(np.asarray(scan.grid.direction)[2])))  # the image axis along the patient's z
    steps = [1 if axis == along else size // _SAMPLES + 1 for axis, size in enumerate(scan.grid.size)]
    index = np.argwhere(scan.lungs.labels[tuple(slice(None, None, step) for step in steps[::-1])] == label)[:, ::-1]
    if not len(index):
        return None
    areas = np.bincount(index[:, along], minlength=scan.grid.size[along])
    if max(areas[0], areas[-1]) > _CUT_SHARE * areas.max():
        return None
    z = scan.grid.to_physical(index * steps)[:, 2]
    low, high = float(z.min()), float(z.max())
    return (low, high) if high > low else None
