"""The deformation between two scans, as part of a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, nearest_in
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU
from ChangeMapJointLib.scan.volume import Volume, array_of_image, require_array

if TYPE_CHECKING:
    import SimpleITK as sitk

INVERSE_STEPS, INVERSE_MM = 60, 0.01


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

    def apply(self, points_mm: ArrayLike) -> FloatArray:
        """Map points ``[n, 3]`` (x, y, z in mm, LPS) of the current scan to the prior."""
        return self.field.apply(_points(points_mm))

    def invert(self, points_mm: ArrayLike) -> FloatArray:
        """Map points ``[n, 3]`` of the prior to the current scan: x with ``y(x) = point``, by fixed-point iteration.

        It converges where u changes by less than a mm over a mm, which also holds for turns of up to 50 degrees. Where
        y folds, one of the solutions is returned.
        """
        target = _points(points_mm)
        result: FloatArray = target - self.field.at(target)
        for _ in range(INVERSE_STEPS):
            error = target - self.field.apply(result)
            result = result + error
            if not error.size or np.abs(error).max() < INVERSE_MM:
                break
        return result

    @overload
    def warp(self, image: Volume, *, labels: bool = False, outside: float | None = None) -> Volume: ...
    @overload
    def warp(self, image: NDArray[Any], *, labels: bool = False, outside: float | None = None) -> NDArray[Any]: ...
    @overload
    def warp(self, image: sitk.Image, *, labels: bool = False, outside: float | None = None) -> sitk.Image: ...
    def warp(
        self, image: Volume | NDArray[Any] | sitk.Image, *, labels: bool = False, outside: float | None = None
    ) -> Volume | NDArray[Any] | sitk.Image:
        """Warp an image from the prior to the grid of the current scan: ``image(y(x))``, interpolated once.

        Args:
            image: an array ``[z, y, x]`` on the prior's grid; or a volume or SimpleITK image in the prior's space, on
                any grid.
            labels: interpolate by nearest neighbour, for masks and label maps, instead of linearly.
            outside: value where y(x) lies outside the image; by default -1024 HU for a volume of HU, 0 otherwise.

        Returns:
            The same kind of image: an array or SimpleITK image, float32 or the type of the labels; or a volume, whose
            ``unseen`` marks where the prior shows nothing.

        Raises:
            InputError: an array does not have the shape of the prior's grid, an image is not 3-D, ``image`` is of
                another type, or ``outside`` does not fit the type of the labels.
        """
        if isinstance(image, Volume):
            usual = 0.0 if labels else NOT_SCANNED_HU
            return self._warp_volume(image, labels=labels, outside=usual if outside is None else outside)
        fill = 0.0 if outside is None else outside
        if isinstance(image, np.ndarray):
            return self._warp_array(image, self.template, labels=labels, outside=fill)
        import SimpleITK as sitk

        if not isinstance(image, sitk.Image):
            expected = "a numpy array [z, y, x], a Volume or a SimpleITK image"
            raise InputError(f"found {type(image).__name__}", field="image", expected=expected)
        array = array_of_image(image, "image")
        return self.reference.to_image(self._warp_array(array, Grid.of_image(image), labels=labels, outside=fill))

    def _warp_array(self, array: NDArray[Any], grid: Grid, *, labels: bool, outside: float) -> NDArray[Any]:
        if array.shape != grid.shape:
            raise InputError(f"found shape {array.shape}", field="image", expected=f"the prior's shape {grid.shape}")
        require_array(array, "image", grid.shape)
        if labels:
            return self._nearest(array, grid, outside)
        return warp(array, grid, self.reference, self.field, outside=outside)

    def _warp_volume(self, volume: Volume, *, labels: bool, outside: float) -> Volume:
        seen = np.ones(volume.grid.shape, dtype=bool) if volume.unseen is None else ~volume.unseen
        unseen = ~self._nearest(seen, volume.grid, 0)
        hu = self._warp_array(volume.array, volume.grid, labels=labels, outside=outside)
        hu[unseen] = outside
        if volume.array.dtype.kind in "iu":  # no interpolated value leaves the range; ``outside`` may
            limits = np.iinfo(volume.array.dtype)  # type: ignore[type-var]
            hu = np.clip(np.rint(hu), limits.min, limits.max).astype(volume.array.dtype)
        return Volume(
            hu, self.reference, volume.source, volume.acquisition, volume.notes, unseen if unseen.any() else None
        )

    def _nearest(self, array: NDArray[Any], grid: Grid, outside: float) -> NDArray[Any]:
        result = np.zeros(self.reference.shape, dtype=array.dtype)
        if array.dtype.kind in "biu" and not fits(outside, array.dtype):
            raise InputError(field="outside", value=outside, expected=f"a value that fits labels of {array.dtype}")
        result[...] = outside
        for z in range(self.reference.shape[0]):
            index = np.indices((1, *self.reference.shape[1:]))[::-1].reshape(3, -1).T.astype(float)
            index[:, 2] += z
            values, inside = nearest_in(array, grid, self.apply(self.reference.to_physical(index)))
            plane = result[z].reshape(-1)
            plane[inside] = values
        return result


def fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a type of whole numbers, or bool, holds ``value`` exactly; False for NaN and infinity."""
    if not np.isfinite(value):
        return False
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return low <= value <= high and float(value).is_integer()


def _points(points_mm: ArrayLike) -> FloatArray:
    """Return ``points_mm`` as an array of numbers.

    Raises:
        InputError: the last axis does not hold x, y and z.
    """
    try:
        points: FloatArray = np.asarray(points_mm, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError("found no numbers", field="points_mm", expected="points [n, 3], (x, y, z) in mm") from error
    if points.shape[-1:] != (3,):
        found = f"found shape {points.shape}"
        raise InputError(found, field="points_mm", expected="points [n, 3], (x, y, z) in mm")
    return points
