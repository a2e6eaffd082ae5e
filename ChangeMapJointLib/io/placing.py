"""From the matrix in an image file's header to a straight grid.

Headers hold any affine matrix; scans lie on grids with perpendicular axes. In between are matrices that were rounded
(the nearest rotation is taken), slices that drift as under a tilted gantry (sheared straight), and the rest (refused).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Shape3, Vector3
from ChangeMapJointLib.io.tilt import added_pixels

NO_ORIENTATION = "The file does not say how the patient lies (no orientation)."
MAX_VOXELS = 2**31
EXACT_MM = 1e-3  # a matrix that is straight within this over the volume is taken as it is
ROUNDED_VOX = 0.1  # straightened axes may move no voxel farther
MAX_TILT_DEGREES = 45.0
LARGEST_MM = 1e9  # beyond, a header holds something else


@dataclass(frozen=True)
class Placement:
    """Where the voxels of an image are.

    Attributes:
        grid: straight; wider than a slice where there is a tilt to take out.
        shear_mm: see :func:`~ChangeMapJointLib.io.tilt.straighten_slice`; (0, 0) without tilt.
        notes: what a reader should know.
    """

    grid: Grid
    shear_mm: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()


def check_voxel_size(spacing_mm: FloatArray | tuple[float, ...], found: str = "voxel size") -> None:
    """Three positive finite numbers.

    Raises:
        InputError: calls them ``found``.
    """
    sizes = np.asarray(spacing_mm, dtype=float)
    if sizes.shape != (3,) or not ((sizes > 0) & (sizes < LARGEST_MM)).all():
        raise InputError(f"{found} {tuple(sizes.ravel().tolist())} mm", expected="three positive numbers")


def check_shape(shape: tuple[int, ...], components: int = 1) -> Shape3:
    """``shape`` ([z, y, x]), if there are voxels and no more than can be handled.

    Raises:
        InputError: otherwise.
    """
    if len(shape) != 3 or min(shape) < 1 or np.prod([*shape, components], dtype=float) > MAX_VOXELS:
        raise InputError(f"size {shape[::-1]}", expected=f"1 to {MAX_VOXELS} voxels")
    return shape[0], shape[1], shape[2]


@np.errstate(over="ignore", invalid="ignore")  # such numbers are refused
def find_placement(affine: FloatArray, shape: Shape3) -> Placement:
    """The straight grid for voxels ``[z, y, x]`` of ``shape``.

    Args:
        affine: 4x4, from index (i, j, k) to mm, LPS.
        shape: of the array.

    Raises:
        InputError: numbers that are none, or axes that are neither perpendicular nor those of tilted slices.
    """
    columns = affine[:3, :3]
    if not (np.abs(affine) < LARGEST_MM).all():
        raise InputError("position or axes that are no numbers of mm", remedy="export it again")
    lengths = np.linalg.norm(columns, axis=0)
    check_voxel_size(lengths)
    unit = columns / lengths
    if abs(np.linalg.det(unit)) < 0.5:  # axes closer than 30 degrees
        raise InputError("axes that do not span a volume", remedy="export it again")
    half = (np.array(shape[::-1]) - 1) / 2
    if np.abs(unit.T @ unit - np.eye(3)).max() * float((half * lengths).max()) <= EXACT_MM:
        return Placement(_grid(shape, unit, lengths, affine[:3, 3]))
    direction, spacing, off_vox, off_mm = _nearest(columns, half)
    if off_vox <= ROUNDED_VOX:
        origin = affine[:3, 3] + columns @ half - direction @ (spacing * half)  # the middle stays
        note = (
            f"The axes in the header are not quite perpendicular; the nearest that are were taken, {off_mm:.3f} mm off "
            "at most."
        )
        return Placement(_grid(shape, direction, spacing, origin), (0.0, 0.0), (note,))
    return _straightened(affine, shape, half)


def without_drift(columns: FloatArray) -> FloatArray:
    """``columns`` (3x3: steps along x, y, z) with the slices stacked straight above one another."""
    normal = np.cross(columns[:, 0], columns[:, 1])
    normal /= np.linalg.norm(normal)
    straight = columns.copy()
    straight[:, 2] = normal * (normal @ columns[:, 2])
    return straight


def _straightened(affine: FloatArray, shape: Shape3, half: FloatArray) -> Placement:
    """The grid without the drift of the slices within their own planes."""
    columns = affine[:3, :3]
    straight = without_drift(columns)
    direction, spacing, off_vox, _ = _nearest(straight, half)
    drift = direction.T @ (columns[:, 2] - straight[:, 2])
    angle = float(np.degrees(np.arctan2(np.hypot(drift[0], drift[1]), spacing[2])))
    if off_vox > ROUNDED_VOX or angle > MAX_TILT_DEGREES:
        _, _, _, off_mm = _nearest(columns, half)
        raise InputError(
            f"axes that are not perpendicular (sheared: {off_mm:.2f} mm off the nearest that are)",
            remedy="resample it to a straight grid",
        )
    shear_mm = (float(drift[0]), float(drift[1]))
    (left, right), (top, bottom) = added_pixels(shear_mm, shape[0], spacing.tolist())
    wide = check_shape((shape[0], shape[1] + top + bottom, shape[2] + left + right))
    middle = affine[:3, 3] + columns @ half  # stays where it is
    first = np.array([left, top, 0]) * spacing + spacing * half + [*(drift[:2] * half[2]), 0.0]
    note = f"The slices are tilted by {angle:.1f} degrees (gantry tilt); they were sheared straight."
    return Placement(_grid(wide, direction, spacing, middle - direction @ first), shear_mm, (note,))


def _nearest(columns: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
    """The nearest perpendicular axes: directions, spacing, and how far a corner moves in voxels and in mm."""
    u, _, vt = np.linalg.svd(columns / np.linalg.norm(columns, axis=0))  # polar decomposition
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
