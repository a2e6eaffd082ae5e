"""CT values: the densities that several parts of the program mean alike, and the number types they travel in.

Hounsfield's scale puts air at -1000 HU and water at 0. A constant that only one algorithm knows stays beside it; one
that two of them share, or that users see, is defined here and nowhere else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError

# -- what a file holds ----------------------------------------------------------------------
LOWEST_HU = -1024  # of a CT: 12 bits with the usual intercept end here, and everything below is padding
NOT_SCANNED_HU = LOWEST_HU  # given to what lies outside the field of view, in files and in what is written

# -- what a density means -------------------------------------------------------------------
AIR_HU = -1000.0  # air, by the definition of the scale; also what lies beside a scan where its gradients count
GAS_HU = -965.0  # as a mean over some voxels: darker is gas (room air, bowel, trachea), lighter is lung
VESSEL_HU = -450.0  # denser parts of a lung are vessels, partial volume included
TISSUE_HU = -400.0  # half way between lung (-850) and soft tissue (50): where a lung's or a body's surface runs
SOFT_TISSUE_HU = -150.0  # denser is soft tissue, fat included; less dense is no muscle and no tumour
METAL_HU = 1500.0  # denser is metal: calcified nodules and cortical bone stay below
AIR_OR_LUNG_HU = (-1100.0, -500.0)  # air round the patient and aerated lung, noise included
# aerated lung below, whose density falls as it expands; blood and nodules above, which keep theirs; a ramp between
COMPRESSIBLE_HU = (-500.0, -100.0)

# -- windows --------------------------------------------------------------------------------
# From air to bone: metal, contrast peaks and padding must not carry a correlation or a gradient. All that registers
# clips to it, as do the training's losses.
REGISTRATION_WINDOW_HU = (AIR_HU, 400.0)
NETWORK_WINDOW_HU = (-1000.0, 400.0)  # becomes [-1, 1]; bound to the weights, which were trained on it
# From air to soft tissue: above it, two scans differ by contrast medium, bone and calcium.
CHANGE_WINDOW_HU = (AIR_HU, 50.0)
FULL_SCALE_HU = CHANGE_WINDOW_HU[1] - CHANGE_WINDOW_HU[0]  # the difference that a change map shows as 1: 1050 HU

# level, width: as readers of chest CT set them
WINDOWS_HU = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0), "bone": (400.0, 1800.0)}


def as_hu(array: NDArray[np.generic]) -> NDArray[np.int16] | NDArray[np.float32]:
    """``array`` with nothing below -1024, as int16 where that loses nothing, else float32.

    Args:
        array: ``[z, y, x]``, any real type; an int16 array that this function owns is changed in place.

    Raises:
        InputError: voxels that are NaN or infinite.
    """
    if array.dtype == np.int16:
        return np.maximum(array, LOWEST_HU, out=array if array.flags.writeable else None)  # type: ignore[no-any-return]
    limits = np.iinfo(np.int16)
    whole = True
    for part in array:  # slice by slice: no second volume in memory
        if np.issubdtype(part.dtype, np.floating):
            if not _fit(part).all():
                count = sum(int((~_fit(one)).sum()) for one in array)
                raise InputError(
                    f"{count} voxel(s) are NaN or infinite", expected="finite HU", remedy="repair or export again"
                )
            whole = whole and bool((np.rint(part) == part).all())
        whole = whole and bool(part.max() <= limits.max)
    result = np.empty(array.shape, dtype=np.int16 if whole else np.float32)
    for k, part in enumerate(array):
        result[k] = np.maximum(part.astype(np.float64), LOWEST_HU)
    return result


def _fit(part: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where numbers are finite and stay so as float32."""
    return np.abs(part) <= np.finfo(np.float32).max  # type: ignore[no-any-return]
