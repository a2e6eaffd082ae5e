"""What kind of nodule a segmented lesion is: its texture, calcium, and whether it lies on the pleura.

The terms are those of the Fleischner Society 2017 (MacMahon et al., Radiology 284:228) and Lung-RADS 2022. Voxels above
-300 HU count as solid, as in the measurement of subsolid nodules (Cohen et al., Eur Radiol 27:3266, 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, bounding_box
from ChangeMapJointLib.core.hu import METAL_HU
from ChangeMapJointLib.lesions.patch import Patch
from ChangeMapJointLib.lesions.segment import BoolArray, Nodule

Texture = Literal["solid", "part-solid", "ground-glass"]
Extent = Literal["whole", "solid part"]

SOLID_PART_HU = -300.0  # denser tissue is solid, less dense tissue is ground glass
_CALCIUM_HU = 200.0  # denser than tissue, also with contrast medium in most of it
_CALCIUM_SHARE = 0.1  # of the inner part that must be calcium
_SOLID_SHARE = 0.05  # of the inner part of ground glass from which it is part-solid
_RIM_HU = 40.0  # by which a rim of ground glass exceeds the lung; fitted on synthetic lesions of eight patients
_BLUR_MM = 1.2  # an edge is blurred over one voxel, and over this length on finer grids
_INNER = 1.0  # depth, in that unit, from which a sample is free of the surroundings
_RIM = (1.0, 2.5)  # distances, in that unit, at which a rim is looked for
_WALL = 1.5  # distance from the wall, in that unit, from which its blur does not count as a rim
_FEWEST = 20  # samples from which a median means something
_LEAST_INNER = 0.5  # volume of the inner part, in cubes of that unit, from which its density is that of the tissue
_TOUCH_SHARE = 0.05  # of the layer around a lesion that must lie outside the lungs for it to lie on the pleura


@dataclass(frozen=True)
class NoduleType:
    """What kind of nodule a lesion is.

    Attributes:
        texture: 'solid', 'part-solid' or 'ground-glass'; None where blur hides it, as in small pale nodules.
        extent: what was measured: the 'whole' lesion, or the 'solid part' of a part-solid one.
        calcified: whether a tenth or more of its inner part is denser than 200 HU, without being metal.
        juxtapleural: whether it touches the border of the lung: the pleura, the mediastinum or the diaphragm.
    """

    texture: Texture | None
    extent: Extent
    calcified: bool
    juxtapleural: bool


def nodule_type(patch: Patch, nodule: Nodule, spacing_mm: FloatArray) -> NoduleType:
    """Tell the kind of a segmented nodule.

    Solid tissue inside counts where it lies deeper than the scan's blur. A segmentation at the density of a solid part
    leaves the ground glass around it out; that is found as a rim that is denser than the lung.

    Args:
        patch: the part of the scan.
        nodule: its segmentation.
        spacing_mm: voxel size of the scan along the patient's x, y, z.
    """
    unit_mm = np.maximum(spacing_mm, _BLUR_MM)
    sampling = patch.step_mm / unit_mm[::-1]
    start, stop = bounding_box(nodule.mask, np.ceil((_RIM[1] + 1.0) / sampling).astype(int))
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    hu, lungs, mask = patch.hu[box], patch.lungs[box], nodule.mask[box]
    depth = ndimage.distance_transform_edt(mask, sampling=sampling)
    away = ndimage.distance_transform_edt(~mask, sampling=sampling)
    inner = hu[depth > _INNER]
    known = inner.size * patch.step_mm**3 >= _LEAST_INNER * float(np.prod(unit_mm))
    solid = nodule.lesion_hu > SOLID_PART_HU
    texture: Texture | None = None
    if solid:
        rim_hu = _rim_hu(hu, lungs, mask, away, sampling, nodule.background_hu)
        texture = "part-solid" if rim_hu > _RIM_HU else "solid"
    elif known:
        texture = "part-solid" if float((inner > SOLID_PART_HU).mean()) >= _SOLID_SHARE else "ground-glass"
    layer = (away > 0) & (away <= _INNER)
    return NoduleType(
        texture,
        "solid part" if solid and texture == "part-solid" else "whole",
        known and nodule.lesion_hu < METAL_HU and float((inner > _CALCIUM_HU).mean()) >= _CALCIUM_SHARE,
        bool(layer.any()) and float((~lungs[layer]).mean()) >= _TOUCH_SHARE,
    )


def _rim_hu(
    hu: NDArray[np.float32],
    lungs: BoolArray,
    nodule_mask: BoolArray,
    away: FloatArray,
    sampling: FloatArray,
    background_hu: float,
) -> float:
    """By how many HU the rim around the mask exceeds the lung; 0 where too little of it is free of the wall."""
    to_wall = ndimage.distance_transform_edt(lungs | nodule_mask, sampling=sampling)
    rim = lungs & (away > _RIM[0]) & (away <= _RIM[1]) & (to_wall > _WALL)
    return float(np.median(hu[rim])) - background_hu if rim.sum() > _FEWEST else 0.0
