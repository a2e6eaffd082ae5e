"""From the matrix in the header of an image file to a grid with perpendicular axes.

A header may hold any affine matrix. If the matrix was only rounded, the nearest rotation is used. Slices that drift
sideways, as with a tilted gantry, are sheared straight. Anything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Shape3, Vector3
from ChangeMapJointLib.io.tilt import added_pixels

TURNED_AXIS = "The header gives a negative voxel size; that axis was turned round, as by ITK and 3D Slicer."
NO_ORIENTATION = "The file does not give the orientation of the patient."
MAX_VOXELS = 2**31
EXACT_MM = 1e-3  # a matrix whose axes are perpendicular within this over the whole volume is used as it is
ROUNDED_VOX = 0.1  # making the axes perpendicular may move no voxel by more than this
MAX_TILT_DEGREES = 45.0
LARGEST_MM = 1e9  # larger numbers in a header are not lengths


@dataclass(frozen=True)
class Placement:
    """The grid of an image, and the tilt to correct.

    Attributes:
        grid: with perpendicular axes; wider than a slice where a tilt has to be corrected.
        shear_mm: see :func:`~ChangeMapJointLib.io.tilt.straighten_slice`; (0, 0) without tilt.
        notes: remarks for the reader.
    """

    grid: Grid
    shear_mm: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()


def check_voxel_size(spacing_mm: FloatArray | tuple[float, ...], name: str = "voxel size") -> None:
    """Check for three positive finite numbers.

    Raises:
        InputError: they are not; the message calls them ``name``.
    """
    sizes = np.asarray(spacing_mm, dtype=float)
    if sizes.shape != (3,) or not ((sizes > 0) & (sizes < LARGEST_MM)).all():
        raise InputError(f"{name} {tuple(sizes.ravel().tolist())} mm", expected="three positive numbers")


def check_shape(shape: tuple[int, ...], components: int = 1) -> Shape3:
    """Check that a shape (z, y, x) has voxels, and no more than can be handled; return it.

    Raises:
        InputError: there are none or too many.
    """
    if len(shape) != 3 or min(shape) < 1 or np.prod([*shape, components], dtype=float) > MAX_VOXELS:
        raise InputError(f"size {shape[::-1]}", expected=f"1 to {MAX_VOXELS} voxels")
    return shape[0], shape[1], shape[2]


@np.errstate(over="ignore", invalid="ignore")  # overflow is refused below
def find_placement(affine: FloatArray, shape: Shape3) -> Placement:
    """Find the grid with perpendicular axes for an image.

    Args:
        affine: 4x4, from index (i, j, k) to mm, LPS.
        shape: (z, y, x) of the array.

    Raises:
        InputError: numbers that are not finite, or axes that are neither perpendicular nor those of tilted slices.
    """
    columns = affine[:3, :3]
    if not (np.abs(affine) < LARGEST_MM).all():
        raise InputError("position or axes are not lengths in mm", remedy="export it again")
    lengths = np.linalg.norm(columns, axis=0)
    check_voxel_size(lengths)
    unit = columns / lengths
    if abs(np.linalg.det(unit)) < 0.5:  # axes closer than 30 degrees
        raise InputError("the axes do not span a volume", remedy="export it again")
    half = (np.array(shape[::-1]) - 1) / 2
    if np.abs(unit.T @ unit - np.eye(3)).max() * float((half * lengths).max()) <= EXACT_MM:
        return Placement(_grid(shape, unit, lengths, affine[:3, 3]))
    direction, spacing, off_vox, off_mm = _nearest_perpendicular(columns, half)
    if off_vox <= ROUNDED_VOX:
        origin = affine[:3, 3] + columns @ half - direction @ (spacing * half)  # the centre stays in place
        note = (
            "The axes in the header are not quite perpendicular; the nearest perpendicular axes were used, at most "
            f"{off_mm:.3f} mm off."
        )
        return Placement(_grid(shape, direction, spacing, origin), (0.0, 0.0), (note,))
    return _tilted_placement(affine, shape, half)


def without_drift(columns: FloatArray) -> FloatArray:
    """Remove the sideways drift of the slices from ``columns`` (3x3: steps in mm along x, y, z)."""
    normal = np.cross(columns[:, 0], columns[:, 1])
    normal /= np.linalg.norm(normal)
    straight = columns.copy()
    straight[:, 2] = normal * (normal @ columns[:, 2])
    return straight


def _tilted_placement(affine: FloatArray, shape: Shape3, half: FloatArray) -> Placement:
    """Find the grid for tilted slices, without their sideways drift."""
    columns = affine[:3, :3]
    straight = without_drift(columns)
    direction, spacing, off_vox, _ = _nearest_perpendicular(straight, half)
    drift = direction.T @ (columns[:, 2] - straight[:, 2])
    angle = float(np.degrees(np.arctan2(np.hypot(drift[0], drift[1]), spacing[2])))
    if off_vox > ROUNDED_VOX or angle > MAX_TILT_DEGREES:
        _, _, _, off_mm = _nearest_perpendicular(columns, half)
        raise InputError(
            f"the axes are not perpendicular (sheared: {off_mm:.2f} mm off the nearest perpendicular ones)",
            remedy="resample it to a straight grid",
        )
    shear_mm = (float(drift[0]), float(drift[1]))
    (left, right), (top, bottom) = added_pixels(shear_mm, shape[0], spacing.tolist())
    padded = check_shape((shape[0], shape[1] + top + bottom, shape[2] + left + right))
    middle = affine[:3, 3] + columns @ half  # stays in place
    first = np.array([left, top, 0]) * spacing + spacing * half + [*(drift[:2] * half[2]), 0.0]
    note = f"The slices are tilted by {angle:.1f} degrees (gantry tilt); the tilt was corrected."
    return Placement(_grid(padded, direction, spacing, middle - direction @ first), shear_mm, (note,))


def _nearest_perpendicular(columns: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
    """Find the nearest perpendicular axes by polar decomposition.

    Returns:
        Directions (3x3), spacing in mm, and how far a corner of the volume moves, in voxels and in mm.
    """
    u, _, vt = np.linalg.svd(columns / np.linalg.norm(columns, axis=0))
    direction: FloatArray = u @ vt
    spacing = np.einsum("ij,ij->j", direction, columns)
    corners = half[:, None] * np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1)
    moved = direction.T @ (columns - direction * spacing) @ corners
    off_vox = float(np.abs(moved / spacing[:, None]).max()) if (spacing > 0).all() else np.inf
    return direction, spacing, off_vox, float(np.linalg.norm(moved, axis=0).max())


def _grid(shape: Shape3, direction: FloatArray, spacing_mm: FloatArray, origin_mm: FloatArray) -> Grid:
    a, b, c = (_vector(row) for row in direction)
    return Grid(shape, _vector(spacing_mm), _vector(origin_mm), (a, b, c))


def _vector(values: FloatArray) -> Vector3:
    x, y, z = (float(value) + 0.0 for value in values)
    return x, y, z
