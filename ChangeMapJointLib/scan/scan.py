"""A scan as every stage takes it: its voxels and its lungs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray, Grid, nearest_in
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.volume import Volume

View = TypeVar("View")


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan and its lungs.

    What stages make of it at other resolutions is kept with it (:meth:`cached`), so that two stages that need the same
    share it.

    Attributes:
        volume: the scan, not warped.
        lungs: on the scan's own grid.

    Example:
        >>> import numpy as np
        >>> from ChangeMapJointLib.core.grid import Grid
        >>> grid = Grid((2, 2, 2), (1.0, 1.0, 1.0))
        >>> scan = Scan.of(Volume(np.zeros(grid.shape, np.int16), grid), np.ones(grid.shape, bool))
        >>> int(scan.mask.sum())
        8
    """

    volume: Volume
    lungs: Lungs
    _cache: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.lungs.labels.shape != self.volume.grid.shape:
            shape = self.volume.grid.shape
            raise ValueError(f"Scan 'lungs' must have the volume's shape {shape}, got {self.lungs.labels.shape}")

    @classmethod
    def of(cls, volume: Volume, lungs: NDArray[np.generic]) -> Scan:
        """A scan with lungs from a mask or labels ``[z, y, x]`` on its own grid, see :meth:`Lungs.of`."""
        return cls(volume, Lungs.of(lungs, volume.grid))

    @property
    def array(self) -> NDArray[np.int16] | NDArray[np.float32]:
        """HU ``[z, y, x]``."""
        return self.volume.array

    @property
    def grid(self) -> Grid:
        """Of voxels and lungs."""
        return self.volume.grid

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Either lung, bool ``[z, y, x]``; not to be modified."""
        return self.cached("mask", lambda: self.lungs.mask)

    def lung_at(self, points_mm: FloatArray) -> NDArray[np.uint8]:
        """The labels of physical points ``[n, 3]`` (x, y, z in mm), nearest voxel; 0 outside the scan."""
        labels, inside = nearest_in(self.lungs.labels, self.grid, points_mm)
        result = np.zeros(len(points_mm), dtype=np.uint8)
        result[inside] = labels
        return result

    def cached(self, key: Hashable, make: Callable[[], View]) -> View:
        """What ``make`` gives for ``key``, made once and kept until :meth:`clear_cache`; not to be modified."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]  # type: ignore[no-any-return]

    def clear_cache(self) -> None:
        """Free the memory of what was made of the scan."""
        self._cache.clear()
