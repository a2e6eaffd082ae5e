"""What the header of an image file says, whatever its format, and the volume that comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Shape3
from ChangeMapJointLib.core.hu import as_hu
from ChangeMapJointLib.io.placing import Placement
from ChangeMapJointLib.io.tilt import added_pixels, straighten_slice
from ChangeMapJointLib.io.voxel_data import VoxelData, read_values

MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "meter": 1000.0}
MM |= {"um": 0.001, "µm": 0.001, "μm": 0.001, "micron": 0.001, "microns": 0.001}


@dataclass(frozen=True)
class ImageHeader:
    """What a header says.

    Attributes:
        shape: ``[z, y, x]``.
        affine: 4x4 from index (i, j, k) to mm, LPS.
        data: where the numbers are.
        components: numbers a voxel.
        interleaved: the numbers of a voxel lie side by side; else each component is a volume of its own.
        slope: the true value is slope times the stored one plus ...
        intercept: ... this.
        notes: what a reader should know.
    """

    shape: Shape3
    affine: FloatArray
    data: VoxelData
    components: int = 1
    interleaved: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()


def time_series_error(volumes: int) -> InputError:
    """Why an image of four dimensions is not read."""
    return InputError(
        f"4-dimensional image: a series of {volumes} volumes (time points, phases, ...)",
        expected="one",
        remedy="save one of them as a file of its own and give that",
    )


def components_error(number: int, kind: str) -> InputError:
    """Why an image with several numbers a voxel is not read as a scan."""
    return InputError(
        f"{number} components a voxel ({kind})",
        expected="one number a voxel (CT in HU)",
        remedy="give the scan itself, in grey values",
    )


def mm_per_unit(unit: str) -> tuple[float, tuple[str, ...]]:
    """Millimetres of one ``unit`` of length, and a note where that is not 1.

    Raises:
        InputError: not known.
    """
    name = unit.strip().strip('"').lower()
    factor = MM.get(name, 1.0 if name in ("", "?", "unknown", "none") else None)
    if factor is None:
        raise InputError(f"lengths in '{unit[:40]}'", expected="mm", remedy="convert it")
    return factor, () if factor == 1.0 else (f"The header gives lengths in {name}; they were converted to mm.",)


def read_scan(header: ImageHeader, placement: Placement) -> tuple[NDArray[np.int16] | NDArray[np.float32], list[str]]:
    """HU on ``placement.grid``, and notes of reading.

    Raises:
        InputError: damaged, truncated, or voxels that are no finite numbers.
    """
    values, notes = read_values(header.data)
    hu = as_hu(scaled(values.reshape(header.shape), header))
    if placement.shear_mm == (0.0, 0.0):
        return hu, list(notes)
    spacing, slices = placement.grid.spacing_mm, header.shape[0]
    assert placement.grid.shape[1:] == _widened(header.shape, placement)
    straight = np.empty(placement.grid.shape, dtype=hu.dtype)
    for k, picture in enumerate(hu):
        straight[k] = straighten_slice(picture, k, slices, placement.shear_mm, spacing)
    return straight, list(notes)


def _widened(shape: Shape3, placement: Placement) -> tuple[int, int]:
    (left, right), (top, bottom) = added_pixels(placement.shear_mm, shape[0], placement.grid.spacing_mm)
    return shape[1] + top + bottom, shape[2] + left + right


def read_numbers(header: ImageHeader) -> tuple[NDArray[np.generic], list[str]]:
    """The voxels ``[z, y, x]``, or ``[z, y, x, c]``, in the file's own type where no scale is to be applied.

    Raises:
        InputError: damaged or truncated.
    """
    values, notes = read_values(header.data)
    count = header.components
    if count == 1:
        return scaled(values.reshape(header.shape), header), list(notes)
    array = values.reshape((*header.shape, count)) if header.interleaved else _last(values, header)
    return scaled(array, header), list(notes)


def _last(values: NDArray[np.generic], header: ImageHeader) -> NDArray[np.generic]:
    return np.ascontiguousarray(np.moveaxis(values.reshape((header.components, *header.shape)), 0, -1))


def scaled(array: NDArray[np.generic], header: ImageHeader) -> NDArray[np.generic]:
    """``slope * array + intercept``: of its own type without a scale, else float32 (whole numbers exact to 2^24)."""
    if (header.slope, header.intercept) == (1.0, 0.0):
        return array
    result = np.empty(array.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite, and is refused as such
        for part, values in zip(result, array, strict=True):
            part[...] = values.astype(np.float64) * header.slope + header.intercept
    return result
