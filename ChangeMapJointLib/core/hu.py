"""CT numbers: densities in HU that several parts of the program share, and the number types that hold HU.

The Hounsfield scale puts air at -1000 HU and water at 0. A constant that only one algorithm uses stays beside that
algorithm; one that two of them share, or that users see, is defined here and nowhere else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError

# -- what a file holds ----------------------------------------------------------------------
LOWEST_HU = -1024  # lowest HU of a CT: 12 bits with the usual intercept end here, and everything below is padding
MARK = 1e30  # programs write the largest numbers of a type, such as 3.4e38, where they have no value
NOT_SCANNED_HU = LOWEST_HU  # value outside the field of view, in memory and in written files

# -- what a density means -------------------------------------------------------------------
AIR_HU = -1000.0  # air, by definition of the scale; also assumed outside a scan where gradients are computed
GAS_HU = -965.0  # for a mean over several voxels: below is gas (room air, bowel, trachea), above is lung
VESSEL_HU = -450.0  # denser voxels of a lung are vessels, partial volume included
TISSUE_HU = -400.0  # half way between lung (-850) and soft tissue (50): the surface of a lung or of the body
SOFT_TISSUE_HU = -150.0  # denser is soft tissue, fat included; less dense is neither muscle nor tumour
METAL_HU = 1500.0  # denser is metal; calcified nodules and cortical bone stay below
AIR_OR_LUNG_HU = (-1100.0, -500.0)  # air round the patient and aerated lung, noise included
# below: aerated lung, whose density falls as it expands; above: blood and nodules, which keep theirs; between: a ramp
COMPRESSIBLE_HU = (-500.0, -100.0)

# -- windows --------------------------------------------------------------------------------
# From air to bone: metal, contrast peaks and padding must not dominate a correlation or a gradient. Registration and
# the training losses clip to it.
REGISTRATION_WINDOW_HU = (AIR_HU, 400.0)
NETWORK_WINDOW_HU = (-1000.0, 400.0)  # scaled to [-1, 1]; fixed, since the weights were trained with it
# From air to soft tissue: above it, two scans differ by contrast medium, bone and calcium.
CHANGE_WINDOW_HU = (AIR_HU, 50.0)
FULL_SCALE_HU = CHANGE_WINDOW_HU[1] - CHANGE_WINDOW_HU[0]  # a difference of 1050 HU is 1 on a change map

# level, width: as readers of chest CT set them
WINDOWS_HU = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0), "bone": (400.0, 1800.0)}


def as_hu(array: NDArray[np.generic], *, overwrite: bool = False) -> NDArray[np.int16] | NDArray[np.float32]:
    """Return ``array`` as HU: values below -1024 are raised to -1024; int16 where that is lossless, else float32.

    Args:
        array: ``[z, y, x]``, any real type. A writeable int16 array is changed in place.
        overwrite: change a writeable float32 array in place, too, where the result is float32.

    Raises:
        InputError: some voxels are NaN or infinite.
    """
    if array.dtype == np.int16:
        return np.maximum(array, LOWEST_HU, out=array if array.flags.writeable else None)  # type: ignore[no-any-return]
    limits = np.iinfo(np.int16)
    whole = True
    for plane in array:  # slice by slice, to avoid a second volume in memory
        if np.issubdtype(plane.dtype, np.floating):
            if not is_finite(plane).all():
                count = sum(int((~is_finite(p)).sum()) for p in array)
                raise InputError(
                    f"{count} voxel(s) are NaN or infinite", expected="finite HU", remedy="repair it or export it again"
                )
            whole = whole and bool((np.rint(plane) == plane).all())
        whole = whole and bool(plane.max() <= limits.max)
    if overwrite and not whole and array.dtype == np.float32 and array.flags.writeable:
        return np.maximum(array, np.float32(LOWEST_HU), out=array)  # type: ignore[no-any-return]
    result = np.empty(array.shape, dtype=np.int16 if whole else np.float32)
    for k, plane in enumerate(array):
        result[k] = np.maximum(plane.astype(np.float64), LOWEST_HU)
    return result


def is_finite(array: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Mark the values that are finite numbers, and not so large that they can only be marks; bool of the same shape."""
    return np.abs(array) < MARK  # type: ignore[no-any-return]
