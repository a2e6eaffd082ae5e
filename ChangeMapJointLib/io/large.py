"""Scans with more voxels than maps can use: averaged when they are read, and said so."""

from __future__ import annotations

from dataclasses import replace

from ChangeMapJointLib.core.grid import Grid, Shape3
from ChangeMapJointLib.core.reduce import block_any, block_grid, block_means
from ChangeMapJointLib.scan.volume import Volume

# 512 x 512 x 762: whole chests at 0.45 mm a slice stay as they are. The registration works at 1.5 mm (1 mm at best).
MOST_VOXELS = 200_000_000


def limit_voxels(volume: Volume, most: int | None = None) -> Volume:
    """``volume``, averaged over blocks of voxels where it has more than ``most``.

    2 x 2 pixels of a slice become one; two slices where these are closer than pixels. That is repeated until the limit
    holds: 1024 x 1024 x 1000 voxels of 0.35 mm become 512 x 512 x 500 of 0.7 mm. Where the voxels lie is exact: the
    new centres are those of the blocks.

    Args:
        volume: what was read.
        most: voxels; :data:`MOST_VOXELS` by default.

    Returns:
        The very volume, or a smaller one with a note that says what was done.
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
    """Voxels per block along (z, y, x) that bring ``grid`` to at most ``most`` voxels."""
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
    return f"{old} voxels were averaged to {new} of {mm} mm, on which all maps lie: more is finer than they can use."
