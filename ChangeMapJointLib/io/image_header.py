"""The header of an image file in any format, and reading the volume that it describes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Shape3
from ChangeMapJointLib.io.placing import Placement
from ChangeMapJointLib.io.tilt import added_pixels, straighten_slice
from ChangeMapJointLib.io.voxel_data import VoxelData, read_values
from ChangeMapJointLib.scan.missing import hu_and_unseen

MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "meter": 1000.0}
MM |= {"um": 0.001, "µm": 0.001, "μm": 0.001, "micron": 0.001, "microns": 0.001}


POSSIBLE_VOXEL_MM = (0.05, 50.0)  # of any scan of a patient, edges of thick slices included


@dataclass(frozen=True)
class ImageHeader:
    """The content of a header, independent of the file format.

    Attributes:
        shape: ``(z, y, x)``.
        affine: 4x4, from index (i, j, k) to mm, LPS.
        data: where the voxel values are stored.
        components: number of values per voxel.
        interleaved: the values of a voxel are stored side by side; otherwise each component is a volume of its own.
        slope: value = slope * stored value + intercept.
        intercept: see slope.
        notes: remarks for the reader.
    """

    shape: Shape3
    affine: FloatArray
    data: VoxelData
    components: int = 1
    interleaved: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadScan:
    """The voxels of a scan.

    Attributes:
        hu: ``[z, y, x]``.
        unseen: bool ``[z, y, x]``, where the file has no numbers; None if it has one everywhere.
        notes: remarks for the reader.
    """

    hu: NDArray[np.int16] | NDArray[np.float32]
    unseen: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def time_series_error(volumes: int) -> InputError:
    """Make the error for a four-dimensional image."""
    return InputError(
        f"4-dimensional image: a series of {volumes} volumes (time points, phases, ...)",
        expected="one volume",
        remedy="save one of them as a file of its own and give that",
    )


def components_error(number: int, kind: str) -> InputError:
    """Make the error for a scan with several values per voxel."""
    return InputError(
        f"{number} components per voxel ({kind})",
        expected="one number per voxel (CT in HU)",
        remedy="give the scan itself, in grey values",
    )


def mm_per_unit(unit: str, size: float = 0.0) -> tuple[float, tuple[str, ...]]:
    """Return the length of ``unit`` in mm, and a note if it is not 1.

    Args:
        unit: as the header calls it; many programs state another one than they use.
        size: of the largest edge of a voxel by the header. Where it cannot be in ``unit`` but can be in mm, it is
            taken for mm; 0 if it is not known.

    Raises:
        InputError: the unit is not known.
    """
    name = unit.strip().strip('"').lower()
    factor = MM.get(name, 1.0 if name in ("", "?", "unknown", "none") else None)
    if factor is None:
        raise InputError(f"lengths in '{unit[:40]}'", expected="mm", remedy="convert it")
    if _is_voxel_mm(size) and not _is_voxel_mm(size * factor):
        return 1.0, (f"The header gives lengths in {name}, which cannot be; they were taken for mm.",)
    return factor, () if factor == 1.0 else (f"The header gives lengths in {name}; they were converted to mm.",)


def _is_voxel_mm(size: float) -> bool:
    return POSSIBLE_VOXEL_MM[0] <= size <= POSSIBLE_VOXEL_MM[1]


def read_scan(header: ImageHeader, placement: Placement) -> ReadScan:
    """Read the scan as HU on ``placement.grid``.

    Raises:
        InputError: the file is damaged or truncated, or voxels inside the volume are not finite numbers.
    """
    values, notes = read_values(header.data)
    hu, unseen = hu_and_unseen(scaled(values.reshape(header.shape), header), overwrite=True)
    if placement.shear_mm == (0.0, 0.0):
        return ReadScan(hu, unseen, tuple(notes))
    assert placement.grid.shape[1:] == _padded_shape(header.shape, placement)
    straight = _straightened(hu, placement)
    if unseen is not None:
        unseen = np.greater(_straightened(unseen.astype(np.float32), placement), 0)
    return ReadScan(straight, unseen, tuple(notes))  # type: ignore[arg-type]


def _straightened(array: NDArray[np.generic], placement: Placement) -> NDArray[np.generic]:
    straight = np.empty(placement.grid.shape, dtype=array.dtype)
    for k, plane in enumerate(array):
        straight[k] = straighten_slice(plane, k, len(array), placement.shear_mm, placement.grid.spacing_mm)
    return straight


def _padded_shape(shape: Shape3, placement: Placement) -> tuple[int, int]:
    (left, right), (top, bottom) = added_pixels(placement.shear_mm, shape[0], placement.grid.spacing_mm)
    return shape[1] + top + bottom, shape[2] + left + right


def read_numbers(header: ImageHeader) -> tuple[NDArray[np.generic], list[str]]:
    """Read the voxels ``[z, y, x]`` or ``[z, y, x, c]``, in the file's own type unless a scale has to be applied.

    Raises:
        InputError: the file is damaged or truncated.
    """
    values, notes = read_values(header.data)
    count = header.components
    if count == 1:
        return scaled(values.reshape(header.shape), header), list(notes)
    array = values.reshape((*header.shape, count)) if header.interleaved else _components_last(values, header)
    return scaled(array, header), list(notes)


def _components_last(values: NDArray[np.generic], header: ImageHeader) -> NDArray[np.generic]:
    return np.ascontiguousarray(np.moveaxis(values.reshape((header.components, *header.shape)), 0, -1))


def scaled(array: NDArray[np.generic], header: ImageHeader) -> NDArray[np.generic]:
    """Return ``slope * array + intercept``: the same type without a scale, else float32 (integers exact to 2^24)."""
    if (header.slope, header.intercept) == (1.0, 0.0):
        return array
    result = np.empty(array.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow becomes infinite, which is refused later
        for plane, values in zip(result, array, strict=True):
            plane[...] = values.astype(np.float64) * header.slope + header.intercept
    return result
