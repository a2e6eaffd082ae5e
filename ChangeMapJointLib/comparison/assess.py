"""Assess a registration: check it, make the change maps, and list the findings."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.evidence import ChangeEvidence
from ChangeMapJointLib.change.judged import judge_changes, other_changes
from ChangeMapJointLib.change.maps import change_map, lungs_of_both, match_voxel_blur, signed_change
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.change.not_seen import NotSeen, not_seen, nothing_seen
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.methods import MethodOutput, keypoint_error
from ChangeMapJointLib.comparison.result import Maps, Result
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.errors import Cancelled
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU
from ChangeMapJointLib.core.parallel import run_both
from ChangeMapJointLib.core.progress import Progress
from ChangeMapJointLib.core.resample import resample, sample_array
from ChangeMapJointLib.registration import quality
from ChangeMapJointLib.registration.deformable.register import Registration, RegistrationOptions, register_deformable
from ChangeMapJointLib.registration.keypoints.match import Matches
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.surface_agreement import surface_agreement
from ChangeMapJointLib.registration.trust import gather_evidence, inverse_consistency, trust_map
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.padding import unseen_mask
from ChangeMapJointLib.scan.pair import ScanPair

MOST_AT_ONCE = 40_000_000  # voxels: warping takes up to 34 bytes for each


@dataclass(frozen=True)
class RegistrationCheck:
    """The result of checking a registration.

    Attributes:
        inverse_mm: inverse consistency error in mm between y and the registration from template to reference,
            float32 ``[z, y, x]`` on the field's grid.
        trust: how reliable y is, float32 [0, 1], on the field's grid.
    """

    inverse_mm: NDArray[np.float32]
    trust: NDArray[np.float32]


@dataclass(frozen=True)
class WarpedTemplate:
    """The template on the reference's grid, and how it differs from the reference.

    Attributes:
        hu: T(y) in HU, int16.
        lungs: M_T(y), the warped lung mask, bool.
        shared: voxels that both scans measured, bool.
        compared: where the two are compared, bool: R's lungs, and T(y)'s beyond them by more than a thin rim.
        difference: CM_seq or CM_diff, float32 [0, 1].
        signed_hu: R - T(y) at equal resolution, int16.
        jacobian: det grad y, float32, on the field's grid.
    """

    hu: NDArray[np.int16]
    lungs: NDArray[np.bool_]
    shared: NDArray[np.bool_]
    compared: NDArray[np.bool_]
    difference: NDArray[np.float32]
    signed_hu: NDArray[np.int16]
    jacobian: NDArray[np.float32]


def assess_rigid(pair: ScanPair, rigid: RigidAlignment, stages: Stages) -> Result:
    """Make the result of method ``rigid``, which has no maps and no findings."""
    with stages.stage("warp"):
        grid = pair.reference.grid
        warped = round_to_hu(warp_rigidly(pair))
        residual = quality.mean_residual(pair.reference.array, warped, pair.reference.mask)
        overlap = quality.dice(pair.reference.mask, warp_lungs_rigidly(pair))
        figures = quality.rigid_figures(residual, overlap, rigid.overlap.reference_in_template)
        deformation = Deformation(DisplacementField.from_affine(rigid.matrix, grid.corners()), grid, pair.template.grid)
    return Result(pair, rigid, deformation, warped, quality.assess_rigid_quality(figures))


def assess_deformable(
    pair: ScanPair,
    rigid: RigidAlignment,
    output: MethodOutput,
    config: RunConfig,
    fallback: DeviceFallback,
    stages: Stages,
) -> Result:
    """Check y, warp the template, make the change maps, and list the findings.

    If the verdict on the registration is ``do not use``, all changes are withheld.
    """
    registration = output.registration
    field = registration.field
    with stages.stage("check") as progress:
        check, warped = _check_and_warp(pair, output, config, fallback, progress)
    with stages.stage("warp"):
        maps = make_maps(warped, output, check.trust)
    with stages.stage("findings"):
        evidence = change_evidence(pair, maps, field, warped.lungs)
        findings = judge_changes(evidence, lowest=METHODS[config.method].candidates, options=config.findings)
        figures = _figures(pair, rigid, registration, output.matches, maps, warped, check)
        verdict = quality.assess_quality(figures)
        if output.given is not None:
            verdict = output.given.on_verdict(verdict)
        unseen = _not_seen(evidence, warped, verdict, config)
        if verdict.verdict == "do not use":
            findings = findings.withhold(verdict.reasons)
    return Result(
        pair,
        rigid,
        Deformation(field, pair.reference.grid, pair.template.grid),
        warped.hu,
        verdict,
        registration,
        maps,
        findings,
        other_changes(findings, min(METHODS[config.method].candidates, config.findings.threshold)),
        output.joint,
        output.given,
        not_seen=unseen,
    )


def check_registration(
    pair: ScanPair, output: MethodOutput, config: RunConfig, fallback: DeviceFallback, progress: Progress
) -> RegistrationCheck:
    """Register from template to reference, and compute the inverse consistency error and the trust map of y."""
    field, keypoints = output.registration.field, output.matches.keypoints
    pair.clear_cache()  # other resolutions from here on
    backward = _register_backward(pair, output.matches, config.backward, fallback, progress)
    pair.clear_cache()
    error = inverse_consistency(field, backward.field)
    evidence = gather_evidence(pair, field, backward.field, keypoints=keypoints, options=config.trust)
    return RegistrationCheck(error, trust_map(evidence, field, pair.template.grid, options=config.trust))


def _check_and_warp(
    pair: ScanPair, output: MethodOutput, config: RunConfig, fallback: DeviceFallback, progress: Progress
) -> tuple[RegistrationCheck, WarpedTemplate]:
    """Check y while the template is warped: the check has parts that only one core can work on.

    A GPU does one after the other, since it may not hold both; so does the CPU with a large scan.
    """
    if fallback.device.type != "cpu" or pair.reference.array.size > MOST_AT_ONCE:
        check = check_registration(pair, output, config, fallback, progress)
        pair.clear_cache()
        return check, warp_template(pair, output, fallback)
    said, stop = (0.0, ""), threading.Event()

    def note(fraction: float, message: str = "") -> None:
        nonlocal said
        if stop.is_set():
            raise Cancelled
        said = fraction, message

    try:
        check, warped = run_both(
            lambda: check_registration(pair, output, config, fallback, note),
            lambda: warp_template(pair, output, fallback),
            lambda: progress(*said),
        )
    finally:
        stop.set()  # where progress() stopped the run, the check ends at its next step
    pair.clear_cache()
    return check, warped


def warp_template(pair: ScanPair, output: MethodOutput, fallback: DeviceFallback) -> WarpedTemplate:
    """Warp T to T(y), and compare R with T(y) at equal resolution."""
    reference, template, field = pair.reference, pair.template, output.registration.field
    warped = round_to_hu(_warp(template.array, pair, field, fallback, outside=NOT_SCANNED_HU))
    lungs_warped = warp(template.mask, template.grid, reference.grid, field) >= 0.5
    compared = lungs_of_both(reference.mask, lungs_warped, reference.grid)
    reference_hu, template_hu = match_voxel_blur(
        reference.array,
        reference.grid,
        template.array,
        template.grid,
        reference_unseen=unseen_mask(reference.volume),
        template_unseen=unseen_mask(template.volume),
    )
    warped_hu = _warp(template_hu, pair, field, fallback, outside=np.nan)
    return WarpedTemplate(
        warped,
        lungs_warped,
        np.isfinite(warped_hu) & np.isfinite(reference_hu),
        compared,
        change_map(reference_hu, warped_hu, compared),
        signed_change(reference_hu, warped_hu),
        field.jacobian_determinant(),
    )


def make_maps(warped: WarpedTemplate, output: MethodOutput, trust: NDArray[np.float32]) -> Maps:
    """Make the method's maps."""
    others = warped.signed_hu, warped.jacobian, trust, warped.compared
    if output.learned is None:
        return Maps(warped.difference, *others)  # CM_seq
    learned = np.where(warped.compared, output.learned, np.float32(0))
    return Maps(warped.difference * learned, *others, warped.difference, learned)  # CM_comb


