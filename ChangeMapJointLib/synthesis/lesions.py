"""Painting of lung nodules into a CT: solid, part-solid, ground-glass, or with tissue cut from another CT.

Borders are blended with ``alpha = clip(0.5 - distance / (2 s), 0, 1)``, so that no edge is visible.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.synthesis.acquisition import correlated_noise
from ChangeMapJointLib.synthesis.shapes import LesionShape

Texture = Literal["solid", "part-solid", "ground-glass"]
TEXTURES: tuple[Texture, ...] = get_args(Texture)

GROUND_GLASS_FEATHER = 2.0  # ground glass fades over a wider rim than a solid border
MOTTLE_MM = 2.0  # correlation length of the slow variation inside a lesion


@dataclass(frozen=True, eq=False)
class CutTexture:
    """Tissue of a lesion cut from a CT.

    Attributes:
        hu: float32 ``[x, y, z]`` around the lesion's centre, of lesion tissue only.
        step_mm: isotropic voxel size.
        rotation: 3x3; columns are the array's axes in physical space.
    """

    hu: NDArray[np.float32]
    step_mm: float
    rotation: NDArray[np.float64]

    def at(self, offsets_mm: FloatArray) -> FloatArray:
        """Interpolate the HU at points ``[..., 3]`` in mm from the centre."""
        index = offsets_mm @ self.rotation / self.step_mm + (np.array(self.hu.shape) - 1) / 2
        values = map_coordinates(self.hu, np.moveaxis(index, -1, 0), order=1, mode="nearest")
        return np.asarray(values, dtype=float)


@dataclass(frozen=True)
class SyntheticLesion:
    """Appearance of a nodule, without its position and size.

    Attributes:
        shape: its outline, in the orientation of the scan it is painted into.
        texture: solid, part-solid or ground-glass.
        solid_hu: HU of the solid part.
        ground_glass_hu: increase in HU of aerated lung by a ground-glass part.
        core: diameter of a part-solid nodule's solid core, as a fraction of the whole.
        softness: factor on the width of the border.
        cut: tissue that replaces the painted texture; None: paint ``texture``.
    """

    shape: LesionShape
    texture: Texture = "solid"
    solid_hu: float = 40.0
    ground_glass_hu: float = 280.0
    core: float = 0.5
    softness: float = 1.0
    cut: CutTexture | None = None

    def __post_init__(self) -> None:
        if self.texture not in TEXTURES:
            raise InputError(
                f"found {self.texture!r}", field="lesion texture", expected=f"one of {', '.join(TEXTURES)}"
            )

    def turned(self, rotation: NDArray[np.generic]) -> SyntheticLesion:
        """The lesion rotated by a 3x3 matrix."""
        cut = self.cut and replace(self.cut, rotation=np.asarray(rotation, dtype=float) @ self.cut.rotation)
        return replace(self, shape=self.shape.turned(rotation), cut=cut)


def paint_lesion(
    array: NDArray[np.float32],
    grid: Grid,
    lesion: SyntheticLesion,
    *,
    centre_mm: NDArray[np.generic],
    diameter_mm: float,
    lungs: NDArray[np.bool_],
    rng: np.random.Generator,
    noise_hu: float = 0.0,
    feather_vox: float = 0.8,
) -> NDArray[np.bool_]:
    """Paint a nodule into ``array``, in place.

    Nothing outside the lungs is changed and no voxel becomes less dense, so that a nodule on the pleura merges with the
    chest wall and vessels stay visible in ground glass.

    Args:
        array: HU ``[z, y, x]``; modified.
        grid: its grid.
        lesion: appearance of the nodule.
        centre_mm: its centre, LPS.
        diameter_mm: of the sphere with its volume.
        lungs: where it may be painted, bool ``[z, y, x]``, vessels included.
        rng: for the noise inside a solid part.
        noise_hu: standard deviation of that noise, as in the scan (0 where noise is added later).
        feather_vox: s in the formula of the module for a softness of 1, in mean voxel edges.

    Returns:
        The lesion's mask, bool ``[z, y, x]``: voxels with alpha of at least 0.5.
    """
    support = np.zeros(grid.shape, dtype=bool)
    feather_mm = lesion.softness * feather_vox * float(np.prod(grid.spacing_mm)) ** (1 / 3)
    box, offsets = _neighbourhood(grid, centre_mm, lesion.shape.radius_mm(diameter_mm) + 4 * feather_mm)
    if diameter_mm <= 0 or offsets.size == 0:
        return support
    crop, inside = array[box], lungs[box]
    mottle = _mottle(rng, crop.shape, grid)
    if lesion.cut is not None:
        distance_mm = lesion.shape.signed_distance(offsets, diameter_mm)
        alpha = _alpha(distance_mm, feather_mm)
        target = lesion.cut.at(offsets) + correlated_noise(rng, crop.shape, (0.6, 0.6, 0.6)) * noise_hu
        crop += np.where(inside, alpha * np.maximum(target - crop, 0.0), 0).astype(np.float32)
        support[box] = inside & (distance_mm <= 0)
        return support
    if lesion.texture != "solid":
        alpha = _alpha(lesion.shape.signed_distance(offsets, diameter_mm), GROUND_GLASS_FEATHER * feather_mm)
        aerated = np.clip(-crop / 800.0, 0.0, 1.0)
        raised = lesion.ground_glass_hu * np.maximum(1 + 0.25 * mottle, 0.0)
        crop += np.where(inside, alpha * aerated * raised, 0).astype(np.float32)
    if lesion.texture != "ground-glass":
        core = diameter_mm * (lesion.core if lesion.texture == "part-solid" else 1.0)
        alpha = _alpha(lesion.shape.signed_distance(offsets, core), feather_mm)
        noise = correlated_noise(rng, crop.shape, (0.6, 0.6, 0.6)) * noise_hu
        target = lesion.solid_hu + 8.0 * mottle + noise
        crop += np.where(inside, alpha * np.maximum(target - crop, 0.0), 0).astype(np.float32)
    support[box] = inside & (lesion.shape.signed_distance(offsets, diameter_mm) <= 0)
    return support


def _alpha(distance_mm: FloatArray, feather_mm: float) -> FloatArray:
    return np.clip(0.5 - distance_mm / (2 * feather_mm), 0.0, 1.0)


def _mottle(rng: np.random.Generator, shape: tuple[int, ...], grid: Grid) -> NDArray[np.float32]:
    x, y, z = (MOTTLE_MM / h for h in grid.spacing_mm)
    return correlated_noise(rng, shape, (z, y, x))


def _neighbourhood(
    grid: Grid, centre_mm: NDArray[np.generic], radius_mm: float
) -> tuple[tuple[slice, slice, slice], FloatArray]:
    """The box of voxels within ``radius_mm`` of the centre, and their offsets ``[z, y, x, 3]`` in mm from it."""
    i, j, k = grid.to_index(centre_mm)
    nz, ny, nx = grid.shape
    hx, hy, hz = grid.spacing_mm
    spans = ((k, hz, nz), (j, hy, ny), (i, hx, nx))
    starts = [max(int(np.floor(c - radius_mm / h)), 0) for c, h, _ in spans]
    stops = [min(int(np.ceil(c + radius_mm / h)) + 1, n) for c, h, n in spans]
    box = (slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2]))
    index = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(starts, stops, strict=True)), indexing="ij"), -1)
    return box, grid.to_physical(index[..., ::-1]) - np.asarray(centre_mm, dtype=float)
