"""A scan with its lungs, the input of every stage."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, nearest_in
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.volume import Volume, require_array

Derived = TypeVar("Derived")


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan and its lungs.

    Stages cache what they derive from it, such as other resolutions, with :meth:`cached`, so that two stages that need
    the same thing share it.

    Attributes:
        volume: the scan, not warped.
        lungs: its lungs, on the same grid.

    Examples:
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
        if not isinstance(self.volume, Volume):
            found, expected = type(self.volume).__name__, "a Volume, as read() returns"
            raise InputError(f"found {found}", field="Scan.volume", expected=expected)
        if not isinstance(self.lungs, Lungs):
            found, expected = type(self.lungs).__name__, "Lungs, as segment_lungs() returns; for a mask, use Scan.of()"
            raise InputError(f"found {found}", field="Scan.lungs", expected=expected)
        require_array(self.lungs.labels, "Scan.lungs", self.volume.grid.shape)
        if not self.lungs.grid.same_as(self.volume.grid):
            raise InputError("found lungs on another grid", field="Scan.lungs", expected="the volume's own lungs")

    @classmethod
    def of(cls, volume: Volume, lungs: NDArray[np.generic]) -> Scan:
        """Make a scan from a volume and a lung mask or labels ``[z, y, x]`` on its grid; see :meth:`Lungs.of`."""
        return cls(volume, Lungs.of(lungs, volume.grid))

    @property
    def array(self) -> NDArray[np.int16] | NDArray[np.float32]:
        """Voxels in HU, ``[z, y, x]``."""
        return self.volume.array

    @property
    def grid(self) -> Grid:
        """The grid of voxels and lungs."""
        return self.volume.grid

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Both lungs, bool ``[z, y, x]``; do not modify."""
        return self.cached("mask", lambda: self.lungs.mask)

    def lung_at(self, points_mm: FloatArray) -> NDArray[np.uint8]:
        """Return the lung labels at physical points ``[n, 3]`` (x, y, z in mm), nearest voxel; 0 outside the scan."""
        labels, inside = nearest_in(self.lungs.labels, self.grid, points_mm)
        result = np.zeros(len(points_mm), dtype=np.uint8)
        result[inside] = labels
        return result

    def cached(self, key: Hashable, make: Callable[[], Derived]) -> Derived:
        """Return what ``make`` returns; made once per ``key`` and kept until :meth:`clear_cache`. Do not modify it."""
        value: Derived | None = self._cache.get(key)
        if value is None:
            value = self._cache[key] = make()  # another thread may clear the cache meanwhile
        return value

    def clear_cache(self) -> None:
        """Free what was derived from the scan."""
        self._cache.clear()