def warp_rigidly(pair: ScanPair) -> NDArray[np.float32]:
    """Resample T to T(A x), A the rigid matrix: HU, float32 ``[z, y, x]`` on the reference's grid."""
    template = pair.template
    return resample(template.array, template.grid, pair.reference.grid, matrix=pair.rigid, outside=NOT_SCANNED_HU)


def warp_lungs_rigidly(pair: ScanPair) -> NDArray[np.bool_]:
    """Resample T's lung mask to M_T(A x), A the rigid matrix: bool ``[z, y, x]`` on the reference's grid."""
    template = pair.template
    return resample(template.mask, template.grid, pair.reference.grid, matrix=pair.rigid) >= 0.5


def round_to_hu(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round HU values to int16; NaN becomes ``NOT_SCANNED_HU``."""
    result = np.empty(values.shape, dtype=np.int16)
    for z, plane in enumerate(values):  # slice by slice: no temporary of the volume's size
        result[z] = np.rint(np.nan_to_num(plane, nan=NOT_SCANNED_HU))
    return result


def _register_backward(
    pair: ScanPair, matches: Matches, options: RegistrationOptions, fallback: DeviceFallback, progress: Progress
) -> Registration:
    """Register from template to reference, which serves as a check of y."""
    swapped, keypoints = pair.swapped(), matches.keypoints.swapped()
    return fallback.call(
        lambda device: register_deformable(
            swapped, keypoints=keypoints, options=options, device=device, progress=progress
        )
    )


def _warp(
    array: NDArray[np.generic], pair: ScanPair, field: DisplacementField, fallback: DeviceFallback, *, outside: float
) -> NDArray[np.float32]:
    """Warp a volume from the template's grid onto the reference's grid."""
    grids = pair.template.grid, pair.reference.grid
    return fallback.call(lambda device: warp(array, *grids, field, outside=outside, device=str(device)))


def change_evidence(
    pair: ScanPair, maps: Maps, field: DisplacementField, lungs_warped: NDArray[np.bool_]
) -> ChangeEvidence:
    """Collect what the judge looks at."""
    return ChangeEvidence(
        maps.change_map,
        maps.signed_hu,
        pair,
        field,
        maps.lungs,
        lungs_warped,
        trust=lambda points: sample_array(maps.trust, field.grid, points),
        difference=maps.difference,
        learned=maps.learned,
    )


def _not_seen(
    evidence: ChangeEvidence, warped: WarpedTemplate, verdict: quality.Quality, config: RunConfig
) -> tuple[NotSeen, ...]:
    """State what the comparison cannot see; nothing is seen where the registration failed."""
    if verdict.verdict == "do not use":
        return nothing_seen()
    lungs = evidence.pair.reference.mask
    shared = float(warped.shared[lungs].mean()) if lungs.any() else 1.0
    return not_seen(
        evidence,
        shared_percent=100.0 * shared,
        trusted_percent=100.0 if verdict.trusted_percent is None else verdict.trusted_percent,
        nodule=config.findings.measure.nodule,
    )


def _figures(
    pair: ScanPair,
    rigid: RigidAlignment,
    registration: Registration,
    matches: Matches,
    maps: Maps,
    warped: WarpedTemplate,
    check: RegistrationCheck,
) -> quality.Figures:
    """Measure the registration in the lungs that both scans show; elsewhere there is nothing to compare with."""
    reference, grid = pair.reference, registration.field.grid
    lungs = reference.mask & warped.shared
    if not lungs.any():
        lungs = reference.mask
    on_field_grid = lungs if grid.same_as(reference.grid) else resample(lungs, reference.grid, grid) >= 0.5
    inside = on_field_grid if on_field_grid.any() else np.ones(grid.shape, dtype=bool)
    determinant = maps.jacobian[inside]
    surface = surface_agreement(pair, registration.field)
    return quality.Figures(
        residual_hu=quality.mean_residual(reference.array, warped.hu, lungs),
        residual_rigid_hu=quality.mean_residual(reference.array, warp_rigidly(pair), lungs),
        folding_percent=registration.folding_percent,
        jacobian_min=float(determinant.min()),
        jacobian_max=float(determinant.max()),
        sd_log_jacobian=float(np.log(determinant[determinant > 0]).std()),
        lung_dice=quality.dice(lungs, warped.lungs & warped.shared),
        lung_dice_rigid=quality.dice(lungs, warp_lungs_rigidly(pair) & warped.shared),
        inverse_consistency_mm=float(check.inverse_mm[inside].mean()),
        inverse_consistency_p95_mm=float(np.percentile(check.inverse_mm[inside], 95)),
        keypoint_error_mm=keypoint_error(registration.field, matches.keypoints),
        keypoints_found=matches.found,
        keypoints_dropped=matches.dropped,
        overlap=rigid.overlap.reference_in_template,
        trusted_percent=100.0 * float((maps.trust[inside] >= quality.LOW_TRUST).mean()),
        **({} if surface is None else quality.surface_figures(surface)),
    )
