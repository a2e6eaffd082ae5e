"""Chests for ``rigid_robustness.py``: scans with their lungs, and what makes two scans of one patient differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.blur import FWHM
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, apply_affine
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions
from ChangeMapJointLib.scan.padding import mark_unseen
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.acquisition import SimulatedScan, move_scan
from ChangeMapJointLib.synthesis.motion import MotionOptions, draw_motion

FRAME_SHIFT_MM = np.array([300.0, -250.0, 420.0])  # scanners that do not share an origin
AIR_HU = -1024


@dataclass(frozen=True)
class Chest:
    """A scan with its lungs."""

    volume: Volume
    lungs: NDArray[np.bool_]

    def points_mm(self, count: int = 3000) -> FloatArray:
        """Physical points spread over the lungs."""
        index = np.argwhere(self.lungs)
        return self.volume.grid.to_physical(index[:: max(1, len(index) // count), ::-1])


# -- how scans differ -----------------------------------------------------------------
def read_chest(path: Path, cache: Path | None = None, mask: Path | None = None) -> Chest:
    """A scan and its lungs as the product finds them, or as ``mask`` has them; ``cache`` keeps them."""
    volume = mark_unseen(read_volume(path))
    if mask is not None:
        return Chest(volume, read_volume(mask).array > 0)
    kept = None if cache is None else cache / f"{path.name.split('.')[0]}.npz"
    if kept is not None and kept.exists():
        bits = np.load(kept)["bits"]
        return Chest(volume, np.unpackbits(bits, count=volume.array.size).reshape(volume.array.shape).astype(bool))
    lungs = segment_lungs(volume).mask
    if kept is not None:
        np.savez_compressed(kept, bits=np.packbits(lungs))
    return Chest(volume, lungs)


def at_spacing(chest: Chest, spacing_mm: Vector3, *, low_pass: bool = True) -> Chest:
    """The chest on other voxels, finer or coarser, as a scanner with such voxels has it; or just interpolated."""
    grid = chest.volume.grid
    missing_mm2 = np.maximum(np.square(spacing_mm) - np.square(grid.spacing_mm), 0.0) / FWHM**2
    hu = chest.volume.array.astype(np.float32)
    if low_pass and missing_mm2.any():
        hu = ndimage.gaussian_filter(hu, (np.sqrt(missing_mm2) / grid.spacing_mm)[::-1])
    target = grid.with_spacing(spacing_mm)
    array = np.rint(resample(hu, grid, target, outside=AIR_HU)).astype(np.int16)
    return Chest(Volume(array, target), resample(chest.lungs, grid, target) > 0.5)


def rigid(centre_mm: FloatArray, turn_deg: tuple[float, float, float], shift_mm: FloatArray) -> FloatArray:
    """4x4: turn about the centre, then shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    matrix[:3, 3] = centre_mm + shift_mm - matrix[:3, :3] @ centre_mm
    return matrix


def moved(chest: Chest, matrix: FloatArray, pad_vox: int = 0) -> Chest:
    """The chest at ``matrix @ x``, on its own grid (what leaves it is lost), or a padded one that follows the shift."""
    grid = chest.volume.grid
    if pad_vox:
        shift = apply_affine(matrix, grid.centre_mm) - grid.centre_mm
        grid = shifted_grid(grid.crop((-pad_vox,) * 3, np.add(grid.shape, pad_vox)), shift)
    back = np.linalg.inv(matrix)
    hu = resample(chest.volume.array, chest.volume.grid, grid, matrix=back, outside=AIR_HU)
    lungs = resample(chest.lungs, chest.volume.grid, grid, matrix=back) > 0.5
    return Chest(Volume(np.rint(hu).astype(np.int16), grid), lungs)


def shifted_grid(grid: Grid, shift_mm: FloatArray) -> Grid:
    x, y, z = (float(v) for v in np.add(grid.origin_mm, shift_mm))
    return replace(grid, origin_mm=(x, y, z))


def in_other_frame(chest: Chest) -> Chest:
    """The same voxels in the frame of another scanner."""
    return Chest(Volume(chest.volume.array, shifted_grid(chest.volume.grid, FRAME_SHIFT_MM)), chest.lungs)


