"""The data that a report shows."""

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
    from ChangeMapJointLib.change.sections import Section
    from ChangeMapJointLib.export.reader_decisions import ReaderDecisions
    from ChangeMapJointLib.gate.answer import GateAnswer
    from ChangeMapJointLib.registration.quality import Quality


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What :func:`~ChangeMapJointLib.export.report.write_report` puts on its page.

    Attributes:
        reference: R, the current scan.
        template: T, the prior scan, as acquired.
        warped_template: T(y) in HU, int16 ``[z, y, x]`` on R's grid; with method ``rigid`` T after rigid alignment.
        method: ``rigid``, ``sequential`` or ``joint``. ``rigid`` shows both scans, without map and findings.
        how: how the scans were registered and the map computed, where it is not as ``method`` says; else empty.
        threshold: of the change map, in [0, 1]; colour is shown where the map reaches it.
        change_map: float32 [0, 1] ``[z, y, x]`` on R's grid; None with ``rigid``.
        signed_hu: R - T(y) in HU on R's grid; None with ``rigid``.
        displacement: y(x) = x + u(x); locates findings in T that hold no position there.
        findings: None with ``rigid``.
        quality: figures and verdict of the registration; None where they were not computed.
        gate: whether the two scans can be compared; None where that was not checked.
        rigid_template: T after rigid alignment on R's grid, shown beside R where the verdict is ``do not use``.
        lungs: the region in which the change map is computed, bool ``[z, y, x]`` on R's grid; the overviews are cropped
            to it. None: the whole scan.
        trust: [0, 1] on R's grid; regions below ``trust_limit`` are hatched. None: nothing is hatched.
        trust_limit: see ``trust``.
        not_seen: what the comparison cannot see, one sentence each; always shown, whatever was found.
        reading: what a reader decided; None before one has read the scans.
        notices: sentences shown at the top, for example that a scan is synthetic.
        reference_sha256: SHA-256 of the input file or series.
        template_sha256: the same of the template.
        attribution: source and licence of the scans, one sentence each.
        provenance: versions, device, times and so on: a mapping of single values, of mappings (each a table with two
            columns) and of lists of mappings (each a table with one row for each).
    """

    reference: Volume
    template: Volume
    warped_template: NDArray[np.int16] | NDArray[np.float32]
    method: Method
    how: str = ""
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
    not_seen: tuple[str, ...] = ()
    reading: ReaderDecisions | None = None
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
            raise ValueError(f"ReportContent needs {missing} with method {self.method!r}; only 'rigid' works without")

    @property
    def items(self) -> tuple[Finding, ...]:
        """The findings in table order; empty with ``rigid`` and where the registration failed."""
        none = self.method == "rigid" or self.findings is None or self.unusable
        return () if none or self.findings is None else tuple(self.findings.items)

    @property
    def judged(self) -> bool:
        """Whether the changes were judged, so that the list has sections and probabilities."""
        return self.findings is not None and self.findings.operating_point is not None

    def section(self, name: Section) -> tuple[Finding, ...]:
        """The changes of a section that is not listed; empty with ``rigid`` and where the registration failed."""
        none = self.method == "rigid" or self.findings is None or self.unusable
        return () if none or self.findings is None else self.findings.section(name)

    @property
    def unusable(self) -> bool:
        """Whether the registration failed: no finding is listed, and both scans are shown rigidly aligned instead."""
        return self.verdict == "do not use"

    @property
    def withheld(self) -> int:
        """Number of findings that are not listed because the registration failed."""
        if not self.unusable or self.findings is None:
            return 0
        return self.findings.withheld or len(self.findings.items)

    @property
    def verdict(self) -> str:
        """``good``, ``look closely``, ``do not use`` or ``not measured``."""
        return "not measured" if self.quality is None else self.quality.verdict

    @property
    def warning(self) -> str:
        """Text of the warning band on pictures that depend on the registration; empty where it can be used."""
        return "DO NOT USE: registration failed" if self.verdict == "do not use" else ""
