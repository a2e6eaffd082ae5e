"""What a registration means: how far it can be believed, the maps that follow from it, and the findings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.findings import FindingOptions, Findings, list_findings
from ChangeMapJointLib.change.maps import change_map, lungs_of_both, match_voxel_blur, signed_change
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.methods import MethodOutput, keypoint_error
from ChangeMapJointLib.comparison.result import Maps, Result
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU
from ChangeMapJointLib.core.progress import Progress
from ChangeMapJointLib.core.resample import resample, sample_array
from ChangeMapJointLib.registration import quality
from ChangeMapJointLib.registration.deformable.register import Registration, RegistrationOptions, register
from ChangeMapJointLib.registration.keypoints.match import Matches
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.trust import gather_evidence, inverse_consistency, trust_map
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.padding import unseen_mask
from ChangeMapJointLib.scan.pair import ScanPair


@dataclass(frozen=True)
class Check:
    """What the check of a registration gives.

    Attributes:
        inverse_mm: how far y and the registration the other way round disagree, float32 on the field's grid.
        trust: float32 [0, 1], on the field's grid.
    """

    inverse_mm: NDArray[np.float32]
    trust: NDArray[np.float32]


@dataclass(frozen=True)
class Warped:
    """The template on the reference's grid.

    Attributes:
        hu: T(y), int16.
        lungs: M_T(y), bool.
        shared: what both scans measured, bool.
    """

    hu: NDArray[np.int16]
    lungs: NDArray[np.bool_]
    shared: NDArray[np.bool_]


def assess_rigid(pair: ScanPair, rigid: RigidAlignment, stages: Stages) -> Result:
    """The result of method ``rigid``: no maps, no findings."""
    with stages.stage("warp"):
        grid = pair.reference.grid
        warped = as_hu(warped_rigidly(pair))
        residual = quality.mean_residual(pair.reference.array, warped, pair.reference.mask)
        overlap = quality.dice(pair.reference.mask, lungs_rigidly(pair))
        figures = quality.rigid_figures(residual, overlap, rigid.overlap.reference_in_template)
        deformation = Deformation(DisplacementField.from_affine(rigid.matrix, grid.corners()), grid, pair.template.grid)
    return Result(pair, rigid, deformation, warped, quality.judge_rigid(figures))


def assess_deformable(
    pair: ScanPair,
    rigid: RigidAlignment,
    output: MethodOutput,
    config: RunConfig,
    fallback: DeviceFallback,
    stages: Stages,
) -> Result:
    """Check y, warp the template, make the maps, and list the findings."""
    registration = output.registration
    field = registration.field
    with stages.stage("check") as progress:
        check = check_registration(pair, output, config, fallback, progress)
        pair.clear_cache()
    with stages.stage("warp"):
        warped, maps = warp_and_map(pair, output, check.trust, fallback)
    with stages.stage("findings"):
        listed = config.findings
        findings = _find(pair, maps, field, listed)
        lowest = min(METHODS[config.method].candidates, listed.threshold)
        weak = replace(listed, threshold=lowest, proven_threshold=None)
        candidates = _find(pair, maps, field, weak)
        judged = quality.judge(_figures(pair, rigid, registration, output.matches, maps, warped, check))
        if judged.verdict == "do not use":
            findings, candidates = (found.held_back(judged.reasons) for found in (findings, candidates))
    return Result(
        pair,
        rigid,
        Deformation(field, pair.reference.grid, pair.template.grid),
        warped.hu,
        judged,
        registration,
        maps,
        findings,
        candidates,
        output.joint,
    )


def check_registration(
    pair: ScanPair, output: MethodOutput, config: RunConfig, fallback: DeviceFallback, progress: Progress
) -> Check:
    """Register the other way round, and gather what speaks for and against y."""
    field, keypoints = output.registration.field, output.matches.keypoints
    back = _backward(pair, output.matches, config.backward, fallback, progress)
    error = inverse_consistency(field, back.field)
    evidence = gather_evidence(pair, field, back.field, keypoints=keypoints, options=config.trust)
    return Check(error, trust_map(evidence, field, pair.template.grid, options=config.trust))


def warp_and_map(
    pair: ScanPair, output: MethodOutput, trust: NDArray[np.float32], fallback: DeviceFallback
) -> tuple[Warped, Maps]:
    """T(y), and the method's maps of R and T(y) at equal resolution."""
    r, t, field = pair.reference, pair.template, output.registration.field
    warped = as_hu(_warped(t.array, pair, field, fallback, outside=NOT_SCANNED_HU))
    lungs_warped = warp(t.mask, t.grid, r.grid, field) >= 0.5
    lungs = lungs_of_both(r.mask, lungs_warped, r.grid)
    matched_r, matched_t = match_voxel_blur(
        r.array, r.grid, t.array, t.grid, reference_unseen=unseen_mask(r.volume), template_unseen=unseen_mask(t.volume)
    )
    moved = _warped(matched_t, pair, field, fallback, outside=np.nan)
    difference, signed = change_map(matched_r, moved, lungs), signed_change(matched_r, moved)
    shared = np.isfinite(moved) & np.isfinite(matched_r)
    del moved, matched_r, matched_t
    jacobian = field.jacobian_determinant()
    if output.learned is None:
        maps = Maps(difference, signed, jacobian, trust, lungs)  # CM_seq
    else:
        learned = np.where(lungs, output.learned, np.float32(0))
        maps = Maps(difference * learned, signed, jacobian, trust, lungs, difference, learned)  # CM_comb
    return Warped(warped, lungs_warped, shared), maps