def thick(chest: Chest, thickness_mm: float = 5.0) -> Chest:
    """Slices of 5 mm."""
    grid = chest.volume.grid
    slices = round(thickness_mm / grid.spacing_mm[2])
    blurred = ndimage.uniform_filter1d(chest.volume.array.astype(np.float32), slices, axis=0)
    target = grid.with_spacing((grid.spacing_mm[0], grid.spacing_mm[1], thickness_mm))
    hu = np.rint(resample(blurred, grid, target, outside=AIR_HU)).astype(np.int16)
    return Chest(Volume(hu, target), resample(chest.lungs, grid, target) > 0.5)


def noisy(chest: Chest, sigma_hu: float, seed: int) -> Chest:
    hu = chest.volume.array + np.random.default_rng(seed).normal(0.0, sigma_hu, chest.volume.array.shape)
    return Chest(Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), chest.volume.grid), chest.lungs)


def part(chest: Chest, low: float, high: float) -> Chest:
    """The slices between two heights of the lungs, 0 their bottom, 1 their top; beyond both everything is kept."""
    z = np.flatnonzero(chest.lungs.any(axis=(1, 2)))
    first = 0 if low <= 0 else int(z[0] + low * (z[-1] - z[0]))
    last = len(chest.lungs) if high >= 1 else int(z[0] + high * (z[-1] - z[0]))
    grid = chest.volume.grid.crop((first, 0, 0), (last, *chest.lungs.shape[1:]))
    return Chest(Volume(chest.volume.array[first:last], grid), chest.lungs[first:last])


def flipped(chest: Chest, *axes: int) -> Chest:
    """The content mirrored along array axes (0, 1, 2 for z, y, x)."""
    volume = Volume(np.ascontiguousarray(np.flip(chest.volume.array, axes)), chest.volume.grid)
    return Chest(volume, np.ascontiguousarray(np.flip(chest.lungs, axes)))


def one_lung_filled(chest: Chest, seed: int) -> Chest:
    """Soft tissue instead of the left lung, as after a collapse or a pneumonectomy."""
    left = chest.lungs.copy()
    left[:, :, : int(np.argwhere(chest.lungs)[:, 2].mean())] = False
    hu = chest.volume.array.copy()
    hu[left] = 30 + np.random.default_rng(seed).normal(0, 15, int(left.sum())).astype(np.int16)
    return Chest(Volume(hu, chest.volume.grid), chest.lungs & ~left)


def breathed(chest: Chest, seed: int, diaphragm_mm: float) -> tuple[Chest, tuple[FloatArray, FloatArray]]:
    """The chest at another depth of breathing, and where its lung points are in ``chest``."""
    grid = chest.volume.grid
    options = MotionOptions(
        diaphragm_mm=diaphragm_mm, ventral_mm=diaphragm_mm / 4, bump_mm=4.0, rotation_deg=4.0, translation_mm=10.0
    )
    motion = draw_motion(chest.lungs, grid, seed=seed, options=options)
    source = SimulatedScan(chest.volume.array.astype(np.float32), chest.lungs, np.zeros(grid.shape, np.int32), grid)
    scan = move_scan(source, motion, grid)
    found = Chest(Volume(np.clip(np.rint(scan.hu), -1024, 3071).astype(np.int16), grid), scan.lungs)
    points = found.points_mm()
    return found, (points, motion(points))


def below_the_lungs(chest: Chest) -> Chest | None:
    """The slices from 50 mm above the lungs' lower end downwards; the gas in them stands in for lungs."""
    grid = chest.volume.grid
    bottom = np.flatnonzero(chest.lungs.any(axis=(1, 2)))[0]
    last = int(bottom + 50.0 / grid.spacing_mm[2])
    below = part(chest, 0.0, 1.0)
    hu = below.volume.array[:last]
    gas = (hu < -300) & ndimage.binary_fill_holes(hu > -300, structure=np.ones((1, 3, 3)))
    grid = grid.crop((0, 0, 0), (last, *hu.shape[1:]))
    enough = float(gas.sum()) * grid.voxel_volume_ml > RigidOptions().least_lung_ml
    return Chest(Volume(hu, grid), gas) if enough else None
