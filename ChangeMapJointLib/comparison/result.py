"""What a comparison gives: findings, maps, the deformation, and how far they can be believed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.inputs import Input
from ChangeMapJointLib.comparison.methods import JointReport
from ChangeMapJointLib.comparison.stages import StageReport
from ChangeMapJointLib.gate.answer import ALL_FINE, GateAnswer
from ChangeMapJointLib.registration.deformable.register import Registration
from ChangeMapJointLib.registration.quality import Quality
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.pair import ScanPair

if TYPE_CHECKING:
    import torch

    from ChangeMapJointLib.comparison.stages import Stages


@dataclass(frozen=True)
class Maps:
    """The method's maps.

    Attributes:
        change_map: CM_seq or CM_comb, float32 [0, 1], ``[z, y, x]`` on the reference's grid.
        signed_hu: R - T(y), int16, on the reference's grid.
        jacobian: det grad y, float32, on the field's grid.
        trust: float32 [0, 1], on the field's grid.
        lungs: where the maps look, bool, on the reference's grid: R's lungs, and T(y)'s beyond their rim.
        difference: CM_diff of the joint method, as ``change_map``.
        learned: CM_learn, likewise.
    """

    change_map: NDArray[np.float32]
    signed_hu: NDArray[np.int16]
    jacobian: NDArray[np.float32]
    trust: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    difference: NDArray[np.float32] | None = None
    learned: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class RunRecord:
    """How a result came about.

    Attributes:
        config: all options.
        device: on which the variational part began.
        inputs: reference and template as they were given.
        started: in UTC.
        stages: time and memory of each, in order.
    """

    config: RunConfig = field(default_factory=RunConfig)
    device: torch.device | None = None
    inputs: tuple[Input, Input] | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    stages: tuple[StageReport, ...] = ()


@dataclass(frozen=True)
class Result:
    """A comparison of two scans, as :func:`~ChangeMapJointLib.comparison.compare.compare` returns it.

    With method ``rigid`` there are no maps: ``maps``, ``findings`` and what follows from them are None.

    Attributes:
        pair: both scans with their lungs.
        rigid: the rigid alignment and its figures.
        deformation: y; ``deformation.warp(image)`` brings anything on the prior's grid onto the current scan's.
        warped_template: T(y) in HU, int16, on the reference's grid.
        quality: the verdict on the registration, with reasons and figures.
        gate: whether the two scans may be compared at all.
        registration: of the deformable part.
        maps: the change map and what belongs to it.
        findings: what changed, measured in both scans. Where the registration cannot be used, none is listed, and
            ``findings.why`` says why.
        candidates: the same from the method's lower threshold on: what a live slider shows below that of the findings.
        joint: what the network gave.
        notes: sentences on what was done in another way than asked for.
        record: how the result came about.
    """

    pair: ScanPair
    rigid: RigidAlignment
    deformation: Deformation
    warped_template: NDArray[np.int16]
    quality: Quality
    registration: Registration | None = None
    maps: Maps | None = None
    findings: Findings | None = None
    candidates: Findings | None = None
    joint: JointReport | None = None
    notes: tuple[str, ...] = ()
    gate: GateAnswer = ALL_FINE
    record: RunRecord = field(default_factory=RunRecord)

    @property
    def change_map(self) -> NDArray[np.float32] | None:
        """CM_seq or CM_comb, float32 [0, 1], ``[z, y, x]`` on the current scan's grid."""
        return None if self.maps is None else self.maps.change_map

    @property
    def signed_change(self) -> NDArray[np.int16] | None:
        """Current minus warped prior in HU, int16 ``[z, y, x]`` on the current scan's grid."""
        return None if self.maps is None else self.maps.signed_hu

    @property
    def trust(self) -> NDArray[np.float32] | None:
        """How far the deformation can be believed, float32 [0, 1], on ``deformation.field.grid``."""
        return None if self.maps is None else self.maps.trust

    @property
    def jacobian(self) -> NDArray[np.float32] | None:
        """Det grad y, float32, on ``deformation.field.grid``: 1 keeps volume, 0 and less folds."""
        return None if self.maps is None else self.maps.jacobian

    def save(
        self,
        out: Path | str,
        *,
        overwrite: bool = False,
        compress: bool = True,
        notices: Iterable[str] = (),
        attribution: Iterable[str] = (),
        stages: Stages | None = None,
    ) -> Path:
        """Write the folder that ``changemap run`` writes, whole or not at all.

        Args:
            out: the folder to make.
            overwrite: replace the folder of an earlier run.
            compress: the volumes; without, they are written and loaded faster.
            notices: sentences for the top of the report.
            attribution: where the scans come from and under which licence.
            stages: of a run that goes on; told of progress.

        Returns:
            ``out``.

        Raises:
            InputError: ``out`` cannot be written, or holds something else.
        """
        from ChangeMapJointLib.comparison.save import save_result

        return save_result(
            self,
            Path(out),
            overwrite=overwrite,
            compress=compress,
            notices=tuple(notices),
            attribution=tuple(attribution),
            stages=stages,
        )

    def report(self, path: Path | str) -> Path:
        """Write the report as one HTML page that needs nothing else.

        Args:
            path: the file; its folder must exist, and it is overwritten.

        Returns:
            ``path``.
        """
        from ChangeMapJointLib.comparison.save import write_page

        return write_page(self, Path(path))
