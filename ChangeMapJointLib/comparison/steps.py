"""The two steps after lung segmentation, as separate calls: register two scans, and find what changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.assess import assess_deformable, assess_rigid
from ChangeMapJointLib.comparison.config import RunConfig, choose_device, config_for
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.methods import MethodOutput, read_model, register_joint, register_sequential
from ChangeMapJointLib.comparison.result import Result, RunRecord
from ChangeMapJointLib.comparison.stages import Listener, Stages, ignore_progress
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, Method
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.gate.answer import GateAnswer, GateReason
from ChangeMapJointLib.gate.checks import check_pair
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.rigid.any_size import align_any_size
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan


@dataclass(frozen=True)
class Registered:
    """Two registered scans, as :func:`register` returns them.

    Attributes:
        pair: both scans with their lungs, rigidly aligned.
        rigid: the rigid alignment and its figures.
        gate: whether the two scans may be compared at all.
        config: all options.
        device: where the next stage computes, with a note on every change of device.
        output: y, keypoint matches and CM_learn; None with method ``rigid``.
    """

    pair: ScanPair
    rigid: RigidAlignment
    gate: GateAnswer
    config: RunConfig
    device: DeviceFallback
    output: MethodOutput | None = None

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
    config: RunConfig | None = None,
    device: str | torch.device = DEFAULT_DEVICE,
    progress: Listener = ignore_progress,
    stages: Stages | None = None,
    model: Checkpoint | None = None,
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

    Returns:
        Both scans, the deformation, and the gate's answer.

    Raises:
        InputError: the gate refuses the pair, the scans cannot be aligned, or the network's weights cannot be used.

    Example:
        >>> import ChangeMapJointLib as cmj
        >>> volumes = [cmj.read(path) for path in ("current.nrrd", "prior.nrrd")]
        >>> current, prior = (cmj.Scan(volume, cmj.segment_lungs(volume)) for volume in volumes)
        >>> registered = cmj.register(current, prior, method="rigid")
        >>> registered.deformation.apply([[60.0, 0.0, 20.0]]).round(1).tolist()
        [[60.0, 0.0, 20.0]]
        >>> cmj.find_changes(registered).quality.verdict
        'look closely'
    """
    config = config_for(method, config)
    if config.method == "joint" and model is None:
        model = read_model(config.joint)
    fallback = DeviceFallback(choose_device(device) if isinstance(device, str) else device)
    stages = stages or Stages(METHODS[config.method].shares, progress)
    with stages.stage("rigid") as report:
        rigid = align_any_size(current, prior, options=config.rigid, progress=report)
    pair = ScanPair(current, prior, rigid.matrix)
    with stages.stage("gate"):
        gate = _check_gate(current, prior, rigid)
    output = None
    if config.method == "joint":
        assert model is not None
        output = register_joint(pair, config, model, fallback, stages)
    elif config.method == "sequential":
        output = register_sequential(pair, config, fallback, stages)
    return Registered(pair, rigid, gate, config, fallback, output)


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
    gate.raise_if_refused(f"reference {current.volume.source} and template {prior.volume.source}")
    return gate


def find_changes(
    registered: Registered, *, progress: Listener = ignore_progress, stages: Stages | None = None
) -> Result:
    """Check a registration, make the change map, and list what changed.

    Args:
        registered: from :func:`register`.
        progress: called with a :class:`~ChangeMapJointLib.comparison.stages.ProgressEvent` as the work proceeds.
        stages: the stages of a larger run that this is part of; replaces ``progress``.

    Returns:
        The result; after a rigid registration it has no maps and no findings.

    Example:
        See :func:`register`.
    """
    pair, rigid, config = registered.pair, registered.rigid, registered.config
    stages = stages or Stages(METHODS[config.method].shares, progress)
    record = RunRecord(config, registered.device.device)
    if registered.output is None:
        return replace(assess_rigid(pair, rigid, stages), gate=registered.gate, record=record)
    result = assess_deformable(pair, rigid, registered.output, config, registered.device, stages)
    return replace(result, notes=registered.device.notes, gate=registered.gate, record=record)


def rule_of_warning(text: str) -> str:
    """Return the name of the gate's rule that a warning of the rigid alignment belongs to."""
    return "turned" if "turned" in text else "coverage" if "covers" in text else "vessels"
