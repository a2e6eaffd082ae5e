"""Displacements as uniform cubic B-splines on a control grid coarser than the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, apply_affine
from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.registration.deformable.similarity import Spacing


def basis(distance: Tensor) -> Tensor:
    """The cubic B-spline at ``distance`` (in control spacings) from its centre; its support is (-2, 2)."""
    a = distance.abs()
    inner = 2 / 3 - a**2 + a**3 / 2
    outer = (2 - a).clamp_min(0) ** 3 / 6
    return torch.where(a < 1, inner, outer)


def basis_derivative(distance: Tensor) -> Tensor:
    """Derivative of :func:`basis` with respect to ``distance``."""
    a = distance.abs()
    inner = -2 * a + 1.5 * a**2
    outer = -0.5 * (2 - a).clamp_min(0) ** 2
    return torch.where(a < 1, inner, outer) * distance.sign()


@dataclass(frozen=True)
class ControlGrid:
    """Control points over an image grid, with one extra point on every side.

    Coefficients are ``[cz, cy, cx, 3]`` in mm with components (x, y, z) LPS. The displacement at a voxel is the sum of
    the coefficients times the tensor-product basis.

    Attributes:
        grid: the image grid.
        stride: voxels between neighbouring control points along (x, y, z), > 0; need not be integers.
    """

    grid: Grid
    stride: Vector3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of control points along (z, y, x)."""
        cx, cy, cz = (
            max(int(np.ceil((n - 1) / s - 1e-9)), 1) + 3 for n, s in zip(self.grid.size, self.stride, strict=True)
        )
        return cz, cy, cx

    @property
    def spacing_mm(self) -> Spacing:
        """Distance between control points along (x, y, z)."""
        x, y, z = (s * h for s, h in zip(self.stride, self.grid.spacing_mm, strict=True))
        return x, y, z

    def positions(self) -> Grid:
        """The grid of the control points; its first point lies one control spacing before voxel 0."""
        x, y, z = (float(v) for v in self.grid.to_physical(-np.asarray(self.stride)))
        return Grid(self.shape, self.spacing_mm, (x, y, z), self.grid.direction)

    def matrices(self, like: Tensor, derivative: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Dense basis matrices along (z, y, x), each ``[voxels, control points]``.

        Args:
            like: tensor whose dtype and device the result gets.
            derivative: axis (0 = x, 1 = y, 2 = z) along which the derivative per mm is taken; None for values.
        """
        matrices = []
        for axis in (2, 1, 0):
            count = self.shape[2 - axis]
            voxels = torch.arange(self.grid.size[axis], dtype=torch.float64) / self.stride[axis]
            distance = voxels[:, None] - (torch.arange(count, dtype=torch.float64) - 1)
            values = basis_derivative(distance) / self.spacing_mm[axis] if derivative == axis else basis(distance)
            matrices.append(values.to(like))
        return matrices[0], matrices[1], matrices[2]

    def at_points(self, index: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
        """The 64 control points that influence each point, and their weights.

        Args:
            index: ``[n, 3]`` continuous voxel index (x, y, z); points outside the grid are moved to its border.

        Returns:
            Indices of the control points in the flattened ``[cz, cy, cx]`` coefficients, int64 ``[n, 64]``, and their
            weights, float64 ``[n, 64]``, which sum to 1.
        """
        nodes, values = [], []
        for axis in range(3):
            n = self.shape[2 - axis]
            at = torch.as_tensor(np.clip(index[:, axis], 0, self.grid.size[axis] - 1) / self.stride[axis])
            first = at.floor().clamp(max=n - 4).long()
            reach = first[:, None] + torch.arange(4)
            nodes.append(reach)
            values.append(basis(at[:, None] - (reach - 1)))
        (x, y, z), (bx, by, bz) = nodes, values
        _, cy, cx = self.shape
        flat = (z[:, :, None, None] * cy + y[:, None, :, None]) * cx + x[:, None, None, :]
        product = bz[:, :, None, None] * by[:, None, :, None] * bx[:, None, None, :]
        return flat.flatten(1), product.flatten(1)

    def knot_gradient(self, coefficients: Tensor) -> list[Tensor]:
        """Exact du/dx, du/dy, du/dz (array axes, per mm) at the inner control points.

        Args:
            coefficients: ``[cz, cy, cx, 3]`` in mm.

        Returns:
            Three tensors ``[cz-2, cy-2, cx-2, 3]``, dimensionless.
        """
        smooth = (1 / 6, 2 / 3, 1 / 6)
        slope = (-0.5, 0.0, 0.5)
        gradients = []
        for axis in range(3):
            value = coefficients
            for other in range(3):
                taps = slope if other == axis else smooth
                value = stencil(value, taps, dim=2 - other)
            gradients.append(value / self.spacing_mm[axis])
        return gradients


class PointSplines:
    """The displacement at fixed points as a linear function of the coefficients.

    It is computed on the CPU in double precision by a sparse matrix, wherever the images are: autograd would sum the
    gradient of a gather in an order that varies from run to run.
    """

    def __init__(self, points_mm: FloatArray, control: ControlGrid) -> None:
        """Prepare ``points_mm``, ``[n, 3]`` (x, y, z) LPS, for ``control``."""
        nodes, values = control.at_points(apply_affine(control.grid.inverse_affine, points_mm))
        count, reach = nodes.shape
        rows = np.repeat(np.arange(count), reach)
        size = (count, int(np.prod(control.shape)))
        self._matrix = csr_matrix((values.numpy().ravel(), (rows, nodes.numpy().ravel())), shape=size)
        self._adjoint = self._matrix.T.tocsr()

    def displacement(self, coefficients: Tensor) -> FloatArray:
        """The displacement in mm at the points, ``[n, 3]``."""
        moved: FloatArray = self._matrix @ coefficients.detach().cpu().double().numpy().reshape(-1, 3)
        return moved

    def gradient(self, pull: FloatArray, coefficients: Tensor) -> Tensor:
        """The gradient by ``coefficients``, from that by the displacement at the points, ``[n, 3]``."""
        return torch.from_numpy(self._adjoint @ pull).reshape(coefficients.shape).to(coefficients)


def stencil(values: Tensor, taps: tuple[float, float, float], dim: int) -> Tensor:
    """Apply a three-point stencil along ``dim``; the result is two shorter there."""
    n = values.shape[dim] - 2
    parts = [tap * values.narrow(dim, k, n) for k, tap in enumerate(taps) if tap]
    return torch.stack(parts).sum(0) if len(parts) > 2 else parts[0] + parts[1]


def expand(coefficients: Tensor, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The spline at the voxels, ``[z, y, x, c]``, from coefficients ``[cz, cy, cx, c]`` by three matrix products."""
    bz, by, bx = matrices
    value = torch.einsum("ai,zyic->zyac", bx, coefficients)
    value = torch.einsum("ai,zixc->zaxc", by, value)
    return torch.einsum("ai,iyxc->ayxc", bz, value)


def refine_coefficients(coefficients: Tensor, coarse: ControlGrid, fine: ControlGrid) -> Tensor:
    """Coefficients on ``fine`` whose displacement equals that of ``coarse`` at every fine control point.

    Both grids have the same axes. Outside its image grid, the coarse displacement is extrapolated linearly.
    """
    bz, by, bx = (_refinement(axis, coarse, fine).to(coefficients) for axis in (2, 1, 0))
    return expand(coefficients, (bz, by, bx))


def _refinement(axis: int, coarse: ControlGrid, fine: ControlGrid) -> Tensor:
    """Matrix ``[fine, coarse]`` along one axis: evaluate, then solve for the interpolating coefficients."""
    points = fine.positions()
    count = points.size[axis]
    along = np.zeros((count, 3))
    along[:, axis] = np.arange(count)
    wanted = torch.as_tensor(coarse.grid.to_index(points.to_physical(along))[:, axis] / coarse.stride[axis])
    inside = wanted.clamp(0, (coarse.grid.size[axis] - 1) / coarse.stride[axis])
    offset = inside[:, None] - (torch.arange(coarse.shape[2 - axis], dtype=torch.float64) - 1)
    values = basis(offset) + (wanted - inside)[:, None] * basis_derivative(offset)
    refinement: Tensor = torch.linalg.solve(_collocation(count), values)
    return refinement


def interpolation_coefficients(values: Tensor) -> Tensor:
    """Coefficients of the spline that takes ``values`` at the control points.

    Args:
        values: ``[cz, cy, cx, c]`` in mm, at least two control points along every axis.

    Returns:
        ``[cz, cy, cx, c]``.
    """
    result = values
    for axis, count in enumerate(values.shape[:3]):
        lines = result.movedim(axis, 0)
        solution = torch.linalg.solve(_collocation(count).to(result), lines.reshape(count, -1))
        result = solution.reshape(count, *lines.shape[1:]).movedim(0, axis)
    return result


def _collocation(count: int) -> Tensor:
    """Matrix ``[count, count]`` from coefficients to values at the control points, along one axis."""
    matrix = basis(torch.arange(count, dtype=torch.float64)[:, None] - torch.arange(count))
    # a linear ghost coefficient, c[-1] = 2 c[0] - c[1], makes the value at the first point c[0] itself
    for end, neighbour in ((0, 1), (-1, -2)):
        matrix[end, end], matrix[end, neighbour] = 1.0, 0.0
    return matrix
