"""Two scans that are compared, rigidly aligned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume


@dataclass(frozen=True, eq=False)
class ScanPair:
    """The current scan, the prior, and the rigid motion between them.

    Attributes:
        reference: R, the current scan: maps and findings lie on its grid.
        template: T, the prior.
        rigid: A, 4x4, physical points (x, y, z in mm, LPS) of the reference to the template; the identity by default.
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
        """A pair from volumes and lung masks or labels, each on its volume's grid."""
        scans = Scan.of(reference, reference_lungs), Scan.of(template, template_lungs)
        return cls(*scans, np.eye(4) if rigid is None else np.asarray(rigid, dtype=float))

    def aligned(self, rigid: FloatArray) -> ScanPair:
        """The same scans with another rigid motion, 4x4."""
        return replace(self, rigid=np.asarray(rigid, dtype=float))

    def swapped(self) -> ScanPair:
        """From template to reference: the way back."""
        return ScanPair(self.template, self.reference, np.linalg.inv(self.rigid).astype(np.float64))

    def clear_cache(self) -> None:
        """Free the memory of what stages made of both scans."""
        self.reference.clear_cache()
        self.template.clear_cache()
