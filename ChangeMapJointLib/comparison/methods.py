"""How y is found between two scans that are rigidly aligned: by the sequential method, or by the joint network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.stages import Stages
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
    register,
)
from ChangeMapJointLib.registration.keypoints.match import Matches, find_correspondences
from ChangeMapJointLib.scan.pair import ScanPair


@dataclass(frozen=True)
class JointReport:
    """What the network gave, and what instance optimisation made of it.

    Attributes:
        model: name of the weights.
        sha256: of their file.
        shape: (z, y, x) of the grid that the network saw.
        device: where it computed.
        network: figures of its y alone: ``folding_percent`` of the lung and ``keypoint_error_mm``, the mean distance to
            correspondences that were found without it.
        optimised: the same after instance optimisation; None where there was none.
        notes: sentences on what had to be done in another way than asked for.
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
    """y, the correspondences that judge it, and what the network says of change."""

    registration: Registration
    matches: Matches
    learned: NDArray[np.float32] | None = None
    joint: JointReport | None = None


def register_sequential(pair: ScanPair, config: RunConfig, fallback: DeviceFallback, stages: Stages) -> MethodOutput:
    """Keypoints, then Eq. (1) from coarse to fine."""
    matches = _correspondences(pair, config, stages)
    with stages.stage("register") as progress:
        registration = _registered(pair, matches, config.registration, fallback, progress)
    return MethodOutput(registration, matches)


def register_joint(
    pair: ScanPair, config: RunConfig, model: Checkpoint, fallback: DeviceFallback, stages: Stages
) -> MethodOutput:
    """The network, then Eq. (1) from its y, with the keypoints, and the network's second look at what that aligned.

    Raises:
        InputError: a shape that the network cannot take.
    """
    options = config.joint
    with stages.stage("network") as progress:
        answer = run_network(model, pair, shape=options.shape, device=fallback.device, progress=progress)
    matches = _correspondences(pair, config, stages)
    folding = folding_percent(answer.field, pair.reference.mask, pair.reference.grid)
    said = f"Found by the network alone; it folds in {folding:.3f} % of the lung."
    found = Registration(answer.field, pair.rigid, (), folding, said)
    alone, optimised = _figures(found, matches), None
    with stages.stage("register") as progress:
        if options.instance:
            how = replace(config.registration, iterations=options.instance)
            found = _registered(pair, matches, how, fallback, progress, start=answer.field)
            optimised = _figures(found, matches)
            answer = update_learned_change(model, answer, found.field, pair.reference.grid)
    return MethodOutput(found, matches, answer.learned, _report(options, model, answer, alone, optimised))


def read_model(options: JointOptions) -> Checkpoint:
    """The weights that the configuration names.

    Raises:
        InputError: they are not there, or are no weights of this project.
    """
    path = Path(options.model)
    if not path.suffix:
        try:
            path = resource("Models", f"{options.model}.safetensors")
        except InputError as error:
            named = error.at(Argument("config.joint.model", options.model))
            raise named.with_remedy("; or give a .safetensors file") from error
    model = read_checkpoint(path)
    usable_shape(model, options.shape)
    return model


def keypoint_error(field: DisplacementField, keypoints: Keypoints) -> float | None:
    """Mean distance in mm between y(k_R) and k_T; None without keypoints."""
    if not len(keypoints.reference_mm):
        return None
    return float(np.linalg.norm(field.apply(keypoints.reference_mm) - keypoints.template_mm, axis=1).mean())


def _correspondences(pair: ScanPair, config: RunConfig, stages: Stages) -> Matches:
    with stages.stage("keypoints") as progress:
        return find_correspondences(
            pair,
            keypoints=config.keypoints,
            options=config.matching,
            progress=progress,
        )


def _registered(
    pair: ScanPair,
    matches: Matches,
    options: RegistrationOptions,
    fallback: DeviceFallback,
    progress: Progress,
    start: DisplacementField | None = None,
) -> Registration:
    return fallback.call(
        lambda device: register(
            pair,
            start=start,
            keypoints=matches.keypoints,
            options=options,
            device=device,
            progress=progress,
        )
    )


def _figures(found: Registration, matches: Matches) -> dict[str, float | None]:
    error = keypoint_error(found.field, matches.keypoints)
    return {"folding_percent": found.folding_percent, "keypoint_error_mm": error}


def _report(
    options: JointOptions,
    model: Checkpoint,
    answer: JointPrediction,
    alone: dict[str, float | None],
    optimised: dict[str, float | None] | None,
) -> JointReport:
    name = Path(options.model).name  # never a folder of this machine
    return JointReport(name, model.sha256, answer.scans.grid.shape, answer.device.type, alone, optimised, answer.notes)
