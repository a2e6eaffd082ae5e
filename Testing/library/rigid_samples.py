"""A phantom chest with vessels and ribs that only one patient has, scanned in any pose.

It is that of a child, which is aligned in half the time of an adult's.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from phantoms import rotation
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, apply_affine
from ChangeMapJointLib.registration.rigid.align import RigidAlignment, align_rigid
from ChangeMapJointLib.registration.rigid.verdict import (
    RigidOptions,
)
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

SIZE = 0.8  # of an adult
MASTER = Grid((68, 61, 84), (3.0, 3.0, 3.0), (-124.5, -90.0, -100.5))  # the patient, sampled by every scan
FIELD_OF_VIEW = Grid((51, 46, 63), (4.0, 4.0, 4.0), (-124.0, -91.0, -100.0))
FILL_HU = -1024.0  # as a resampling leaves it outside of the scan
OTHER_FRAME_MM = (500.0, -300.0, 700.0)


# -- the phantom ----------------------------------------------------------------------
@cache
def patient(seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """HU and lungs of a chest on MASTER: outline alike in all patients, vessels and ribs as the seed has it."""
    rng = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*(np.arange(n) for n in MASTER.shape), indexing="ij")
    x, y, z = np.moveaxis(MASTER.to_physical(np.stack((i, j, k), -1)), -1, 0) / SIZE
    body = (x / 140) ** 2 + (y / 95) ** 2 < 1
    right = ((x + 62) / 48) ** 2 + ((y + 2) / 66) ** 2 + ((z - 3) / 98) ** 2 < 1
    left = ((x - 66) / 42) ** 2 + ((y - 4) / 62) ** 2 + ((z + 3) / 94) ** 2 < 1
    heart = ((x - 22) / 50) ** 2 + ((y + 25) / 42) ** 2 + ((z + 40) / 45) ** 2 < 1
    lungs = (right | left) & ~heart
    ribs = (np.abs((x / 126) ** 2 + (y / 83) ** 2 - 1) < 0.1) & _bands(z + 0.45 * y, np.sign(x), rng)
    vertebra = ((x / 18) ** 2 + ((y - 66) / 16) ** 2 < 1) & _bands(z, np.ones_like(z), rng, gap_mm=5.0)
    hu = np.where(body, 40.0, -1000.0)
    hu[ribs | vertebra] = 400.0
    texture = sum(unit_variance(ndimage.gaussian_filter(rng.standard_normal(MASTER.shape), s)) for s in (0.7, 1.0))
    vessels = np.clip(350 * (texture - 0.6), 0, 850)
    hu[lungs] = (-850 + vessels)[lungs]
    return ndimage.gaussian_filter(hu, 0.5).astype(np.float32), lungs


def _bands(height: FloatArray, side: FloatArray, rng: np.random.Generator, gap_mm: float = 16.0) -> NDArray[np.bool_]:
    """Bones along z of irregular thickness and distance, on either side their own."""
    found = np.zeros(height.shape, dtype=bool)
    for one in (-1, 1):
        bottom = -160.0
        while bottom < 160.0:
            top = bottom + rng.uniform(7, 13)
            found |= (side == one) & (height > bottom) & (height < top)
            bottom = top + gap_mm * rng.uniform(0.5, 1.5)
    return found


def unit_variance(values: FloatArray) -> FloatArray:
    return values / values.std()


def scan(
    seed: int = 1,
    *,
    grid: Grid = FIELD_OF_VIEW,
    pose: FloatArray | None = None,
    noise_hu: float = 0.0,
) -> tuple[Volume, NDArray[np.bool_]]:
    """A scan of the patient after moving to ``pose @ x``, and its lungs; what the master lacks is filled in."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    points = grid.to_physical(np.stack((i, j, k), -1))
    index = np.moveaxis(
        MASTER.to_index(apply_affine(np.linalg.inv(np.eye(4) if pose is None else pose), points)), -1, 0
    )
    hu, lungs = patient(seed)
    values = ndimage.map_coordinates(hu, index[::-1], order=1, mode="constant", cval=FILL_HU)
    if noise_hu:
        noise = np.random.default_rng(99).normal(0, noise_hu, values.shape)
        values = np.where(values > FILL_HU, values + noise, values)
    mask = ndimage.map_coordinates(lungs.astype(np.float32), index[::-1], order=1) > 0.5
    return Volume(np.clip(np.rint(values), -1024, 3071).astype(np.int16), grid), mask


def aligned(
    reference: tuple[Volume, NDArray[np.bool_]],
    template: tuple[Volume, NDArray[np.bool_]],
    options: RigidOptions | None = None,
) -> RigidAlignment:
    return align_rigid(Scan.of(reference[0], reference[1]), Scan.of(template[0], template[1]), options=options)


def refusal(reference: tuple[Volume, NDArray[np.bool_]], template: tuple[Volume, NDArray[np.bool_]]) -> str:
    with pytest.raises(InputError) as raised:
        aligned(reference, template)
    message = str(raised.value)
    assert "\n" not in message
    return message


def largest_error_mm(found: RigidAlignment, truth: FloatArray) -> float:
    """Over the points of the lungs."""
    points = MASTER.to_physical(np.argwhere(patient(1)[1])[::50, ::-1])
    return float(np.linalg.norm(apply_affine(found.matrix, points) - apply_affine(truth, points), axis=1).max())


def moved_by(turns_deg: Vector3 = (0, 0, 0), shift_mm: Vector3 = (0, 0, 0)) -> FloatArray:
    """4x4: the patient turned about the middle of the chest, then shifted."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(*turns_deg)
    matrix[:3, 3] = shift_mm
    return matrix


def grid_at(shift_mm: Vector3, *, spacing_mm: Vector3 = (4.0, 4.0, 4.0), pad_mm: float = 0.0) -> Grid:
    """The field of view in a frame whose origin is elsewhere, with other voxels."""
    extent = np.array(FIELD_OF_VIEW.extent_mm) + 2 * pad_mm
    nx, ny, nz = (int(n) for n in np.ceil(extent / spacing_mm))
    x, y, z = (float(v) for v in np.array(FIELD_OF_VIEW.origin_mm) - pad_mm + shift_mm)
    return Grid((nz, ny, nx), spacing_mm, (x, y, z))


def slices(whole: tuple[Volume, NDArray[np.bool_]], first: int, last: int) -> tuple[Volume, NDArray[np.bool_]]:
    volume, lungs = whole
    grid = volume.grid.crop((first, 0, 0), (last, *volume.array.shape[1:]))
    return Volume(volume.array[first:last], grid), lungs[first:last]


def mirrored(whole: tuple[Volume, NDArray[np.bool_]], *axes: int) -> tuple[Volume, NDArray[np.bool_]]:
    volume, lungs = whole
    return Volume(np.flip(volume.array, axes).copy(), volume.grid), np.flip(lungs, axes).copy()
