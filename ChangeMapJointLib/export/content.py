"""Everything that a report shows, gathered by the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, METHOD_NAMES
from ChangeMapJointLib.core.choices import Method
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.registration.quality import LOW_TRUST
from ChangeMapJointLib.scan.volume import Volume

if TYPE_CHECKING:
    from ChangeMapJointLib.change.findings import Finding, Findings
    from ChangeMapJointLib.gate.answer import GateAnswer
    from ChangeMapJointLib.registration.quality import Quality


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What :func:`~ChangeMapJointLib.export.report.write_report` puts on its page.

    Attributes:
        reference: R, the current scan.
        template: T, the prior scan, as acquired.
        warped_template: T(y) in HU, int16 ``[z, y, x]`` on R's grid; with method ``rigid`` T after rigid alignment.
        method: ``rigid``, ``sequential`` or ``joint``. ``rigid`` shows both scans and neither map nor findings.
        threshold: of the change map; colour is shown where the map reaches it.
        change_map: float32 [0, 1] ``[z, y, x]`` on R's grid; None with ``rigid``.
        signed_hu: R - T(y) in HU on R's grid; None with ``rigid``.
        displacement: y(x) = x + u(x); locates findings in T that do not say where they are there.
        findings: None with ``rigid``.
        quality: figures and verdict of the registration; None where they were not computed.
        gate: may the two scans be compared; None where that was not asked.
        rigid_template: T after rigid alignment on R's grid, shown beside R where the verdict is ``do not use``.
        lungs: where the change map looks, on R's grid, bool; frames the overviews. None: the whole scan.
        trust: [0, 1] on R's grid; areas below ``trust_limit`` are hatched. None: not marked.
        trust_limit: see ``trust``.
        notices: sentences shown on top, for example that a time point is synthetic.
        reference_sha256: of the input file or series.
        template_sha256: likewise.
        attribution: where the scans come from and under which licence, one sentence each.
        provenance: versions, device, times and so on; a mapping of single values, of mappings (shown as a table
            of two columns) or of lists of mappings (a table with one row each).
    """

    reference: Volume
    template: Volume
    warped_template: NDArray[np.int16] | NDArray[np.float32]
    method: Method
    threshold: float = DEFAULT_THRESHOLD
    change_map: NDArray[np.float32] | None = None
    signed_hu: NDArray[np.int16] | NDArray[np.float32] | None = None
    displacement: DisplacementField | None = None
    findings: Findings | None = None
    quality: Quality | None = None
    gate: GateAnswer | None = None
    rigid_template: NDArray[np.int16] | NDArray[np.float32] | None = None
    lungs: NDArray[np.bool_] | None = None
    trust: NDArray[np.float32] | None = None
    trust_limit: float = LOW_TRUST
    notices: tuple[str, ...] = ()
    reference_sha256: str = ""
    template_sha256: str = ""
    attribution: tuple[str, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHOD_NAMES:
            raise ValueError(f"ReportContent 'method' must be one of {METHOD_NAMES}, got {self.method!r}")
        for name in ("warped_template", "rigid_template", "change_map", "signed_hu", "lungs", "trust"):
            array = getattr(self, name)
            if array is not None and array.shape != self.reference.grid.shape:
                shapes = f"the reference's shape {self.reference.grid.shape}, got {array.shape}"
                raise ValueError(f"ReportContent {name!r} must have {shapes}")
        missing = [name for name in ("change_map", "signed_hu", "findings") if getattr(self, name) is None]
        if self.method != "rigid" and missing:
            raise ValueError(f"ReportContent needs {missing} with method {self.method!r}; only 'rigid' goes without")

    @property
    def items(self) -> tuple[Finding, ...]:
        """The findings in the order of the table; empty with ``rigid``, and where the registration cannot be used."""
        none = self.method == "rigid" or self.findings is None or self.unusable
        return () if none or self.findings is None else tuple(self.findings.items)

    @property
    def unusable(self) -> bool:
        """The registration failed: no finding is one, and only rigid side by side can be looked at."""
        return self.verdict == "do not use"

    @property
    def withheld(self) -> int:
        """How many findings a registration that failed would list."""
        if not self.unusable or self.findings is None:
            return 0
        return self.findings.withheld or len(self.findings.items)

    @property
    def verdict(self) -> str:
        """``good``, ``look closely``, ``do not use`` or ``not measured``."""
        return "not measured" if self.quality is None else self.quality.verdict

    @property
    def warning(self) -> str:
        """Words for a band on every picture that depends on the registration; empty where it can be used."""
        return "DO NOT USE: registration failed" if self.verdict == "do not use" else ""
