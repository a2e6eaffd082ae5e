"""From two scans to findings, by the sequential or the joint method: Fig. 1 of Kohlbrandt et al. 2024.

Stages meet here and in :mod:`ChangeMapJointLib.comparison.methods`, and nowhere else. Everything is in memory; files
are the business of :mod:`ChangeMapJointLib.comparison.run`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ChangeMapJointLib.change.findings import FindingOptions, Findings, find_changes
from ChangeMapJointLib.change.maps import change_map, lungs_of_both, match_resolution, signed_change
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.device_fallback import Place
from ChangeMapJointLib.comparison.methods import (
    Aligned,
    JointReport,
    Solved,
    keypoint_error,
    read_model,
    solve_joint,
    solve_sequential,
)
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU
from ChangeMapJointLib.core.progress import Progress
from ChangeMapJointLib.core.resample import resample, sample_array
from ChangeMapJointLib.gate.checks import check_pair
from ChangeMapJointLib.gate.rules import ALL_FINE, GateAnswer, GateReason
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.lungs.segment import segment_both
from ChangeMapJointLib.registration import quality
from ChangeMapJointLib.registration.deformable.register import Registration, RegistrationOptions, register
from ChangeMapJointLib.registration.keypoints.match import Matches
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.rigid.any_size import align_any_size
from ChangeMapJointLib.registration.trust import gather_evidence, inverse_consistency, trust_map
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.padding import unseen_of
from ChangeMapJointLib.scan.volume import Volume


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
class PairResult:
    """What a run found out about one pair; ``maps`` and what follows from them are None with method ``rigid``.

    ``candidates`` are measured like ``findings``, from the method's lower threshold on: what a live slider shows below
    the threshold of the findings. Where the registration cannot be used, both are held back: none is listed, and they
    say why. ``gate`` says whether the two may be compared at all, ``notes`` what was done in another way than asked
    for.
    """

    reference: Volume
    template: Volume
    reference_lungs: Lungs
    template_lungs: Lungs
    rigid: RigidAlignment
    field: DisplacementField
    warped_template: NDArray[np.int16]
    quality: quality.Quality
    registration: Registration | None = None
    maps: Maps | None = None
    findings: Findings | None = None
    candidates: Findings | None = None
    joint: JointReport | None = None
    notes: tuple[str, ...] = ()
    gate: GateAnswer = ALL_FINE


def compare(
    reference: Volume,
    template: Volume,
    *,
    config: RunConfig,
    device: torch.device,
    stages: Stages,
    model: Checkpoint | None = None,
) -> PairResult:
    """Register the template (prior) to the reference (current) and list what changed.

    Args:
        reference: R, checked HU.
        template: T, checked HU.
        config: all options.
        device: for the variational part; the CPU takes over where a GPU's memory does not suffice.
        stages: told of progress; keeps times and memory.
        model: of method ``joint``; by default the one that the configuration names.

    Raises:
        InputError: a pair that the gate refuses, no lungs in a scan, a pair that cannot be aligned, or weights that
            cannot be used.
    """
    names = f"reference {reference.source} and template {template.source}"
    check_pair(reference, template).raise_refusal(names)
    if config.method == "joint" and model is None:
        model = read_model(config.joint)
    with stages.stage("lungs") as progress:
        reference_lungs, template_lungs = segment_both(reference, template, options=config.lungs, progress=progress)
    with stages.stage("rigid") as progress:
        both = (reference_lungs, template_lungs)
        rigid = align_any_size(reference, template, both, options=config.rigid, progress=progress)
    aligned = Aligned(reference, template, reference_lungs, template_lungs, rigid)
    with stages.stage("gate"):
        gate = check_pair(
            reference,
            template,
            lungs=both,
            matrix=rigid.matrix,
            remarks=[GateReason(name_of_warning(text), "look", text) for text in rigid.warnings],
        )
        gate.raise_refusal(names)
    if config.method == "rigid":
        return replace(_rigid_only(aligned, stages), gate=gate)
    place = Place(device)
    if model is None:
        solved = solve_sequential(aligned, config, place, stages)
    else:
        solved = solve_joint(aligned, config, model, place, stages)
    return replace(_judged(aligned, solved, config, place, stages), notes=place.notes, gate=gate)


def name_of_warning(text: str) -> str:
    """The gate's rule that a warning of the rigid alignment belongs to."""
    return "turned" if "turned" in text else "coverage" if "covers" in text else "vessels"


def _rigid_only(pair: Aligned, stages: Stages) -> PairResult:
    with stages.stage("warp"):
        grid = pair.reference.grid
        warped = as_hu(pair.warped_rigidly())
        inside = pair.reference_lungs.mask
        residual = quality.mean_residual(pair.reference.array, warped, inside)
        overlap = quality.dice(inside, pair.lungs_rigidly())
        figures = quality.rigid_figures(residual, overlap, pair.rigid.overlap.reference_in_template)
        field = DisplacementField.from_affine(pair.rigid.matrix, grid.corners())
    return PairResult(
        pair.reference,
        pair.template,
        pair.reference_lungs,
        pair.template_lungs,
        pair.rigid,
        field,
        warped,
        quality.judge_rigid(figures),
    )


