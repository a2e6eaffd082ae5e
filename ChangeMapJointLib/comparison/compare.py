"""Compare two scans, from reading them to the list of findings: Fig. 1 of Kohlbrandt et al. 2024.

Only this file and ``steps``, ``methods`` and ``assess`` beside it bring the stages together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.config import RunConfig, choose_device, config_for
from ChangeMapJointLib.comparison.given import AnyDeformation, read_given
from ChangeMapJointLib.comparison.inputs import AnyScan, as_input, check_inputs
from ChangeMapJointLib.comparison.methods import read_model
from ChangeMapJointLib.comparison.result import Result, RunRecord
from ChangeMapJointLib.comparison.stages import Listener, Stages, ignore_progress
from ChangeMapJointLib.comparison.steps import check_given, find_changes, register
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, Method
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.gate.checks import check_pair
from ChangeMapJointLib.io.read import split_selector
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.lungs.segment import segment_both, segment_lungs
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume


def compare(
    current: AnyScan,
    prior: AnyScan,
    *,
    method: Method | None = None,
    threshold: float | None = None,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    device: str | torch.device = DEFAULT_DEVICE,
    progress: Listener | None = None,
    stages: Stages | None = None,
    deformation: AnyDeformation | None = None,
    refine: bool = False,
) -> Result:
    """Register the prior scan to the current one and list what changed.

    Args:
        current: a file, a DICOM folder or zip (``PATH#SERIES`` picks one of several), a SimpleITK image in HU, or a
            :class:`~ChangeMapJointLib.scan.volume.Volume`; or a :class:`~ChangeMapJointLib.scan.scan.Scan`, whose lungs
            are then taken as they are. Maps and findings lie on its grid.
        prior: the earlier scan, likewise.
        method: ``sequential`` (default), ``joint``, or ``rigid`` (no map).
        threshold: value of the change map from which a region counts as a finding, in (0, 1].
        config: all options, or some as a mapping or a JSON file; the method's defaults if None.
        device: ``auto``, ``cpu``, ``cuda``, or a torch device.
        progress: called with a :class:`~ChangeMapJointLib.comparison.stages.ProgressEvent` as the work proceeds; raise
            :class:`~ChangeMapJointLib.core.errors.Cancelled` in it to stop.
        stages: the stages of a larger run that the comparison is part of; replaces ``progress``.
        deformation: y of another program, which is then used instead of our registration (method ``sequential``). It
            maps points of the current scan (fixed) to the prior (moving), in mm, LPS, as a transform with which ITK
            resamples the prior. One of: a file, see :mod:`~ChangeMapJointLib.io.deformation_files`, or several in the
            order in which points pass through them (warp, then affine matrix); a SimpleITK transform or vector image;
            a :class:`~ChangeMapJointLib.scan.deformation.Deformation`; or an array ``[z, y, x, 3]`` of displacements
            (x, y, z) on the current scan's grid.
        refine: start our registration from ``deformation``, so that change which it deformed away comes back.

    Returns:
        The result; ``result.save(folder)`` writes it.

    Raises:
        InputError: a scan cannot be read, is not a chest CT, or has no lungs; the two scans do not show the same
            chest; an option is invalid; or ``deformation`` cannot be read or does not belong to the scans.
        Cancelled: ``progress`` asked to stop.

    Examples:
        >>> import ChangeMapJointLib as cmj
        >>> result = cmj.compare("current.nrrd", "prior.nrrd", method="rigid")
        >>> result.quality.verdict
        'look closely'
        >>> result.deformation.apply([[60.0, 0.0, 20.0]]).round(1).tolist()
        [[60.0, 0.0, 20.0]]
    """
    inputs = as_input(current, "current"), as_input(prior, "prior")
    check_inputs([split_selector(scan.path)[0] for scan in inputs if scan.path is not None])
    config = config_for(method, config, threshold=threshold)
    check_given(config, given=deformation is not None, refine=refine)
    torch_device = choose_device(device)
    model = read_model(config.joint) if config.method == "joint" else None
    stages = stages or Stages(METHODS[config.method].shares, progress or ignore_progress)
    started = datetime.now(timezone.utc)
    with stages.stage("read") as report:
        reference, reference_input = inputs[0].read(lambda f, m="": report(0.5 * f, m))
        template, template_input = inputs[1].read(lambda f, m="": report(0.5 + 0.5 * f, m))
        given = None if deformation is None else read_given(deformation, reference.grid)
    lungs = inputs[0].lungs, inputs[1].lungs
    result = compare_scans(
        reference,
        template,
        config=config,
        device=torch_device,
        stages=stages,
        model=model,
        lungs=lungs,
        deformation=given,
        refine=refine,
    )
    record = RunRecord(config, torch_device, (reference_input, template_input), started, tuple(stages.reports))
    return replace(result, record=record)


def compare_scans(
    reference: Volume,
    template: Volume,
    *,
    config: RunConfig,
    device: torch.device,
    stages: Stages,
    model: Checkpoint | None = None,
    lungs: tuple[Lungs | None, Lungs | None] = (None, None),
    deformation: AnyDeformation | None = None,
    refine: bool = False,
) -> Result:
    """Compare two volumes that are already read and checked, as :func:`compare` does.

    Args:
        reference: R, from :func:`~ChangeMapJointLib.gate.checks.check_ct`.
        template: T, likewise.
        config: all options.
        device: where the registration computes; the CPU takes over if the GPU runs out of memory.
        stages: receives the progress, and keeps the time and memory of each stage.
        model: the network of method ``joint``; if None, the one that ``config`` names.
        lungs: of reference and template, where they are known.
        deformation: see :func:`compare`.
        refine: see :func:`compare`.

    Raises:
        InputError: the gate refuses the pair, a scan has no lungs, the scans cannot be aligned, or the network's
            weights cannot be used.
    """
    check_pair(reference, template).raise_if_refused(reference.source, template.source)
    if config.method == "joint" and model is None:
        model = read_model(config.joint)
    with stages.stage("lungs") as progress:
        if lungs == (None, None):
            masks = segment_both(reference, template, options=config.lungs, progress=progress)
        else:
            masks = (
                lungs[0] or segment_lungs(reference, options=config.lungs, progress=progress),
                lungs[1] or segment_lungs(template, options=config.lungs, progress=progress),
            )
    scans = Scan(reference, masks[0]), Scan(template, masks[1])
    registered = register(
        *scans, config=config, device=device, stages=stages, model=model, deformation=deformation, refine=refine
    )
    return find_changes(registered, stages=stages)
