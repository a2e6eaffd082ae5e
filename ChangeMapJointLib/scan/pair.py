"""Two rigidly aligned scans to compare."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume


@dataclass(frozen=True, eq=False)
class ScanPair:
    """The current scan, the prior, and the rigid alignment between them.

    Attributes:
        reference: R, the current scan: maps and findings lie on its grid.
        template: T, the prior.
        rigid: A, 4x4, maps physical points (x, y, z in mm, LPS) of the reference to the template; identity by default.
    """

    reference: Scan
    template: Scan
    rigid: FloatArray = field(default_factory=lambda: np.eye(4))

    @classmethod
    def of(
        cls,
        reference: Volume,
        template: Volume,
        reference_lungs: NDArray[np.generic],
        template_lungs: NDArray[np.generic],
        rigid: FloatArray | None = None,
    ) -> ScanPair:
        """Make a pair from volumes and lung masks or labels, each on its volume's grid."""
        scans = Scan.of(reference, reference_lungs), Scan.of(template, template_lungs)
        return cls(*scans, np.eye(4) if rigid is None else np.asarray(rigid, dtype=float))

    def aligned(self, rigid: FloatArray) -> ScanPair:
        """Return the same scans with another rigid alignment, 4x4 (see :attr:`rigid`)."""
        return replace(self, rigid=np.asarray(rigid, dtype=float))

    def swapped(self) -> ScanPair:
        """Return the pair with reference and template swapped and the alignment inverted."""
        return ScanPair(self.template, self.reference, np.linalg.inv(self.rigid).astype(np.float64))

    def clear_cache(self) -> None:
        """Free what stages have cached with both scans."""
        self.reference.clear_cache()
        self.template.clear_cache()