def _judged(pair: Aligned, solved: Solved, config: RunConfig, place: Place, stages: Stages) -> PairResult:
    r, t = pair.reference, pair.template
    lungs_r, lungs_t = pair.reference_lungs.mask, pair.template_lungs.mask
    registration, matches = solved.registration, solved.matches
    field = registration.field
    with stages.stage("check") as progress:
        back = _backward(pair, matches, config.backward, place, progress)
        error = inverse_consistency(field, back.field)
        evidence = gather_evidence(
            r, t, lungs_r, lungs_t, field, back.field, keypoints=matches.keypoints, options=config.trust
        )
        trust = trust_map(evidence, field, t.grid, options=config.trust)
    with stages.stage("warp"):
        warped = as_hu(_warped(t.array, pair, field, place, outside=NOT_SCANNED_HU))
        lungs_warped = warp(lungs_t, t.grid, r.grid, field) >= 0.5
        lungs = lungs_of_both(lungs_r, lungs_warped, r.grid)
        matched_r, matched_t = match_resolution(
            r.array, r.grid, t.array, t.grid, reference_unseen=unseen_of(r), template_unseen=unseen_of(t)
        )
        moved = _warped(matched_t, pair, field, place, outside=np.nan)
        cm, signed = change_map(matched_r, moved, lungs), signed_change(matched_r, moved)
        shared = np.isfinite(moved) & np.isfinite(matched_r)  # what both scans measured
        del moved, matched_r, matched_t
        learned = None if solved.learned is None else np.where(lungs, solved.learned, np.float32(0))
        shown = cm if learned is None else cm * learned  # CM_comb
        maps = Maps(shown, signed, field.jacobian_determinant(), trust, lungs, None if learned is None else cm, learned)
    with stages.stage("findings"):
        listed = config.findings
        findings = _find(pair, maps, field, listed)
        lowest = min(METHODS[config.method].candidates, listed.threshold)
        weak = replace(listed, threshold=lowest, proven_threshold=None)
        candidates = _find(pair, maps, field, weak)
        judged = quality.judge(_figures(pair, registration, matches, maps, warped, lungs_warped, error, shared))
        if judged.verdict == "do not use":
            findings, candidates = (found.held_back(judged.reasons) for found in (findings, candidates))
    return PairResult(
        r,
        t,
        pair.reference_lungs,
        pair.template_lungs,
        pair.rigid,
        field,
        warped,
        judged,
        registration,
        maps,
        findings,
        candidates,
        solved.joint,
    )


def _backward(
    pair: Aligned, matches: Matches, options: RegistrationOptions, place: Place, progress: Progress
) -> Registration:
    """From template to reference, which serves as a check."""
    rigid = np.linalg.inv(pair.rigid.matrix).astype(np.float64)
    return place.call(
        lambda device: register(
            pair.template,
            pair.reference,
            pair.template_lungs.mask,
            pair.reference_lungs.mask,
            rigid=rigid,
            keypoints=matches.keypoints.swapped(),
            options=options,
            device=device,
            progress=progress,
        )
    )


def _warped(
    array: NDArray[np.generic], pair: Aligned, field: DisplacementField, place: Place, *, outside: float
) -> NDArray[np.float32]:
    """A volume on the template's grid, on the reference's."""
    grids = pair.template.grid, pair.reference.grid
    return place.call(lambda device: warp(array, *grids, field, outside=outside, device=str(device)))


def _find(pair: Aligned, maps: Maps, field: DisplacementField, options: FindingOptions) -> Findings:
    return find_changes(
        maps.change_map,
        maps.signed_hu,
        pair.reference.grid,
        reference=pair.reference,
        template=pair.template,
        field=field,
        reference_lungs=pair.reference_lungs.labels,
        template_lungs=pair.template_lungs.labels,
        trust=lambda points: sample_array(maps.trust, field.grid, points),
        options=options,
    )


def _figures(
    pair: Aligned,
    registration: Registration,
    matches: Matches,
    maps: Maps,
    warped: NDArray[np.int16],
    lungs_warped: NDArray[np.bool_],
    error: NDArray[np.float32],
    shared: NDArray[np.bool_],
) -> quality.Figures:
    """Of the lungs that both scans show: what one of them does not show has no partner, which is no fault."""
    r, grid = pair.reference, registration.field.grid
    ours = pair.reference_lungs.mask & shared
    if not ours.any():
        ours = pair.reference_lungs.mask
    on_field = ours if grid.same_as(r.grid) else resample(ours, r.grid, grid) >= 0.5
    inside = on_field if on_field.any() else np.ones(grid.shape, dtype=bool)
    determinant = maps.jacobian[inside]
    return quality.Figures(
        residual_hu=quality.mean_residual(r.array, warped, ours),
        residual_rigid_hu=quality.mean_residual(r.array, pair.warped_rigidly(), ours),
        folding_percent=registration.folding_percent,
        jacobian_min=float(determinant.min()),
        jacobian_max=float(determinant.max()),
        sd_log_jacobian=float(np.log(determinant[determinant > 0]).std()),
        lung_dice=quality.dice(ours, lungs_warped & shared),
        lung_dice_rigid=quality.dice(ours, pair.lungs_rigidly() & shared),
        inverse_consistency_mm=float(error[inside].mean()),
        inverse_consistency_p95_mm=float(np.percentile(error[inside], 95)),
        keypoint_error_mm=keypoint_error(registration.field, matches.keypoints),
        keypoints_found=matches.found,
        keypoints_dropped=matches.dropped,
        overlap=pair.rigid.overlap.reference_in_template,
        trusted_percent=100.0 * float((maps.trust[inside] >= quality.LOW_TRUST).mean()),
    )


def as_hu(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounded to int16; NaN becomes what was not scanned."""
    result = np.empty(values.shape, dtype=np.int16)
    for z, plane in enumerate(values):  # slice by slice: no temporary of the volume's size
        result[z] = np.rint(np.nan_to_num(plane, nan=NOT_SCANNED_HU))
    return result
