"""From two scans to findings: Fig. 1 of Kohlbrandt et al. 2024.

Stages meet here, in ``steps``, ``methods`` and ``assess`` of this package, and nowhere else.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import torch

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.config import RunConfig, choose_device, config_for
from ChangeMapJointLib.comparison.inputs import AnyScan, as_input, check_inputs
from ChangeMapJointLib.comparison.methods import read_model
from ChangeMapJointLib.comparison.result import Result, RunRecord
from ChangeMapJointLib.comparison.stages import Listener, Stages, nobody
from ChangeMapJointLib.comparison.steps import find_changes, register
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, Method
from ChangeMapJointLib.gate.checks import check_pair
from ChangeMapJointLib.io.read import split_selector
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.lungs.segment import segment_both
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume


def compare(
    current: AnyScan,
    prior: AnyScan,
    *,
    method: Method | None = None,
    config: RunConfig | None = None,
    device: str = DEFAULT_DEVICE,
    progress: Listener = nobody,
    stages: Stages | None = None,
) -> Result:
    """Register the prior scan to the current one and list what changed.

    Args:
        current: a file, a DICOM folder or zip (``PATH#SERIES`` picks one of several), a SimpleITK image in HU, or a
            :class:`~ChangeMapJointLib.scan.volume.Volume`. Maps and findings lie on its grid.
        prior: the earlier scan, likewise.
        method: ``sequential`` (default), ``joint``, or ``rigid`` (no map).
        config: all options; by default those of the method.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with a :class:`~ChangeMapJointLib.comparison.stages.ProgressEvent` while it works; raise
            :class:`~ChangeMapJointLib.core.errors.Cancelled` from it to stop.
        stages: instead of ``progress``, of a run that goes on after the comparison.

    Returns:
        The result; ``result.save(folder)`` writes it.

    Raises:
        InputError: a scan that cannot be read, that is no chest CT, or in which no lungs are found; a pair that does
            not show the same chest; an option that makes no sense.
        Cancelled: ``progress`` asked to stop.

    Example:
        >>> import ChangeMapJointLib as cmj
        >>> result = cmj.compare("current.nrrd", "prior.nrrd", method="rigid")
        >>> result.quality.verdict
        'look closely'
        >>> result.deformation.apply([[60.0, 0.0, 20.0]]).round(1).tolist()
        [[60.0, 0.0, 20.0]]
    """
    inputs = as_input(current), as_input(prior)
    check_inputs([split_selector(one.path)[0] for one in inputs if one.path is not None])
    config = config_for(method, config)
    chosen = choose_device(device)
    model = read_model(config.joint) if config.method == "joint" else None
    stages = stages or Stages(METHODS[config.method].shares, progress)
    started = datetime.now(timezone.utc)
    with stages.stage("read") as report:
        reference, first = inputs[0].read(lambda f, m="": report(0.5 * f, m))
        template, second = inputs[1].read(lambda f, m="": report(0.5 + 0.5 * f, m))
    result = compare_scans(reference, template, config=config, device=chosen, stages=stages, model=model)
    return replace(result, record=RunRecord(config, chosen, (first, second), started, tuple(stages.reports)))


def compare_scans(
    reference: Volume,
    template: Volume,
    *,
    config: RunConfig,
    device: torch.device,
    stages: Stages,
    model: Checkpoint | None = None,
) -> Result:
    """:func:`compare` of checked volumes, stage by stage.

    Args:
        reference: R, from :func:`~ChangeMapJointLib.gate.checks.check_ct`.
        template: T, likewise.
        config: all options.
        device: for the variational part; the CPU takes over where a GPU's memory does not suffice.
        stages: told of progress; keeps times and memory.
        model: of method ``joint``; by default the one that the configuration names.

    Raises:
        InputError: a pair that the gate refuses, no lungs in a scan, a pair that cannot be aligned, or weights that
            cannot be used.
    """
    check_pair(reference, template).raise_if_refused(f"reference {reference.source} and template {template.source}")
    if config.method == "joint" and model is None:
        model = read_model(config.joint)
    with stages.stage("lungs") as progress:
        lungs = segment_both(reference, template, options=config.lungs, progress=progress)
    scans = Scan(reference, lungs[0]), Scan(template, lungs[1])
    return find_changes(register(*scans, config=config, device=device, stages=stages, model=model), stages=stages)
