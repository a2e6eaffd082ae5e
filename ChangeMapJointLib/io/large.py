"""Scans with more voxels than the maps can use are averaged when they are read, with a note."""

from __future__ import annotations

from dataclasses import replace

from ChangeMapJointLib.core.grid import Grid, Shape3
from ChangeMapJointLib.core.reduce import block_any, block_grid, block_means
from ChangeMapJointLib.scan.volume import Volume

# 512 x 512 x 762: a whole chest at 0.45 mm per slice stays as it is. The registration works at 1.5 mm (1 mm at best).
MOST_VOXELS = 200_000_000


def limit_voxels(volume: Volume, most: int | None = None) -> Volume:
    """Average a volume over blocks of voxels if it has more than ``most`` voxels.

    2 x 2 pixels of a slice are averaged, or two slices where slices are closer than pixels, until the limit is met:
    1024 x 1024 x 1000 voxels of 0.35 mm become 512 x 512 x 500 of 0.7 mm. Positions stay exact: the new voxel centres
    are the centres of the blocks.

    Args:
        volume: the volume that was read.
        most: largest number of voxels; :data:`MOST_VOXELS` by default.

    Returns:
        The volume itself, or a smaller one with a note.
    """
    factors = block_factors(volume.grid, MOST_VOXELS if most is None else most)
    if factors == (1, 1, 1):
        return volume
    grid = block_grid(volume.grid, factors)
    array = block_means(volume.array, factors)
    unseen = None if volume.unseen is None else block_any(volume.unseen, factors)
    notes = (*volume.notes, _note(volume.grid, grid))
    return replace(volume, array=array, grid=grid, notes=notes, unseen=unseen)  # type: ignore[arg-type]


def block_factors(grid: Grid, most: int) -> Shape3:
    """Return the voxels per block along (z, y, x) that reduce ``grid`` to at most ``most`` voxels."""
    fz = fy = fx = 1
    while True:
        nz, ny, nx = grid.shape[0] // fz, grid.shape[1] // fy, grid.shape[2] // fx
        if nz * ny * nx <= most or max(nz, ny, nx) < 2:
            return fz, fy, fx
        hx, hy, hz = (h * f for h, f in zip(grid.spacing_mm, (fx, fy, fz), strict=True))
        if (hz < min(hx, hy) and nz > 1) or min(ny, nx) < 2:
            fz *= 2
        else:
            fy, fx = 2 * fy, 2 * fx


def _note(before: Grid, after: Grid) -> str:
    old, new = (" x ".join(str(n) for n in grid.size) for grid in (before, after))
    mm = " x ".join(f"{h:.3g}" for h in after.spacing_mm)
    return f"{old} voxels were averaged to {new} of {mm} mm, the grid of all maps; finer voxels would not improve them."
