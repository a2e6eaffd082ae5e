"""Find the deformation y between two rigidly aligned scans: by the sequential method or the joint network, or given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.given import GivenReport, PlacedDeformation
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.comparison.swallowed import find_swallowed
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Shape3
from ChangeMapJointLib.core.progress import Progress
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.joint.checkpoint import Checkpoint, read_checkpoint
from ChangeMapJointLib.joint.inference import (
    JointOptions,
    JointPrediction,
    run_network,
    update_learned_change,
    usable_shape,
)
from ChangeMapJointLib.registration.deformable.objective import Keypoints
from ChangeMapJointLib.registration.deformable.register import (
    Registration,
    RegistrationOptions,
    folding_percent,
    register_deformable,
)
from ChangeMapJointLib.registration.keypoints.match import Matches, find_correspondences
from ChangeMapJointLib.scan.pair import ScanPair


@dataclass(frozen=True)
class JointReport:
    """Figures of the joint method for ``run.json`` and the report.

    Attributes:
        model: name of the weights file.
        sha256: of the weights file.
        shape: (z, y, x) of the grid that the network saw.
        device: where the network computed.
        network: figures of the network's own y: ``folding_percent`` of the lung, and ``keypoint_error_mm``, the mean
            distance to keypoint matches that were found without the network.
        optimised: the same after instance optimisation; None without it.
        notes: sentences on anything that was computed differently than requested.
    """

    model: str
    sha256: str
    shape: Shape3
    device: str
    network: dict[str, float | None]
    optimised: dict[str, float | None] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodOutput:
    """What a method finds.

    Attributes:
        registration: y and the figures of its optimisation.
        matches: keypoint matches, which measure the error of y.
        learned: CM_learn of the joint method, float32 [0, 1] on the reference's grid; else None.
        joint: figures of the joint method; else None.
        given: where y comes from, if another program's was given; else None.
    """

    registration: Registration
    matches: Matches
    learned: NDArray[np.float32] | None = None
    joint: JointReport | None = None
    given: GivenReport | None = None


def register_sequential(pair: ScanPair, config: RunConfig, fallback: DeviceFallback, stages: Stages) -> MethodOutput:
    """Match keypoints, then solve Eq. (1) from coarse to fine."""
    matches = _match_keypoints(pair, config, stages)
    with stages.stage("register") as progress:
        registration = _register(pair, matches, config.registration, fallback, progress)
    return MethodOutput(registration, matches)


def register_given(
    pair: ScanPair,
    placed: PlacedDeformation,
    config: RunConfig,
    fallback: DeviceFallback,
    stages: Stages,
    *,
    refine: bool,
) -> MethodOutput:
    """Take a given y as it is, or refine it by Eq. (1) with keypoints, as method ``joint`` refines the network's.

    Keypoints are matched without it; where y is not refined they measure it independently.
    """
    matches = _match_keypoints(pair, config, stages)
    field = placed.field
    lungs, grid = pair.reference.mask, pair.reference.grid
    folding = folding_percent(field, lungs, grid)
    report = GivenReport(
        placed.sources,
        refine,
        keypoint_error(field, matches.keypoints),
        folding,
        placed.notes,
        placed.warning,
        find_swallowed(field, lungs, grid),
    )
    with stages.stage("register") as progress:
        if refine:
            registration = _register(pair, matches, config.registration, fallback, progress, start=field)
        else:
            status = f"{report.sentence} It folds in {folding:.3f} % of the lung."
            registration = Registration(field, pair.rigid, (), folding, status)
    return MethodOutput(registration, matches, given=report)


def register_joint(
    pair: ScanPair, config: RunConfig, model: Checkpoint, fallback: DeviceFallback, stages: Stages
) -> MethodOutput:
    """Run the network, refine its y by Eq. (1) with keypoints, and let the network compute CM_learn again with that y.

    Raises:
        InputError: the network cannot take the grid's shape.
    """
    options = config.joint
    with stages.stage("network") as progress:
        answer = run_network(model, pair, shape=options.shape, device=fallback.device, progress=progress)
    matches = _match_keypoints(pair, config, stages)
    folding = folding_percent(answer.field, pair.reference.mask, pair.reference.grid)
    status = f"Found by the network alone; it folds in {folding:.3f} % of the lung."
    registration = Registration(answer.field, pair.rigid, (), folding, status)
    network_figures, optimised_figures = _figures(registration, matches), None
    with stages.stage("register") as progress:
        if options.instance:
            instance_options = replace(config.registration, iterations=options.instance)
            registration = _register(pair, matches, instance_options, fallback, progress, start=answer.field)
            optimised_figures = _figures(registration, matches)
            answer = update_learned_change(model, answer, registration.field, pair.reference.grid)
    report = _report(options, model, answer, network_figures, optimised_figures)
    return MethodOutput(registration, matches, answer.learned, report)


def read_model(options: JointOptions) -> Checkpoint:
    """Read the network weights that the configuration names.

    Raises:
        InputError: the weights are missing or not of this project, or cannot take ``options.shape``.
    """
    path = Path(options.model)
    if not path.suffix:
        try:
            path = resource("Models", f"{options.model}.safetensors")
        except InputError as error:
            located = error.at(Argument("config.joint.model", options.model))
            raise located.with_remedy("; or give a .safetensors file") from error
    model = read_checkpoint(path)
    usable_shape(model, options.shape)
    return model


def keypoint_error(field: DisplacementField, keypoints: Keypoints) -> float | None:
    """Return the mean distance in mm between y(k_R) and k_T; None without keypoints."""
    if not len(keypoints.reference_mm):
        return None
    return float(np.linalg.norm(field.apply(keypoints.reference_mm) - keypoints.template_mm, axis=1).mean())


def _match_keypoints(pair: ScanPair, config: RunConfig, stages: Stages) -> Matches:
    with stages.stage("keypoints") as progress:
        return find_correspondences(
            pair,
            keypoints=config.keypoints,
            options=config.matching,
            progress=progress,
        )


def _register(
    pair: ScanPair,
    matches: Matches,
    options: RegistrationOptions,
    fallback: DeviceFallback,
    progress: Progress,
    start: DisplacementField | None = None,
) -> Registration:
    return fallback.call(
        lambda device: register_deformable(
            pair,
            start=start,
            keypoints=matches.keypoints,
            options=options,
            device=device,
            progress=progress,
        )
    )


def _figures(registration: Registration, matches: Matches) -> dict[str, float | None]:
    error = keypoint_error(registration.field, matches.keypoints)
    return {"folding_percent": registration.folding_percent, "keypoint_error_mm": error}


def _report(
    options: JointOptions,
    model: Checkpoint,
    answer: JointPrediction,
    network: dict[str, float | None],
    optimised: dict[str, float | None] | None,
) -> JointReport:
    name = Path(options.model).name  # without the folder, which is private
    shape, device = answer.scans.grid.shape, answer.device.type
    return JointReport(name, model.sha256, shape, device, network, optimised, answer.notes)
