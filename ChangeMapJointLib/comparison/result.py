"""The result of a comparison: findings, change maps, deformation and quality."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.change.not_seen import NotSeen
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.given import GivenReport
from ChangeMapJointLib.comparison.inputs import Input
from ChangeMapJointLib.comparison.methods import JointReport
from ChangeMapJointLib.comparison.stages import StageReport
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.paths import as_path
from ChangeMapJointLib.gate.answer import ALL_FINE, GateAnswer
from ChangeMapJointLib.registration.deformable.register import Registration
from ChangeMapJointLib.registration.quality import Quality
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.pair import ScanPair

if TYPE_CHECKING:
    import torch

    from ChangeMapJointLib.comparison.stages import Stages


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Maps:
    """The maps of a comparison.

    Attributes:
        change_map: CM_seq or CM_comb, float32 [0, 1], ``[z, y, x]`` on the reference's grid.
        signed_hu: R - T(y), int16, on the reference's grid.
        jacobian: det grad y, float32, on the field's grid.
        trust: how reliable the deformation is, float32 [0, 1], on the field's grid.
        lungs: where the maps are computed, bool, on the reference's grid: R's lungs, and where T(y)'s lungs reach
            beyond them by more than a thin rim.
        difference: CM_diff of the joint method, like ``change_map``; else None.
        learned: CM_learn of the joint method, like ``change_map``; else None.
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
    """How a result was computed.

    Attributes:
        config: all options.
        device: on which the registration started.
        inputs: reference and template as the caller gave them.
        started: when, in UTC.
        stages: time and memory of each stage, in order.
    """

    config: RunConfig = field(default_factory=RunConfig)
    device: torch.device | None = None
    inputs: tuple[Input, Input] | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    stages: tuple[StageReport, ...] = ()


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Result:
    """A comparison of two scans, as :func:`~ChangeMapJointLib.comparison.compare.compare` returns it.

    With method ``rigid`` there are no maps: ``maps``, ``findings`` and everything computed from them are None.

    Attributes:
        pair: both scans with their lungs.
        rigid: the rigid alignment and its figures.
        deformation: y; ``deformation.warp(image)`` warps an image on the prior's grid onto the current scan's grid.
        warped_template: T(y) in HU, int16, on the reference's grid.
        quality: the verdict on the registration, with reasons and figures.
        gate: whether the two scans may be compared at all.
        registration: the deformable registration.
        maps: the change map and the maps it is computed from.
        findings: what changed, measured in both scans. If the registration cannot be used, the list is empty and
            ``findings.why`` gives the reasons.
        candidates: the changes that are not findings, as in ``findings.others``; a threshold slider takes its figures
            from them.
        joint: figures of the joint method.
        given: where the deformation comes from, if it was given.
        notes: sentences on anything that was computed differently than requested.
        record: how the result was computed.
        not_seen: what this comparison cannot see, whether or not anything was found; empty without maps.
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
    given: GivenReport | None = None
    notes: tuple[str, ...] = ()
    gate: GateAnswer = ALL_FINE
    record: RunRecord = field(default_factory=RunRecord)
    not_seen: tuple[NotSeen, ...] = ()

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
        """How reliable the deformation is, float32 [0, 1], on ``deformation.field.grid``."""
        return None if self.maps is None else self.maps.trust

    @property
    def jacobian(self) -> NDArray[np.float32] | None:
        """Det grad y, float32, on ``deformation.field.grid``: 1 keeps the volume, 0 or less means folding."""
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
        keep_names: bool = False,
        full_field: bool = False,
    ) -> Path:
        """Write the result folder, as ``changemap run`` does: complete or not at all.

        Args:
            out: the folder to make.
            overwrite: replace the folder of an earlier run.
            compress: compress the volumes; without it they are written and loaded faster.
            notices: sentences for the top of the report.
            attribution: where the scans come from and under which licence.
            stages: the stages of a larger run that saving is part of.
            keep_names: write the names of the input files into run.json and report; else hashes stand for them.
            full_field: write every vector of the deformation; else every second along each axis, from which the
                others follow to 0.02 mm in the lungs.

        Returns:
            ``out``.

        Raises:
            InputError: ``out`` cannot be written, exists without ``overwrite``, or holds files that are not a run's.
        """
        from ChangeMapJointLib.comparison.save import save_result

        return save_result(
            self,
            as_path(out, "out"),
            overwrite=overwrite,
            compress=compress,
            notices=_sentences(notices, "notices"),
            attribution=_sentences(attribution, "attribution"),
            stages=stages,
            keep_names=keep_names,
            full_field=full_field,
        )

    def report(self, path: Path | str) -> Path:
        """Write the report as one self-contained HTML page.

        Args:
            path: the file, in a folder that exists; it is overwritten.

        Returns:
            ``path``.
        """
        from ChangeMapJointLib.comparison.save import write_page

        return write_page(self, as_path(path, "path"))

    def to_dicom(
        self,
        out: Path | str,
        *,
        reference: Path | str | None = None,
        template: Path | str | None = None,
        anonymous: bool = False,
        earlier: Path | str | None = None,
    ) -> list[Path]:
        """Write the result as DICOM objects, complete or not at all; needs the extra ``dicom``.

        They are a segmentation of the findings, a measurement report (TID 1500), a parametric map of the change map,
        the registrations, and the report as pages and as a PDF. They carry the patient and the study of the current
        scan and refer to the images of both scans.

        Args:
            out: the folder to make.
            reference: DICOM series of the current scan; None for the one that was compared, if it was DICOM.
            template: DICOM series of the prior scan, likewise.
            anonymous: leave out patient, study, dates and real UIDs.
            earlier: folder of the export whose current scan is this result's prior scan: its lesions keep their
                tracking identifiers.

        Returns:
            The files; those that others refer to come first.

        Raises:
            InputError: highdicom is missing; a series is not DICOM, not that of the result, or of another patient; or
                ``out`` exists or cannot be written.
        """
        from ChangeMapJointLib.comparison.to_dicom import DicomRequest, export_dicom

        given = {"reference": reference, "template": template, "earlier": earlier}
        paths = [None if path is None else as_path(path, name) for name, path in given.items()]
        return export_dicom(self, DicomRequest(as_path(out, "out"), paths[0], paths[1], anonymous, paths[2]))


def _sentences(given: Iterable[str], argument: str) -> tuple[str, ...]:
    """Return the sentences that a caller gives; one text is not taken apart into its letters."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"found {type(given).__name__}", field=argument, expected="a list of sentences")
    sentences = tuple(given)
    if wrong := [one for one in sentences if not isinstance(one, str)]:
        raise InputError(f"found {type(wrong[0]).__name__} in it", field=argument, expected="a list of sentences")
    return sentences
