"""The deformation between two scans, as part of a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import FloatArray, Grid, nearest_in
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU
from ChangeMapJointLib.scan.volume import Volume


@dataclass(frozen=True)
class Deformation:
    """The mapping y from points of the current scan (reference) to the prior (template).

    Attributes:
        field: u in mm with ``y(x) = x + u(x)``; the rigid part is included.
        reference: grid of the current scan.
        template: grid of the prior.
    """

    field: DisplacementField
    reference: Grid
    template: Grid

    def apply(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """Map points ``[n, 3]`` (x, y, z in mm, LPS) of the current scan to the prior."""
        return self.field.apply(points_mm)

    def warp(
        self, image: Volume | NDArray[Any], *, labels: bool = False, outside: float | None = None
    ) -> Volume | NDArray[Any]:
        """Warp an image from the prior to the grid of the current scan: ``image(y(x))``, interpolated once.

        Args:
            image: an array ``[z, y, x]`` on the prior's grid, or a volume in the prior's space with any grid.
            labels: interpolate by nearest neighbour, for masks and label maps, instead of linearly.
            outside: value where y(x) lies outside the image; by default -1024 HU for a volume and 0 for an array.

        Returns:
            An array (float32, or the dtype of the labels) or a volume, like ``image``.

        Raises:
            ValueError: an array does not have the shape of the prior's grid.
        """
        array = image.array if isinstance(image, Volume) else np.asarray(image)
        grid = image.grid if isinstance(image, Volume) else self.template
        if array.shape != grid.shape:
            raise ValueError(f"Deformation.warp() 'image' must have the prior's shape {grid.shape}, got {array.shape}")
        if outside is None:
            outside = NOT_SCANNED_HU if isinstance(image, Volume) else 0.0
        if labels:
            warped = self._nearest(array, grid, outside)
        else:
            warped = warp(array, grid, self.reference, self.field, outside=outside)
        if not isinstance(image, Volume):
            return warped
        hu = warped if labels else np.rint(warped).astype(np.int16)
        return Volume(hu, self.reference, image.source, image.acquisition, image.notes)

    def _nearest(self, array: NDArray[Any], grid: Grid, outside: float) -> NDArray[Any]:
        result = np.full(self.reference.shape, outside, dtype=array.dtype)
        for z in range(self.reference.shape[0]):
            index = np.indices((1, *self.reference.shape[1:]))[::-1].reshape(3, -1).T.astype(float)
            index[:, 2] += z
            values, inside = nearest_in(array, grid, self.apply(self.reference.to_physical(index)))
            plane = result[z].reshape(-1)
            plane[inside] = values
        return result
