"""Real lesions cut from a CT by their masks, to be inserted elsewhere (Kohlbrandt et al. 2024, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, label, map_coordinates
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.synthesis.acquisition import denoise
from ChangeMapJointLib.synthesis.lesions import CutTexture, Texture
from ChangeMapJointLib.synthesis.shapes import LARGEST_MM, SMALLEST_MM, LesionShape, shape_of_body

MARGIN_VOX = 8  # of CT around the lesion that the noise filter needs
SOLID_HU = -300.0
RIM_MM = 2.0  # partial volume at the border, which is ignored for the texture
SOLID_FROM, GROUND_GLASS_BELOW = 0.75, 0.1  # fraction of solid tissue; part-solid is in between


@dataclass(frozen=True, eq=False)
class CutLesion:
    """A lesion cut from a CT.

    Attributes:
        shape: its outline; ``full_mm`` is its diameter, and smaller sizes are made by erosion.
        inside: its tissue.
        texture: solid, part-solid or ground-glass.
    """

    shape: LesionShape
    inside: CutTexture
    texture: Texture

    def turned(self, rng: np.random.Generator) -> CutLesion:
        """The lesion in a random orientation."""
        rotation = np.asarray(Rotation.from_quat(rng.normal(size=4)).as_matrix(), dtype=float)
        inside = replace(self.inside, rotation=rotation @ self.inside.rotation)
        return CutLesion(self.shape.turned(rotation), inside, self.texture)


def cut_lesions(hu: NDArray[np.generic], lesions: NDArray[np.bool_], grid: Grid) -> list[CutLesion]:
    """Cut out the lesions in a mask, without those that cannot be inserted elsewhere.

    Args:
        hu: the scan in HU, ``[z, y, x]``.
        lesions: the mask, ``[z, y, x]``; lesions that touch count as one.
        grid: of both.

    Returns:
        Every connected part with a diameter from 5 to 40 mm that is star-shaped around its centre and does not touch
        the border of the scan.

    Raises:
        InputError: the mask has another shape than the scan.
    """
    if not hu.shape == lesions.shape == grid.shape:
        raise InputError(
            f"found a mask of shape {lesions.shape}", field="lesions to cut", expected=f"the scan's {hu.shape}"
        )
    parts, _ = label(lesions, np.ones((3, 3, 3)))
    candidates = (_cut(hu, parts, number, box, grid) for number, box in enumerate(find_objects(parts), start=1))
    return [lesion for lesion in candidates if lesion is not None]


def _cut(
    hu: NDArray[np.generic], parts: NDArray[np.integer], number: int, box: tuple[slice, ...], grid: Grid
) -> CutLesion | None:
    """Cut out part ``number`` with the bounding box ``box``; None where it cannot be used."""
    if any(span.start == 0 or span.stop == n for span, n in zip(box, parts.shape, strict=True)):
        return None  # cut off by the scan's border
    volume_mm3 = float((parts[box] == number).sum()) * grid.voxel_volume_ml * 1000
    diameter = round(float((6 * volume_mm3 / np.pi) ** (1 / 3)), 2)
    if not SMALLEST_MM <= diameter <= LARGEST_MM:
        return None
    start = [max(span.start - MARGIN_VOX, 0) for span in box]
    stop = [min(span.stop + MARGIN_VOX, n) for span, n in zip(box, parts.shape, strict=True)]
    wide_box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    mask, grid = parts[wide_box] == number, grid.crop(start, stop)
    shape = shape_of_body(mask, grid.spacing_mm[::-1])
    if shape is None:
        return None
    shape = replace(shape.turned(np.array(grid.direction)), full_mm=diameter)
    smooth = denoise(hu[wide_box], grid)
    spacing = grid.spacing_mm[::-1]
    depth = distance_transform_edt(mask, sampling=spacing)
    inner = depth > min(RIM_MM, float(depth.max()) - 1e-3)
    texture = _texture(float((smooth[inner] > SOLID_HU).mean()))
    # the rim is half lung, and painting fades it again: replace it by the nearest deeper tissue
    nearest = distance_transform_edt(~inner, sampling=spacing, return_distances=False, return_indices=True)
    points = grid.to_physical(np.argwhere(mask)[:, ::-1])
    centre = points.mean(axis=0)
    reach = float(np.linalg.norm(points - centre, axis=1).max()) + 2 * max(grid.spacing_mm)
    step = min(grid.spacing_mm)
    tissue = _resampled(smooth[tuple(nearest)], grid, _cube(centre, reach, step)).astype(np.float32)
    return CutLesion(shape, CutTexture(tissue, step, np.eye(3)), texture)


def _texture(solid_fraction: float) -> Texture:
    if solid_fraction >= SOLID_FROM:
        return "solid"
    return "ground-glass" if solid_fraction < GROUND_GLASS_BELOW else "part-solid"


def _cube(centre: FloatArray, reach: float, step: float) -> FloatArray:
    """Points ``[x, y, z, 3]`` in mm of a cubic grid around ``centre``."""
    n = int(np.ceil(reach / step))
    along = np.arange(-n, n + 1) * step
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1) + centre


def _resampled(array: NDArray[np.float32], grid: Grid, points: FloatArray) -> FloatArray:
    index = np.moveaxis(grid.to_index(points)[..., ::-1], -1, 0)
    return np.asarray(map_coordinates(array, index, order=1, mode="nearest"), dtype=float)
