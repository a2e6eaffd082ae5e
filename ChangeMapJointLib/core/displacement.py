"""Displacement fields: the mapping ``y(x) = x + u(x)`` from reference to template space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.compiled import compiled_available, over_slices
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.core.resample import index_points, sample, sample_array


@dataclass(frozen=True)
class DisplacementField:
    """``T_warped(x) = T(y(x))``, ``y(x) = x + u(x)``.

    Attributes:
        vectors_mm: u, float32 ``[z, y, x, 3]``, components ordered (x, y, z), LPS, in mm.
            The rigid part is included.
        grid: the grid of u: the reference's own, or a coarser one that covers it.
    """

    vectors_mm: NDArray[np.float32]
    grid: Grid

    def __post_init__(self) -> None:
        if self.vectors_mm.shape != (*self.grid.shape, 3):
            expected = (*self.grid.shape, 3)
            raise ValueError(f"DisplacementField 'vectors_mm' must have shape {expected}, got {self.vectors_mm.shape}")

    @classmethod
    def from_affine(cls, matrix: FloatArray, grid: Grid) -> DisplacementField:
        """Make the field of an affine map: ``matrix`` is 4x4, from reference to template points in mm."""
        vectors = index_points(grid, (matrix - np.eye(4)) @ grid.affine)
        return cls(vectors.numpy(), grid)

    def at(self, points_mm: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return u in mm at physical points ``[n, 3]``, interpolated trilinearly; the border is repeated outside."""
        return sample_array(self.vectors_mm, self.grid, points_mm)

    def apply(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """Map physical points ``[n, 3]`` of the reference to the template: y(x)."""
        return np.asarray(points_mm, dtype=float) + self.at(points_mm)

    def jacobian_determinant(self) -> NDArray[np.float32]:
        """Return det grad y on :attr:`grid`, float32 ``[z, y, x]``: 1 preserves volume, 0 or less is folding."""
        if not compiled_available():
            return jacobian_determinant(torch.as_tensor(self.vectors_mm), self.grid).numpy()
        from ChangeMapJointLib.core import kernels

        result = np.empty(self.grid.shape, dtype=np.float32)
        vectors = np.ascontiguousarray(self.vectors_mm)
        direction, spacing = (np.asarray(v, dtype=np.float32) for v in (self.grid.direction, self.grid.spacing_mm))
        over_slices(partial(kernels.jacobian_slices, vectors, direction, spacing, result), len(result))
        return result

    def on(self, target: Grid, matrix: FloatArray | None = None) -> DisplacementField:
        """Return the field at the voxels of another grid, the border repeated outside.

        Args:
            target: the other grid.
            matrix: 4x4, whose displacement ``(matrix - 1) x`` is added; nothing by default.
        """
        affine = self.grid.inverse_affine @ target.affine
        shift: FloatArray = np.zeros((4, 4)) if matrix is None else (matrix - np.eye(4)) @ target.affine
        result = np.empty((*target.shape, 3), dtype=np.float32)
        if compiled_available():
            from ChangeMapJointLib.core import kernels

            rows = [np.ascontiguousarray(m[:3]) for m in (affine, shift)]
            fixed = (np.ascontiguousarray(self.vectors_mm), *rows, result)
            over_slices(partial(kernels.vector_slices, *fixed), len(result))
            return DisplacementField(result, target)
        volume = torch.as_tensor(self.vectors_mm).movedim(-1, 0)
        for z in range(0, len(result), 16):  # slab by slab, which bounds the memory
            slab = slice(z, z + 16)
            sampled = sample(volume, index_points(target, affine, slab), Grid(self.grid.shape)).movedim(0, -1)
            result[slab] = (sampled + index_points(target, shift, slab)).numpy()
        return DisplacementField(result, target)


def jacobian_determinant(vectors_mm: Tensor, grid: Grid) -> Tensor:
    """Return det(I + grad u) of u ``[z, y, x, 3]`` in mm, by central differences (one-sided at the border)."""
    rows = []
    for axis in range(3):  # derivative along the array's x, y, z axis
        dim = 2 - axis
        if vectors_mm.shape[dim] == 1:
            rows.append(torch.zeros_like(vectors_mm))
        else:
            rows.append(torch.gradient(vectors_mm, spacing=grid.spacing_mm[axis], dim=dim)[0])
    return determinant_of_gradients(rows, grid)


def determinant_of_gradients(gradients: list[Tensor], grid: Grid) -> Tensor:
    """Return det(I + grad u) from the derivatives of u along the array's x, y and z axes.

    Args:
        gradients: three tensors ``[..., 3]``: du/d(axis), components of u ordered (x, y, z) LPS.
        grid: its direction relates array axes to LPS axes.

    Returns:
        Tensor ``[...]``.
    """
    rows = gradients
    direction = torch.as_tensor(grid.direction, dtype=rows[0].dtype, device=rows[0].device)
    if not torch.equal(direction, torch.eye(3).to(direction)):
        rows = [sum((rows[a] * direction[lps, a] for a in (1, 2)), rows[0] * direction[lps, 0]) for lps in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rows)
    a, e, i = a + 1, e + 1, i + 1
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def warp(
    array: NDArray[np.generic],
    source: Grid,
    target: Grid,
    field: DisplacementField,
    *,
    outside: float = 0.0,
    slab_size: int = 16,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return ``T(y(x))`` for every voxel x of ``target``, interpolated once.

    Args:
        array: T, ``[z, y, x]`` on ``source``.
        source: T's grid.
        target: the grid of the result, usually the reference's.
        field: u on any grid that covers ``target``.
        outside: value where y(x) lies outside T.
        slab_size: slices per step, which bounds the memory on large scans.
        device: torch device to compute on.

    Returns:
        float32 ``[z, y, x]`` on ``target``.
    """
    values = np.ascontiguousarray(array, dtype=np.float32)
    if torch.device(device).type == "cpu" and compiled_available():
        return _warp_compiled(values, source, target, field, outside)
    volume = torch.as_tensor(values).to(device)[None]
    vectors = torch.as_tensor(field.vectors_mm).to(device).movedim(-1, 0)
    field_on_target = field.grid.same_as(target)
    # from index to index in float64: physical coordinates of some scanners are too large for float32
    to_source, to_field = source.inverse_affine, field.grid.inverse_affine @ target.affine
    linear = torch.as_tensor(to_source[:3, :3].T).to(volume)
    result = np.empty(target.shape, dtype=np.float32)
    for z in range(0, target.shape[0], slab_size):
        slab = slice(z, z + slab_size)
        points = index_points(target, to_source @ target.affine, slab, like=volume)
        u = vectors[:, slab]
        if not field_on_target:
            u = sample(vectors, index_points(target, to_field, slab, like=volume), Grid(field.grid.shape))
        points += u.movedim(0, -1) @ linear
        result[slab] = sample(volume, points, Grid(source.shape), outside)[0].cpu().numpy()
    return result


def _warp_compiled(
    values: NDArray[np.float32], source: Grid, target: Grid, field: DisplacementField, outside: float
) -> NDArray[np.float32]:
    """:func:`warp` by the compiled kernel."""
    from ChangeMapJointLib.core import kernels

    to_source, to_field = source.inverse_affine @ target.affine, field.grid.inverse_affine @ target.affine
    if field.grid.same_as(target):
        to_field = np.eye(4)
    linear = np.ascontiguousarray(source.inverse_affine[:3, :3])
    affine, to_field = (np.ascontiguousarray(m[:3]) for m in (to_source, to_field))
    vectors, result = np.ascontiguousarray(field.vectors_mm), np.empty(target.shape, dtype=np.float32)
    fixed = (values, affine, linear, vectors, to_field, np.float32(outside), result)
    over_slices(partial(kernels.warped_slices, *fixed), len(result))
    return result
