"""Rigid pre-alignment: rotate and shift the template so that its chest lies on the reference's.

It maximises the correlation of HU within ``margin_mm`` of the reference's lungs (ribs, spine, vessels and heart, but
neither table nor arms), from many starts and at three resolutions, with SimpleITK's registration framework. Then
vessels and ribs are compared block by block (:mod:`~ChangeMapJointLib.registration.rigid.same_chest`), and pairs that
do not show the same chest are refused. Where the lungs have moved against the ribs, the alignment is that of their
vessels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import FloatArray, Vector3, apply_affine
from ChangeMapJointLib.core.parallel import run_parallel
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.rigid.optimise import Descent, correlation, euler_transform, refine_alignment
from ChangeMapJointLib.registration.rigid.same_chest import ChestAgreement, compare_structures
from ChangeMapJointLib.registration.rigid.starts import PoseScore, distinct_poses, start_poses
from ChangeMapJointLib.registration.rigid.verdict import (
    TOO_LITTLE,
    TOO_LITTLE_REMEDY,
    Overlap,
    RigidOptions,
    alignment_warnings,
    chest_problem,
    overlap_problem,
)
from ChangeMapJointLib.registration.rigid.working_scan import BoolArray, WorkingScan, working_scan
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import both_scans

COARSE_MM, MEDIUM_MM, FINE_MM = 9.0, 6.0, 3.0
COARSE = Descent(step_mm=4.0, stop_mm=0.02, iterations=60)
MEDIUM = Descent(step_mm=2.0, stop_mm=0.005, sampling=0.5)
FINE = Descent(step_mm=0.5, stop_mm=1e-4, sampling=0.25)
ODD_LUNG_MM = 15.0  # thicker than the mismatch that 20 mm of breathing leaves after alignment
CLEAR_SCORE = 0.8  # of the coarse correlation; wrong poses and other patients reach up to 0.75
RIVALS = 3  # poses that are compared by their vessels where no score is clear
LEAST_SCORE = 0.1  # the worst true pair measured, with one lung collapsed, reaches 0.35
FEWEST_SURE = 15  # blocks of lung: fewer do not settle a rotation
ROBUST_ROUNDS = 10
LEAST_GAIN_MM = 0.3  # mean distance of vessels by which their own fit must be better
FLIPS: tuple[tuple[int, ...], ...] = ((2,), (0,), (1,), (1, 2), (0, 2), (0, 1), (0, 1, 2))  # array axes
DIRECTIONS = ("left-right", "front-back", "head-feet")  # of x, y, z in LPS


@dataclass(frozen=True)
class RigidAlignment:
    """The rigid part of the mapping, ``y(x) = matrix @ x``.

    Attributes:
        matrix: 4x4, float64: points of the reference to points of the template (x, y, z in mm, LPS).
        rotation_deg: rotation angle, >= 0.
        translation_mm: displacement (x, y, z) of the centre of the reference's lungs.
        overlap: fractions of the lungs that both scans show.
        lung_dice: Dice overlap of the aligned lung masks within the common field of view, in [0, 1].
        similarity: agreement of lung vessels, in [-1, 1], by which pairs are accepted. None where the scans show too
            few.
        wall_similarity: agreement of ribs, spine and chest wall, in [-1, 1]; None as above.
        status: the result in words and, where needed, what to do.
        warnings: what the user should check, one sentence each; empty when nothing is unusual.
    """

    matrix: FloatArray
    rotation_deg: float
    translation_mm: Vector3
    overlap: Overlap
    lung_dice: float
    similarity: float | None
    wall_similarity: float | None
    status: str
    warnings: tuple[str, ...] = ()


def align_rigid(
    reference: Scan,
    template: Scan,
    *,
    options: RigidOptions | None = None,
    progress: Progress = silent,
) -> RigidAlignment:
    """Find the rigid motion that aligns ``template`` with ``reference``.

    Args:
        reference: the current scan and its lungs.
        template: the prior scan and its lungs; any orientation, field of view and slice thickness.
        options: see :class:`RigidOptions`.
        progress: called with the fraction done and a message.

    Returns:
        The alignment. A scan and itself give exactly the identity. The same input always gives the same bytes.

    Raises:
        InputError: a scan has too little lung, or the scans share too little of the lungs or do not show the same
            chest (another patient, another body part, mirrored or upside down).
    """
    options = options or RigidOptions()
    progress(0.0, "Preparing")
    fixed, moving = run_parallel(
        [partial(prepare, reference, "reference", options), partial(prepare, template, "template", options)],
        lambda: None,
    )
    alignment = align_scans(fixed, moving, options=options, progress=progress)
    if alignment is None:
        problem = "no pose was found in which their lungs overlap; choose scans of the same part of the chest"
    elif problem := chest_problem(alignment.similarity, alignment.wall_similarity, options):
        problem += _flip_hint(fixed, moving, options)
    else:
        problem = overlap_problem(alignment.overlap, options)
    if alignment is None or problem:
        raise InputError(
            f"{both_scans(reference.volume.source, template.volume.source)} cannot be aligned: {problem}",
            remedy=TOO_LITTLE_REMEDY if problem.startswith(TOO_LITTLE) else "",
        )
    progress(1.0, "Aligned")
    return alignment


def align_scans(
    whole: WorkingScan, moving: WorkingScan, *, options: RigidOptions, progress: Progress = silent
) -> RigidAlignment | None:
    """Align two prepared scans and measure the alignment, without refusing any pair.

    Args:
        whole: the reference at working resolution.
        moving: the template at working resolution.
        options: see :class:`RigidOptions`.
        progress: called with the fraction done and a message.

    Returns:
        The alignment; None where no start makes the scans overlap.
    """
    fixed = whole.cropped(options.margin_mm + 2 * FINE_MM)
    progress(0.1, "Searching for the pose")
    poses = _poses(fixed, moving, options)
    if not poses:
        return None
    progress(0.4, "Aligning")
    rigid = _refine_pose(fixed, moving, _choose_pose(fixed, moving, poses, options), options)
    progress(0.8, "Checking")
    agreement = compare_structures(fixed, moving, rigid, _centre(fixed), options.margin_mm)
    rigid = _fit_to_vessels(rigid, agreement)
    inverse: FloatArray = np.asarray(np.linalg.inv(rigid), dtype=float)
    overlap = Overlap(_overlap(whole, moving, rigid), _overlap(moving, whole, inverse))
    return _result(whole, moving, rigid, overlap, agreement, options)


def prepare(scan: Scan, name: str, options: RigidOptions) -> WorkingScan:
    """The scan at working resolution.

    Args:
        scan: the scan and its lungs.
        name: the argument that an error names.
        options: see :class:`RigidOptions`.

    Raises:
        InputError: the scan has too little lung.
    """
    lung_ml = float(scan.mask.sum()) * scan.grid.voxel_volume_ml
    if lung_ml < options.least_lung_ml:
        raise InputError(
            f"found {lung_ml:.0f} ml of lung",
            field=name,
            value=scan.volume.source,
            expected=f"at least {options.least_lung_ml:.0f} ml to align it",
            remedy=("check that it is a chest CT, or lower ", Argument("config.rigid.least_lung_ml")),
        )
    return working_scan(scan.volume, scan.mask, FINE_MM)


def _poses(fixed: WorkingScan, moving: WorkingScan, options: RigidOptions) -> list[tuple[float, FloatArray]]:
    """Scores and poses of the local optima at the coarsest resolution, the best first; empty where none is usable."""
    reference, template = fixed.coarser(COARSE_MM), moving.coarser(COARSE_MM)
    score = PoseScore.of(reference, template, options.margin_mm)
    region, centre = reference.region(options.margin_mm), _centre(fixed)
    starts = start_poses(reference, template, score, options.starts, options.least_overlap)
    optima = [
        refine_alignment(reference, template, region, euler_transform(start, centre), COARSE)
        for start in starts
        if score(start) > 0
    ]
    optima = distinct_poses(sorted(optima, key=score, reverse=True), fixed.lung_points_mm(200), RIVALS)
    return [(score(pose), pose) for pose in optima if score(pose) > LEAST_SCORE]


def _choose_pose(
    fixed: WorkingScan, moving: WorkingScan, poses: list[tuple[float, FloatArray]], options: RigidOptions
) -> FloatArray:
    """The best pose: by correlation where it is clear, otherwise by the agreement of vessels."""
    if len(poses) == 1 or poses[0][0] >= CLEAR_SCORE:
        return poses[0][1]
    centre = _centre(fixed)
    vessels = [compare_structures(fixed, moving, pose, centre, options.margin_mm).vessels for _, pose in poses]
    best = max(range(len(poses)), key=lambda i: vessels[i] or 0.0)
    return poses[best][1]


def _refine_pose(fixed: WorkingScan, moving: WorkingScan, rigid: FloatArray, options: RigidOptions) -> FloatArray:
    """Refine the pose to a few hundredths of a mm; the identity where it is as good."""
    centre = _centre(fixed)
    for level, (spacing_mm, descent) in enumerate(((MEDIUM_MM, MEDIUM), (MEDIUM_MM, MEDIUM), (FINE_MM, FINE))):
        reference, template = fixed.coarser(spacing_mm), moving.coarser(spacing_mm)
        region = reference.region(options.margin_mm)
        if level > 0:
            region &= ~_lung_in_one(reference, template, rigid)
        rigid = refine_alignment(reference, template, region, euler_transform(rigid, centre), descent)
    points = fixed.lung_points_mm()
    moved_mm = np.linalg.norm(apply_affine(rigid, points) - points, axis=1).max()
    if moved_mm < options.identity_mm:
        return np.eye(4)
    if moved_mm < FINE_MM:  # beyond that, the identity cannot be better, and the scans may not overlap under it
        region = fixed.region(options.margin_mm)
        at_identity, at_pose = (
            correlation(fixed, moving, region, euler_transform(pose, centre)) for pose in (np.eye(4), rigid)
        )
        if at_identity >= at_pose:
            return np.eye(4)
    return rigid


def _fit_to_vessels(rigid: FloatArray, agreement: ChestAgreement) -> FloatArray:
    """The rigid motion that fits the lungs' vessels best; ``rigid`` where it fits them nearly as well.

    Ribs and spine weigh most in the correlation of a whole chest, but lungs move against them with every breath. Where
    they do not, the correlation is more accurate than the places of blocks.
    """
    here, there = agreement.places_mm, agreement.matched_mm
    if len(here) < FEWEST_SURE:
        return rigid
    fitted, kept = rigid, np.ones(len(here), dtype=bool)
    for _ in range(ROBUST_ROUNDS):
        fitted = _least_squares_motion(here[kept], there[kept])
        apart = np.linalg.norm(apply_affine(fitted, here) - there, axis=1)
        kept = apart <= 2.5 * np.median(apart)
    before, after = (np.linalg.norm(apply_affine(pose, here) - there, axis=1)[kept].mean() for pose in (rigid, fitted))
    return fitted if before - after > LEAST_GAIN_MM else rigid


def _least_squares_motion(here: FloatArray, there: FloatArray) -> FloatArray:
    """The rigid 4x4 matrix that takes points ``[n, 3]`` nearest to others."""
    centre, target = here.mean(axis=0), there.mean(axis=0)
    rotation, _ = Rotation.align_vectors(there - target, here - centre)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = target - matrix[:3, :3] @ centre
    return matrix


def _lung_in_one(reference: WorkingScan, template: WorkingScan, rigid: FloatArray) -> BoolArray:
    """Where only one of the aligned scans has lung, over more than ``ODD_LUNG_MM``: collapse, effusion or surgery."""
    lungs = resample(template.lungs.astype(np.float32), template.grid, reference.grid, matrix=rigid) > 0.5
    seen = resample(template.valid.astype(np.float32), template.grid, reference.grid, matrix=rigid) > 0.5
    width = [max(1, round(ODD_LUNG_MM / h)) for h in reference.grid.spacing_mm[::-1]]
    odd = ndimage.binary_opening((reference.lungs != lungs) & seen, np.ones(width, dtype=bool))
    widened: BoolArray = ndimage.binary_dilation(odd, np.ones((3, 3, 3), dtype=bool))
    return widened


def _overlap(scan: WorkingScan, other: WorkingScan, matrix: FloatArray) -> float:
    """Fraction of ``scan``'s lungs, moved by ``matrix``, where ``other`` has data."""
    return float(other.has_data_at(apply_affine(matrix, scan.lung_points_mm(20000))).mean())