def warped_rigidly(pair: ScanPair) -> NDArray[np.float32]:
    """T(A x) in HU, float32 on the reference's grid."""
    t = pair.template
    return resample(t.array, t.grid, pair.reference.grid, matrix=pair.rigid, outside=NOT_SCANNED_HU)


def lungs_rigidly(pair: ScanPair) -> NDArray[np.bool_]:
    """M_T(A x), bool on the reference's grid."""
    t = pair.template
    return resample(t.mask, t.grid, pair.reference.grid, matrix=pair.rigid) >= 0.5


def as_hu(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounded to int16; NaN becomes what was not scanned."""
    result = np.empty(values.shape, dtype=np.int16)
    for z, plane in enumerate(values):  # slice by slice: no temporary of the volume's size
        result[z] = np.rint(np.nan_to_num(plane, nan=NOT_SCANNED_HU))
    return result


def _backward(
    pair: ScanPair, matches: Matches, options: RegistrationOptions, fallback: DeviceFallback, progress: Progress
) -> Registration:
    """From template to reference, which serves as a check."""
    swapped, keypoints = pair.swapped(), matches.keypoints.swapped()
    return fallback.call(
        lambda device: register(swapped, keypoints=keypoints, options=options, device=device, progress=progress)
    )


def _warped(
    array: NDArray[np.generic], pair: ScanPair, field: DisplacementField, fallback: DeviceFallback, *, outside: float
) -> NDArray[np.float32]:
    """A volume on the template's grid, on the reference's."""
    grids = pair.template.grid, pair.reference.grid
    return fallback.call(lambda device: warp(array, *grids, field, outside=outside, device=str(device)))


def _find(pair: ScanPair, maps: Maps, field: DisplacementField, options: FindingOptions) -> Findings:
    return list_findings(
        maps.change_map,
        maps.signed_hu,
        pair,
        field,
        trust=lambda points: sample_array(maps.trust, field.grid, points),
        options=options,
    )


def _figures(
    pair: ScanPair,
    rigid: RigidAlignment,
    registration: Registration,
    matches: Matches,
    maps: Maps,
    warped: Warped,
    check: Check,
) -> quality.Figures:
    """Of the lungs that both scans show: what one of them does not show has no partner, which is no fault."""
    r, grid = pair.reference, registration.field.grid
    lungs = r.mask & warped.shared
    if not lungs.any():
        lungs = r.mask
    on_field = lungs if grid.same_as(r.grid) else resample(lungs, r.grid, grid) >= 0.5
    inside = on_field if on_field.any() else np.ones(grid.shape, dtype=bool)
    determinant = maps.jacobian[inside]
    return quality.Figures(
        residual_hu=quality.mean_residual(r.array, warped.hu, lungs),
        residual_rigid_hu=quality.mean_residual(r.array, warped_rigidly(pair), lungs),
        folding_percent=registration.folding_percent,
        jacobian_min=float(determinant.min()),
        jacobian_max=float(determinant.max()),
        sd_log_jacobian=float(np.log(determinant[determinant > 0]).std()),
        lung_dice=quality.dice(lungs, warped.lungs & warped.shared),
        lung_dice_rigid=quality.dice(lungs, lungs_rigidly(pair) & warped.shared),
        inverse_consistency_mm=float(check.inverse_mm[inside].mean()),
        inverse_consistency_p95_mm=float(np.percentile(check.inverse_mm[inside], 95)),
        keypoint_error_mm=keypoint_error(registration.field, matches.keypoints),
        keypoints_found=matches.found,
        keypoints_dropped=matches.dropped,
        overlap=rigid.overlap.reference_in_template,
        trusted_percent=100.0 * float((maps.trust[inside] >= quality.LOW_TRUST).mean()),
    )
