"""Builds a stack of CT slices on a regular grid from geometry alone.

File names and InstanceNumber are ignored: slices are ordered by their position along the slice normal
``n = row x column``, so flipped, shuffled and oblique series are read correctly. A gantry tilt shows as positions that
drift sideways from slice to slice; :attr:`Stack.shear_mm` describes it, and it is corrected when the voxels are read. A
complete series with several slice distances is interpolated to an even grid of the smallest distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.dicom.headers import Frame
from ChangeMapJointLib.io.dicom.spacing import (
    GAP_FACTOR,
    JITTER_FRACTION,
    JITTER_MM,
    SAME_POSITION_MM,
    check_missing_slices,
    find_slice_distances,
)
from ChangeMapJointLib.io.placing import MAX_VOXELS
from ChangeMapJointLib.io.tilt import added_pixels

SAME_DIRECTION = 1e-3  # largest difference of direction cosines within a series
MAX_TILT_DEG = 45.0  # gantries tilt up to 30
ON_GRID = 0.05  # a slice this close to one of the even grid (in slice distances) counts as lying on it


@dataclass(frozen=True)
class Stack:
    """Slices that form one volume.

    Attributes:
        frames: in the order of z.
        grid: the grid with perpendicular axes; wider than a slice if a tilt has to be corrected.
        shear_mm: sideways drift in mm (along rows, along columns) from one slice of the grid to the next; (0, 0)
            without tilt.
        notes: remarks for the reader.
        grid_positions: position of each frame in slices of the grid, from 0; None if each frame is a slice of the grid.
    """

    frames: tuple[Frame, ...]
    grid: Grid
    shear_mm: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()
    grid_positions: tuple[float, ...] | None = None


def build_stack(frames: Sequence[Frame]) -> Stack:
    """Build one stack of all ``frames``, which have the same size, spacing and orientation.

    Raises:
        InputError: a position occurs twice, a slice is missing, or distances or sideways shifts are uneven.
    """
    first = frames[0]
    if len(frames) < 2 or first.orientation is None or first.spacing_mm is None:
        raise InputError(f"{len(frames)} slice(s)", expected="a volume")
    axes = _axes(first.orientation)
    positions = np.array([frame.position_mm for frame in frames], dtype=float)
    order = np.argsort(positions @ axes[:, 2], kind="stable")
    ordered, local = [frames[i] for i in order], positions[order] @ axes  # along row, column, normal
    steps = np.diff(local[:, 2])
    _check_positions(local[:, 2], ordered)
    slope, start = np.polyfit(np.arange(len(ordered)), local, 1)
    residual = local - (start + np.arange(len(ordered))[:, None] * slope)
    even = steps.max() <= GAP_FACTOR * np.median(steps) and np.abs(residual[:, 2]).max() <= _tolerance(slope[2])
    if not even:
        names = [frame.file.name for frame in ordered]
        distances = find_slice_distances(local[:, 2], names)
        if distances is not None:
            return _uneven_stack(ordered, axes, local, *distances)
        check_missing_slices(local[:, 2], names, float(np.median(steps)))
    notes = _check_residual(residual, slope[2], ordered)
    if not notes:  # an even stack keeps its exact origin
        start = local[0]
    shear_mm = _shear(slope[:2], len(ordered), float(slope[2]), notes)
    grid = _straight_grid(ordered, len(ordered), axes, start, float(slope[2]), shear_mm)
    return Stack(tuple(ordered), grid, shear_mm, tuple(notes))


def build_joined_stack(frames: Sequence[Frame], step_mm: float, note: str) -> Stack:
    """Build one stack of frames from several acquisitions at one slice distance.

    Where the acquisitions are out of step, slices are interpolated to the even grid of the first.

    Args:
        frames: with the same size, spacing and orientation.
        step_mm: their slice distance.
        note: that they were joined.

    Raises:
        InputError: the acquisitions are shifted sideways.
    """
    assert frames[0].orientation is not None
    axes = _axes(frames[0].orientation)
    positions = np.array([frame.position_mm for frame in frames], dtype=float)
    order = np.argsort(positions @ axes[:, 2], kind="stable")
    return _uneven_stack([frames[i] for i in order], axes, positions[order] @ axes, step_mm, note)


def _uneven_stack(frames: Sequence[Frame], axes: FloatArray, local: FloatArray, step_mm: float, note: str) -> Stack:
    """Build the stack on an even grid of ``step_mm``, for slices with several distances."""
    along = local[:, 2] - local[0, 2]
    slope, start = np.polyfit(along, local[:, :2], 1)
    residual = np.zeros_like(local)
    residual[:, :2] = local[:, :2] - (start + along[:, None] * slope)
    notes = [*_check_residual(residual, step_mm, frames), note]
    grid_positions = along / step_mm
    on_grid = np.abs(grid_positions - np.rint(grid_positions)) <= ON_GRID
    grid_positions[on_grid] = np.rint(grid_positions[on_grid])
    count = int(np.floor(grid_positions[-1] + 1e-9)) + 1
    shear_mm = _shear(slope * step_mm, count, step_mm, notes)
    grid = _straight_grid(frames, count, axes, local[0], step_mm, shear_mm)
    return Stack(tuple(frames), grid, shear_mm, tuple(notes), tuple(grid_positions.tolist()))


def _shear(drift: FloatArray, slices: int, step_mm: float, notes: list[str]) -> tuple[float, float]:
    """Return the sideways drift in mm from slice to slice and add a note; (0, 0) if it is only jitter.

    Raises:
        InputError: the drift is larger than any gantry tilt.
    """
    if np.abs(drift).max() * (slices - 1) <= JITTER_MM:
        return 0.0, 0.0
    angle = np.degrees(np.arctan2(np.hypot(*drift), step_mm))
    if angle > MAX_TILT_DEG:
        raise InputError(
            f"the slices move sideways by {angle:.0f} degrees",
            expected=f"a gantry tilt of at most {MAX_TILT_DEG:g}: ImageOrientationPatient and ImagePositionPatient do "
            "not fit together",
            remedy="export the series again",
        )
    notes.append(f"The slices are tilted by {angle:.1f} degrees (gantry tilt); the tilt was corrected.")
    return float(drift[0]), float(drift[1])


def _straight_grid(
    frames: Sequence[Frame],
    slices: int,
    axes: FloatArray,
    start: FloatArray,
    step_mm: float,
    shear_mm: tuple[float, float],
) -> Grid:
    """Return the grid without drift that covers every slice; ``start`` is the first position along the axes."""
    assert frames[0].spacing_mm is not None
    hx, hy = frames[0].spacing_mm
    (left, right), (top, bottom) = added_pixels(shear_mm, slices, (hx, hy))
    shape = (slices, frames[0].shape[0] + top + bottom, frames[0].shape[1] + left + right)
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise InputError(f"{shape} voxels are more than can be handled", expected=f"at most {MAX_VOXELS}")
    x, y, z = (float(v) for v in axes @ (start - np.array([left * hx, top * hy, 0.0])))
    a, b, c = axes.tolist()
    return Grid(shape, (hx, hy, round(step_mm, 6)), (x, y, z), (tuple(a), tuple(b), tuple(c)))


def _axes(orientation: tuple[float, ...]) -> FloatArray:
    """Return orthonormal row, column and normal directions as the columns of a right-handed 3x3 matrix."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(row @ column) > SAME_DIRECTION:
        raise InputError(
            f"ImageOrientationPatient {orientation} is not made of two perpendicular unit vectors",
            remedy="export the series again",
        )
    row = row / lengths[0]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return np.stack((row, np.cross(normal, row), normal), axis=1)


