"""Real lesions, cut from a CT by their masks, to be inserted at another place (paper, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label, map_coordinates
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box
from ChangeMapJointLib.training.acquisition import without_noise
from ChangeMapJointLib.training.lesions import CutTexture, Texture
from ChangeMapJointLib.training.shapes import LARGEST_MM, SMALLEST_MM, LesionShape, shape_of_body

MARGIN_VOX = 8  # of CT that the filter of noise needs round the lesion
SOLID_HU = -300.0
RIM_MM = 2.0  # of partial volume, which says nothing of the texture
MOSTLY, HARDLY = 0.75, 0.1  # shares of solid tissue in a solid lesion, and in ground glass


@dataclass(frozen=True, eq=False)
class CutLesion:
    """A lesion that was cut out.

    Attributes:
        shape: its outline; ``full_mm`` is its diameter, and smaller sizes are what erosion leaves.
        inside: its tissue.
        texture: what the tissue is: solid, part-solid or ground-glass.
    """

    shape: LesionShape
    inside: CutTexture
    texture: Texture

    def turned(self, rng: np.random.Generator) -> CutLesion:
        """The same, turned at random."""
        rotation = np.asarray(Rotation.from_quat(rng.normal(size=4)).as_matrix(), dtype=float)
        inside = replace(self.inside, rotation=rotation @ self.inside.rotation)
        return CutLesion(self.shape.turned(rotation), inside, self.texture)


def cut_lesions(hu: NDArray[np.generic], lesions: NDArray[np.bool_], grid: Grid) -> list[CutLesion]:
    """The lesions in a mask, without those that cannot be inserted elsewhere.

    Args:
        hu: ``[z, y, x]``.
        lesions: the mask, ``[z, y, x]``; lesions that touch are one.
        grid: of both.

    Returns:
        One of each connected part from 5 to 40 mm across that is seen whole from its centre.
    """
    parts, count = label(lesions, np.ones((3, 3, 3)))
    found = (_cut(hu, parts == number, grid) for number in range(1, count + 1))
    return [one for one in found if one is not None]


def _cut(hu: NDArray[np.generic], mask: NDArray[np.bool_], grid: Grid) -> CutLesion | None:
    start, stop = bounding_box(mask, MARGIN_VOX)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    mask, grid = mask[box], grid.crop(start, stop)
    diameter = (6 * mask.sum() * grid.voxel_volume_ml * 1000 / np.pi) ** (1 / 3)
    if not SMALLEST_MM <= diameter <= LARGEST_MM:
        return None
    points = grid.to_physical(np.argwhere(mask)[:, ::-1])
    centre = points.mean(axis=0)
    reach = float(np.linalg.norm(points - centre, axis=1).max()) + 2 * max(grid.spacing_mm)
    shape = shape_of_body(mask, grid.spacing_mm[::-1])
    if shape is None:
        return None
    shape = replace(shape.turned(np.array(grid.direction)), full_mm=round(float(diameter), 2))
    smooth = without_noise(hu[box], grid)
    nearest = distance_transform_edt(~mask, sampling=grid.spacing_mm[::-1], return_distances=False, return_indices=True)
    step = min(grid.spacing_mm)
    tissue = _resampled(smooth[tuple(nearest)], grid, _around(centre, reach, step))
    depth = distance_transform_edt(mask, sampling=grid.spacing_mm[::-1])
    inner = depth >= min(RIM_MM, float(depth.max()))
    solid = float((smooth[inner] > SOLID_HU).mean())
    texture: Texture = "solid" if solid >= MOSTLY else "ground-glass" if solid < HARDLY else "part-solid"
    inside = CutTexture(tissue.astype(np.float32), step, np.eye(3))
    return CutLesion(shape, inside, texture)


def _around(centre: FloatArray, reach: float, step: float) -> FloatArray:
    """Points ``[x, y, z, 3]`` in mm, a cube round ``centre``."""
    n = int(np.ceil(reach / step))
    along = np.arange(-n, n + 1) * step
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1) + centre


def _resampled(array: NDArray[np.float32], grid: Grid, points: FloatArray) -> FloatArray:
    index = np.moveaxis(grid.to_index(points)[..., ::-1], -1, 0)
    return np.asarray(map_coordinates(array, index, order=1, mode="nearest"), dtype=float)
