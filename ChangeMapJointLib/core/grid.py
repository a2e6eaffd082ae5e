"""Positions of voxels in space. This is the only file that converts between coordinate frames.

Frames and axis orders:

- **array**: ``[z, y, x]``, as numpy and torch hold a volume;
- **index**: continuous voxel coordinates ``(i, j, k)`` along the array's x, y and z axes,
  0 at the *centre* of the first voxel (half-voxel edges are at -0.5 and n - 0.5);
- **physical**: ``(x, y, z)`` in mm, LPS (+x to the patient's left, +y to the back, +z to the
  head), as in DICOM and SimpleITK;
- **unit**: torch's ``grid_sample`` frame with ``align_corners=True``: -1 and +1 are the
  *centres* of the first and the last voxel;
- **RAS**: 3D Slicer's world coordinates, used in ``scene`` only; see :func:`lps_to_ras`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk
    from numpy.typing import ArrayLike

FloatArray = NDArray[np.float64]
Vector3 = tuple[float, float, float]
Matrix3 = tuple[Vector3, Vector3, Vector3]
Shape3 = tuple[int, int, int]

ALIGN_CORNERS = True  # voxel centres at the ends of the unit frame: exact for integer shifts
IDENTITY3: Matrix3 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxel centres in physical space.

    Attributes:
        shape: numbers of voxels ``(nz, ny, nx)``, as ``array.shape``.
        spacing_mm: distances between neighbours along ``(x, y, z)`` of the array, > 0.
        origin_mm: physical position of voxel (0, 0, 0), LPS.
        direction: 3x3; *columns* are the unit vectors of the array's x, y, z axes in LPS.

    Examples:
        >>> grid = Grid(shape=(40, 52, 72), spacing_mm=(0.7, 0.7, 1.5), origin_mm=(-180.0, -160.0, -300.0))
        >>> grid.size
        (72, 52, 40)
        >>> grid.to_physical([10, 0, 2]).tolist()  # (i, j, k) to (x, y, z)
        [-173.0, -160.0, -297.0]
        >>> grid.to_index([-173.0, -160.0, -297.0]).round(6).tolist()
        [10.0, 0.0, 2.0]
    """

    shape: Shape3
    spacing_mm: Vector3 = (1.0, 1.0, 1.0)
    origin_mm: Vector3 = (0.0, 0.0, 0.0)
    direction: Matrix3 = IDENTITY3

    def __post_init__(self) -> None:
        try:
            three = len(self.shape) == 3 and all(n == int(n) and n >= 1 for n in self.shape)
            apart = len(self.spacing_mm) == 3 and all(np.isfinite(h) and h > 0 for h in self.spacing_mm)
            placed = len(self.origin_mm) == 3 and all(np.isfinite(x) for x in self.origin_mm)
            matrix = np.asarray(self.direction, dtype=float)
        except (TypeError, ValueError) as error:
            raise InputError(f"found {self}", field="Grid", expected="numbers: three, and 3x3 for direction") from error
        for name, valid, expected in (
            ("shape", three, "three positive whole numbers (z, y, x)"),
            ("spacing_mm", apart, "three positive numbers (x, y, z)"),
            ("origin_mm", placed, "three numbers (x, y, z)"),
            (
                "direction",
                matrix.shape == (3, 3) and np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-3),
                "an orthonormal 3x3 matrix",
            ),
        ):
            if not valid:
                raise InputError(f"found {getattr(self, name)}", field=f"Grid.{name}", expected=expected)

    # -- size -------------------------------------------------------------------------
    @property
    def size(self) -> Shape3:
        """Numbers of voxels along (x, y, z)."""
        nz, ny, nx = self.shape
        return nx, ny, nz

    @property
    def extent_mm(self) -> Vector3:
        """Edge lengths of the box that the voxels fill, along (x, y, z)."""
        x, y, z = (n * h for n, h in zip(self.size, self.spacing_mm, strict=True))
        return x, y, z

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml (1000 mm^3)."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    # -- frames -----------------------------------------------------------------------
    @property
    def affine(self) -> FloatArray:
        """4x4 matrix from index (i, j, k, 1) to physical (x, y, z, 1)."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction) * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    @property
    def inverse_affine(self) -> FloatArray:
        """4x4 matrix from physical (x, y, z, 1) to index (i, j, k, 1)."""
        inverse: FloatArray = np.linalg.inv(self.affine).astype(np.float64)
        return inverse

    def to_physical(self, index: ArrayLike) -> FloatArray:
        """Return physical points (..., 3) in mm from continuous indices (..., 3) ordered (i, j, k)."""
        return apply_affine(self.affine, index)

    def to_index(self, points_mm: ArrayLike) -> FloatArray:
        """Return continuous indices (..., 3) ordered (i, j, k) from physical points (..., 3) in mm."""
        return apply_affine(self.inverse_affine, points_mm)

    @property
    def unit_from_index(self) -> FloatArray:
        """4x4 matrix from index to the unit frame (x, y, z order) of ``grid_sample``."""
        scale = np.array([2.0 / max(n - 1, 1) for n in self.size])
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = [-1.0 if n > 1 else 0.0 for n in self.size]
        return matrix

    @property
    def centre_mm(self) -> Vector3:
        """Physical position of the middle of the box."""
        x, y, z = self.to_physical((np.array(self.size) - 1) / 2)
        return float(x), float(y), float(z)

    def contains(self, points_mm: ArrayLike) -> NDArray[np.bool_]:
        """Return whether points (..., 3) in mm lie inside the box that the voxels fill, outer half voxels included."""
        index = self.to_index(points_mm)
        inside = (index >= -0.5 - 1e-6) & (index <= np.array(self.size) - 0.5 + 1e-6)
        return np.asarray(inside.all(axis=-1))

    # -- other grids ------------------------------------------------------------------
    def crop(self, start: ArrayLike, stop: ArrayLike) -> Grid:
        """Return the grid of ``array[z0:z1, y0:y1, x0:x1]``, with start and stop ordered (z, y, x).

        Indices below 0 or beyond the shape extend the grid.
        """
        begin, end = np.asarray(start, dtype=int), np.asarray(stop, dtype=int)
        nz, ny, nx = (int(n) for n in end - begin)
        x, y, z = (float(v) for v in self.to_physical(begin[::-1]))
        return Grid((nz, ny, nx), self.spacing_mm, (x, y, z), self.direction)

    def with_spacing(self, spacing_mm: Vector3) -> Grid:
        """Return a grid with the same axes and centre but other spacings (x, y, z) that covers this one's box."""
        new = np.asarray(spacing_mm, dtype=float)
        size = np.maximum(np.ceil(np.asarray(self.extent_mm) / new - 1e-6), 1).astype(int)
        middle = np.asarray(self.centre_mm)
        origin = middle - np.asarray(self.direction) @ (new * (size - 1) / 2)
        nx, ny, nz = (int(n) for n in size)
        hx, hy, hz = (float(h) for h in new)
        x, y, z = (float(v) for v in origin)
        return Grid((nz, ny, nx), (hx, hy, hz), (x, y, z), self.direction)

    def lps_view(self, array: NDArray[Any]) -> tuple[NDArray[Any], Grid]:
        """Permute and flip the axes of ``array`` ([z, y, x] on this grid) to point as nearly as possible to LPS.

        Returns:
            A view (writing to it writes to ``array``) and its grid; every voxel stays where it is.
        """
        matrix = np.asarray(self.direction, dtype=float)
        order = max(permutations(range(3)), key=lambda p: sum(abs(matrix[lps, p[lps]]) for lps in range(3)))
        flipped = [matrix[lps, order[lps]] < 0 for lps in range(3)]
        view = array.transpose([2 - order[2], 2 - order[1], 2 - order[0]])
        view = view[tuple(slice(None, None, -1 if flipped[lps] else 1) for lps in (2, 1, 0))]
        first = [0, 0, 0]
        for lps in range(3):
            first[order[lps]] = self.size[order[lps]] - 1 if flipped[lps] else 0
        columns = [matrix[:, order[lps]] * (-1 if flipped[lps] else 1) for lps in range(3)]
        a, b, c = np.stack(columns, axis=1).tolist()
        hx, hy, hz = (self.spacing_mm[order[lps]] for lps in range(3))
        x, y, z = (float(v) for v in self.to_physical(first))
        nz, ny, nx = view.shape
        return view, Grid((nz, ny, nx), (hx, hy, hz), (x, y, z), (tuple(a), tuple(b), tuple(c)))

    def corners(self) -> Grid:
        """Return the grid of the corner voxels (two per axis): a linear function is represented on it without loss."""
        shape = tuple(min(n, 2) for n in self.shape)
        x, y, z = (h * max(n - 1, 1) for h, n in zip(self.spacing_mm, self.size, strict=True))
        return Grid(shape, (x, y, z), self.origin_mm, self.direction)  # type: ignore[arg-type]

    def same_as(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Return whether the shape is the same and every voxel lies at the same position within ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.size])).reshape(3, -1).T
        distance = np.abs(self.to_physical(corners) - other.to_physical(corners))
        return bool(distance.max() <= tolerance_mm)

    # -- SimpleITK --------------------------------------------------------------------
    @classmethod
    def of_image(cls, image: sitk.Image) -> Grid:
        """Return the grid of a 3-D SimpleITK image."""
        nx, ny, nz = image.GetSize()
        a, b, c = np.asarray(image.GetDirection(), dtype=float).reshape(3, 3).tolist()
        return cls((nz, ny, nx), image.GetSpacing(), image.GetOrigin(), (tuple(a), tuple(b), tuple(c)))

    def to_image(self, array: NDArray[np.generic]) -> sitk.Image:
        """Return ``array`` ([z, y, x], or [z, y, x, c] for vectors) as a SimpleITK image on this grid."""
        import SimpleITK as sitk

        if tuple(array.shape[:3]) != self.shape:
            raise ValueError(f"to_image() 'array' must have shape {self.shape}, got {array.shape}")
        image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=array.ndim == 4)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(np.asarray(self.direction, dtype=float).ravel().tolist())
        return image