def _tolerance(step_mm: float) -> float:
    return JITTER_MM + JITTER_FRACTION * float(step_mm)


def _check_positions(along_mm: FloatArray, frames: Sequence[Frame]) -> None:
    """Check that no position occurs twice; ``along_mm`` is sorted."""
    repeated = np.flatnonzero(np.diff(along_mm) < SAME_POSITION_MM)
    if repeated.size:
        i = int(repeated[0])
        raise InputError(
            f"{repeated.size} slice positions occur more than once with different images, the first at "
            f"{along_mm[i]:.2f} mm ({frames[i].file.name}, {frames[i + 1].file.name})",
            remedy="give one series only",
        )


def _check_residual(residual: FloatArray, step_mm: float, frames: Sequence[Frame]) -> list[str]:
    """Return a note on small deviations from even positions.

    Raises:
        InputError: a deviation is beyond the tolerance.
    """
    tolerance = _tolerance(step_mm)
    worst = np.abs(residual).max(axis=0)
    along, sideways = float(worst[2]), float(worst[:2].max())
    for value, axis, text in ((along, [2], "unevenly spaced"), (sideways, [0, 1], "shifted sideways unevenly")):
        if value > tolerance:
            frame = frames[int(np.abs(residual[:, axis]).max(axis=1).argmax())]
            raise InputError(
                f"the slices are {text}: {frame.file.name} is {value:.2f} mm off an even stack",
                expected=f"at most {tolerance:.2f} mm",
                remedy="export the whole series again or give another series",
            )
    value = max(along, sideways)
    return [f"Slice positions deviate by up to {value:.2f} mm from an even stack."] if value > SAME_POSITION_MM else []
