"""The two steps after lung segmentation, as separate calls: register two scans, and find what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.assess import assess_deformable, assess_rigid
from ChangeMapJointLib.comparison.config import RunConfig, choose_device, config_for
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.given import AnyDeformation, place_given, read_given
from ChangeMapJointLib.comparison.methods import (
    MethodOutput,
    read_model,
    register_given,
    register_joint,
    register_sequential,
)
from ChangeMapJointLib.comparison.result import Result, RunRecord
from ChangeMapJointLib.comparison.stages import Listener, StageReport, Stages, ignore_progress
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, Method
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.gate.answer import GateAnswer, GateReason
from ChangeMapJointLib.gate.checks import check_pair
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.rigid.any_size import align_any_size
from ChangeMapJointLib.registration.rigid.verdict import rule_of_warning
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Registered:
    """Two registered scans, as :func:`register` returns them.

    Attributes:
        pair: both scans with their lungs, rigidly aligned.
        rigid: the rigid alignment and its figures.
        gate: whether the two scans may be compared at all.
        config: all options.
        device: where the next stage computes, with a note on every change of device.
        output: y, keypoint matches and CM_learn; None with method ``rigid``.
        started: in UTC.
        stages: time and memory of each stage so far.
    """

    pair: ScanPair
    rigid: RigidAlignment
    gate: GateAnswer
    config: RunConfig
    device: DeviceFallback
    output: MethodOutput | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    stages: tuple[StageReport, ...] = ()

    @property
    def deformation(self) -> Deformation:
        """y, which maps points of the current scan to the prior; with method ``rigid`` the rigid motion alone."""
        grid = self.pair.reference.grid
        if self.output is None:
            field = DisplacementField.from_affine(self.rigid.matrix, grid.corners())
        else:
            field = self.output.registration.field
        return Deformation(field, grid, self.pair.template.grid)


def register(
    current: Scan,
    prior: Scan,
    *,
    method: Method | None = None,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    device: str | torch.device = DEFAULT_DEVICE,
    progress: Listener | None = None,
    stages: Stages | None = None,
    model: Checkpoint | None = None,
    deformation: AnyDeformation | None = None,
    refine: bool = False,
) -> Registered:
    """Align the prior to the current scan, first rigidly, then by the method.

    Args:
        current: the current scan with its lungs; its volume comes from :func:`read`.
        prior: the earlier scan, likewise.
        method: ``sequential`` (default), ``joint``, or ``rigid``, which ends after the rigid alignment.
        config: all options; the method's defaults if None.
        device: ``auto``, ``cpu`` or ``cuda``; the CPU takes over if the GPU runs out of memory.
        progress: called with a :class:`~ChangeMapJointLib.comparison.stages.ProgressEvent` as the work proceeds.
        stages: the stages of a larger run that the registration is part of; replaces ``progress``.
        model: the network of method ``joint``; if None, the one that ``config`` names.
        deformation: of another program, instead of our registration; see
            :func:`~ChangeMapJointLib.comparison.compare.compare`. The rigid alignment is computed all the same: the
            gate asks by it whether both scans show the same chest.
        refine: start our registration from ``deformation``.

    Returns:
        Both scans, the deformation, and the gate's answer.

    Raises:
        InputError: the gate refuses the pair, the scans cannot be aligned, the network's weights cannot be used, or
            ``deformation`` cannot be read or does not belong to the scans.

    Examples:
        >>> import ChangeMapJointLib as cmj
        >>> volumes = [cmj.read(path) for path in ("current.nrrd", "prior.nrrd")]
        >>> current, prior = (cmj.Scan(volume, cmj.segment_lungs(volume)) for volume in volumes)
        >>> registered = cmj.register(current, prior, method="rigid")
        >>> registered.deformation.apply([[60.0, 0.0, 20.0]]).round(1).tolist()
        [[60.0, 0.0, 20.0]]
        >>> cmj.find_changes(registered).quality.verdict
        'look closely'
    """
    for name, scan in (("current", current), ("prior", prior)):
        if not isinstance(scan, Scan):
            expected = "a Scan: a volume from read() with its lungs from segment_lungs()"
            raise InputError(f"found {type(scan).__name__}", field=name, expected=expected)
    started, config = datetime.now(timezone.utc), config_for(method, config)
    check_given(config, given=deformation is not None, refine=refine)
    given = None if deformation is None else read_given(deformation, current.grid)
    if config.method == "joint" and model is None:
        model = read_model(config.joint)
    fallback = DeviceFallback(choose_device(device))
    stages = stages or Stages(METHODS[config.method].shares, progress or ignore_progress)
    with stages.stage("rigid") as report:
        rigid = align_any_size(current, prior, options=config.rigid, progress=report)
    pair = ScanPair(current, prior, rigid.matrix)
    with stages.stage("gate"):
        gate = _check_gate(current, prior, rigid)
        placed = None if given is None else place_given(given, pair, rigid)
    output = None
    if placed is not None:
        output = register_given(pair, placed, config, fallback, stages, refine=refine)
    elif config.method == "joint":
        assert model is not None
        output = register_joint(pair, config, model, fallback, stages)
    elif config.method == "sequential":
        output = register_sequential(pair, config, fallback, stages)
    return Registered(pair, rigid, gate, config, fallback, output, started, tuple(stages.reports))


def check_given(config: RunConfig, *, given: bool, refine: bool) -> None:
    """Check that the options go with a given deformation, before anything is computed.

    Raises:
        InputError: they do not.
    """
    if refine and not given:
        raise InputError(
            "there is nothing to refine", field="refine", value=True, remedy=("give ", Argument("deformation"))
        )
    if given and config.method != "sequential":
        raise InputError(field="method", value=config.method, expected="sequential, the method for a given deformation")


def _check_gate(current: Scan, prior: Scan, rigid: RigidAlignment) -> GateAnswer:
    """Ask the gate about two aligned scans.

    Raises:
        InputError: the gate refuses the pair.
    """
    gate = check_pair(
        current.volume,
        prior.volume,
        lungs=(current.lungs, prior.lungs),
        rigid=rigid.matrix,
        remarks=[GateReason(rule_of_warning(text), "look", text) for text in rigid.warnings],
    )
    gate.raise_if_refused(current.volume.source, prior.volume.source)
    return gate


def find_changes(registered: Registered, *, progress: Listener | None = None, stages: Stages | None = None) -> Result:
    """Check a registration, make the change map, and list what changed.

    Args:
        registered: from :func:`register`.
        progress: called with a :class:`~ChangeMapJointLib.comparison.stages.ProgressEvent` as the work proceeds.
        stages: the stages of a larger run that this is part of; replaces ``progress``.

    Returns:
        The result; after a rigid registration it has no maps and no findings.

    Examples:
        See :func:`register`.
    """
    if not isinstance(registered, Registered):
        raise InputError(f"found {type(registered).__name__}", field="registered", expected="what register() returns")
    pair, rigid, config = registered.pair, registered.rigid, registered.config
    if stages is None:
        stages = Stages(METHODS[config.method].shares, progress or ignore_progress)
        stages.reports = list(registered.stages)
    if registered.output is None:
        result = assess_rigid(pair, rigid, stages)
    else:
        result = assess_deformable(pair, rigid, registered.output, config, registered.device, stages)
    record = RunRecord(config, registered.device.device, None, registered.started, tuple(stages.reports))
    return replace(result, notes=registered.device.notes, gate=registered.gate, record=record)