def _flip_hint(whole: WorkingScan, moving: WorkingScan, options: RigidOptions) -> str:
    """What to do about scans of different chests: correct a flipped template, or check the patient."""
    fixed = whole.cropped(options.margin_mm + 2 * FINE_MM)
    quick = replace(options, starts=2)
    scores = {axes: max((s for s, _ in _poses(fixed, moving.flipped(axes), quick)), default=0.0) for axes in FLIPS}
    axes = max(FLIPS, key=lambda flip: scores[flip])
    alignment = align_scans(whole, moving.flipped(axes), options=options)
    if alignment is None or alignment.similarity is None or alignment.similarity < options.warn_below:
        return "; check that both are of the same patient"
    columns = np.abs(np.asarray(moving.grid.direction))
    names = " and ".join(DIRECTIONS[int(columns[:, 2 - axis].argmax())] for axis in axes)
    return f"; flipped {names}, the prior scan has an agreement of {alignment.similarity:.2f}: correct its orientation"


def _result(
    fixed: WorkingScan,
    moving: WorkingScan,
    rigid: FloatArray,
    overlap: Overlap,
    agreement: ChestAgreement,
    options: RigidOptions,
) -> RigidAlignment:
    centre = _centre(fixed)
    shift = apply_affine(rigid, centre) - centre
    turn = float(np.degrees(Rotation.from_matrix(rigid[:3, :3]).magnitude()))
    warnings = alignment_warnings(agreement.vessels, overlap, turn, options)
    status = f"Aligned: the lungs moved by {np.linalg.norm(shift):.1f} mm and turned by {turn:.1f} degrees."
    if agreement.vessels is not None:
        status += f" The agreement of lung vessels is {agreement.vessels:.2f} (required: {options.refuse_below:.2f})."
    return RigidAlignment(
        matrix=rigid,
        rotation_deg=turn,
        translation_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
        overlap=overlap,
        lung_dice=_lung_dice(fixed, moving, rigid),
        similarity=agreement.vessels,
        wall_similarity=agreement.wall,
        status=" ".join([status, *warnings]),
        warnings=warnings,
    )


def _lung_dice(fixed: WorkingScan, moving: WorkingScan, rigid: FloatArray) -> float:
    """Dice overlap of the lungs where both scans have data."""
    lungs, seen = (
        resample(values.astype(np.float32), moving.grid, fixed.grid, matrix=rigid) > 0.5
        for values in (moving.lungs, moving.valid)
    )
    common = seen & fixed.valid
    a, b = fixed.lungs & common, lungs & common
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def _centre(scan: WorkingScan) -> FloatArray:
    """Centre of the lungs, physical (x, y, z) in mm."""
    centre: FloatArray = scan.lung_points_mm().mean(axis=0)
    return centre
