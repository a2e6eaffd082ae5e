"""Foerstner keypoints: distinctive points in the lungs, mostly where vessels branch.

After Foerstner & Guelch 1987, in 3-D as in Ruehaak et al. 2017 (IEEE TMI 36(8)) and Heinrich et al. 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box
from ChangeMapJointLib.core.options import require, within

DERIVATIVE = np.array([1.0, -8.0, 0.0, 8.0, -1.0]) / 12.0  # fourth order: a ramp of slope 1 gives 1
BORDER_MM = 3.0  # no keypoints this close to the pleura, along which the lungs slide
CELL_MM = 30.0  # cubes of the lungs take turns in giving their strongest point; otherwise the hila would get most


@dataclass(frozen=True)
class KeypointOptions:
    """Options of :func:`find_keypoints`.

    Attributes:
        most: maximum number of keypoints.
        least_percentile: percentile of the distinctiveness in the lungs below which points count as noise.
        apart_mm: a keypoint is the strongest point within a cube of this half width (at least one voxel).
        sigma_vox: standard deviation of the Gaussian that smooths the structure tensor.
    """

    most: int = 2000
    least_percentile: float = 25.0
    apart_mm: float = 1.5
    sigma_vox: float = 1.0

    def __post_init__(self) -> None:
        require(
            self,
            most=(within(self.most, 1, 100_000), "1 to 100000"),
            least_percentile=(within(self.least_percentile, 0.0, 100.0), "0 to 100"),
            apart_mm=(within(self.apart_mm, 0.1, 100.0), "0.1 to 100"),
            sigma_vox=(within(self.sigma_vox, 0.3, 10.0), "0.3 to 10"),
        )


def distinctiveness(image: NDArray[np.floating], sigma_vox: float) -> NDArray[np.float32]:
    """Foerstner's operator ``1 / trace(S^-1)``: large only where the image varies in all three directions.

    S is the structure tensor, smoothed by a Gaussian of ``2 ceil(1.5 sigma) + 1`` taps. The operator equals ``det S``
    divided by the sum of the principal 2 x 2 minors: 1/3 for diag(1, 1, 1), 4/9 for diag(4, 1, 1), and 0 where the
    image is flat, or constant along a line or a plane.

    Args:
        image: ``[z, y, x]``, any unit.
        sigma_vox: standard deviation of the Gaussian, in voxels.

    Returns:
        float32 ``[z, y, x]``, in intensity squared per voxel squared, >= 0.
    """
    values = np.asarray(image, dtype=np.float32)
    gradient = [ndimage.correlate1d(values, DERIVATIVE, axis=axis, mode="nearest") for axis in range(3)]
    half = int(np.ceil(1.5 * sigma_vox))

    def smooth(product: NDArray[np.float32]) -> NDArray[np.float32]:
        for axis in range(3):
            product = ndimage.gaussian_filter1d(product, sigma_vox, axis=axis, mode="nearest", radius=half)
        return product

    zz, yy, xx = (smooth(g * g) for g in gradient)
    zy, zx, yx = (smooth(gradient[a] * gradient[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    minors = (yy * xx - yx * yx) + (zz * xx - zx * zx) + (zz * yy - zy * zy)
    det = zz * (yy * xx - yx * yx) - zy * (zy * xx - yx * zx) + zx * (zy * yx - yy * zx)
    trace = zz + yy + xx
    known = minors > 1e-6 * trace * trace  # below it, float32 holds only rounding errors
    result = np.zeros_like(values)
    np.divide(det, minors, out=result, where=known)
    return np.maximum(result, 0.0, out=result)


def find_keypoints(
    image: NDArray[np.floating], lungs: NDArray[np.bool_], grid: Grid, options: KeypointOptions | None = None
) -> FloatArray:
    """Find the most distinctive points of the lungs, spread over them.

    Args:
        image: HU clipped to the window of the registration, ``[z, y, x]``, with voxels of about 1.5 to 2 mm.
        lungs: bool ``[z, y, x]``.
        grid: grid of both arrays.
        options: number and distance of the keypoints.

    Returns:
        Points ``[n, 3]`` (x, y, z in mm, LPS); none in empty or flat lungs. Where there are more than ``options.most``,
        the strongest of every cube of 30 mm is kept first, then the second strongest, and so on.
    """
    options = options or KeypointOptions()
    border = [2 * max(round(BORDER_MM / h), 1) + 1 for h in reversed(grid.spacing_mm)]
    inside = ndimage.minimum_filter(lungs, size=border, mode="constant")
    if not inside.any():
        return np.zeros((0, 3))
    start, stop = bounding_box(inside, border)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    strength, inside = distinctiveness(image[box], options.sigma_vox), inside[box]
    least = max(float(np.percentile(strength[inside], options.least_percentile)), float(np.finfo(np.float32).tiny))
    size = [2 * max(round(options.apart_mm / h), 1) + 1 for h in reversed(grid.spacing_mm)]
    peaks = ndimage.maximum_filter(strength, size=size, mode="constant") == strength
    voxels = np.argwhere(peaks & inside & (strength >= least))
    voxels = voxels[np.argsort(-strength[tuple(voxels.T)], kind="stable")]
    cell = (voxels * list(reversed(grid.spacing_mm)) // CELL_MM).astype(np.int64)
    _, cell = np.unique(cell, axis=0, return_inverse=True)
    rank = _rank_in_cell(cell.ravel())
    chosen = np.sort(np.argsort(rank, kind="stable")[: options.most])
    return grid.to_physical((voxels[chosen] + start)[:, ::-1].astype(float))


def _rank_in_cell(cell: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each element, how many elements of the same cell precede it."""
    order = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[order], cell[order])
    rank = np.empty(len(cell), np.int64)
    rank[order] = np.arange(len(cell)) - first
    return rank