def apply_affine(matrix: ArrayLike, points: ArrayLike) -> FloatArray:
    """Apply a 4x4 homogeneous ``matrix`` to ``points`` of shape (..., 3)."""
    m, p = np.asarray(matrix, dtype=float), np.asarray(points, dtype=float)
    moved: FloatArray = p @ m[:3, :3].T + m[:3, 3]
    return moved


def lps_to_ras(points_mm: ArrayLike) -> FloatArray:
    """Convert points (..., 3) from LPS to RAS or back (x and y change sign)."""
    return apply_affine(LPS_TO_RAS, points_mm)


def bounding_box(mask: NDArray[np.bool_], margin: ArrayLike = 0) -> tuple[Shape3, Shape3]:
    """Return the bounding box of the True voxels as ``(start, stop)`` in (z, y, x), clipped to the array.

    Args:
        mask: bool ``[z, y, x]``.
        margin: voxels added on every side: one number, or three ordered (z, y, x).

    Raises:
        ValueError: when no voxel is True.
    """
    ends = []
    for axis in range(3):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if line.size == 0:
            raise ValueError("bounding_box() 'mask' must have at least one True voxel, got none")
        ends.append((line[0], line[-1] + 1))
    pad = np.broadcast_to(np.asarray(margin, dtype=int), (3,))
    start = tuple(int(max(lo - p, 0)) for (lo, _), p in zip(ends, pad, strict=True))
    stop = tuple(int(min(hi + p, n)) for (_, hi), p, n in zip(ends, pad, mask.shape, strict=True))
    return start, stop  # type: ignore[return-value]


def nearest_in(
    array: NDArray[Any], grid: Grid, points_mm: NDArray[np.generic]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of the voxels nearest to physical points.

    Args:
        array: ``[z, y, x]`` on ``grid``.
        grid: the grid of ``array``.
        points_mm: ``[n, 3]`` (x, y, z), LPS.

    Returns:
        The values at the points that lie inside the grid, and a bool ``[n]`` that marks these points.
    """
    index = np.rint(grid.to_index(points_mm)).astype(np.intp)
    inside: NDArray[np.bool_] = np.asarray(((index >= 0) & (index < grid.size)).all(axis=1))
    return array[tuple(index[inside][:, ::-1].T)], inside
