"""Rigid pre-alignment: turn and shift the template so that its chest lies on the reference's.

Correlation of HU within ``margin_mm`` of the reference's lungs (ribs, spine, vessels, heart; not the table, not the
arms), from many starts, over three resolutions, with SimpleITK's registration framework. Then vessels and ribs are
compared block by block (:mod:`~ChangeMapJointLib.registration.rigid.same_chest`): scans that do not show the same chest
are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import FloatArray, Vector3, apply_affine
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.rigid.optimise import Descent, correlation, euler_transform, refine
from ChangeMapJointLib.registration.rigid.same_chest import Agreement, agreement
from ChangeMapJointLib.registration.rigid.starts import PoseScore, distinct_poses, start_poses
from ChangeMapJointLib.registration.rigid.verdict import (
    GIVE_MORE,
    TOO_LITTLE,
    Overlap,
    RigidOptions,
    doubts,
    unlike_chests,
    unlike_place,
)
from ChangeMapJointLib.registration.rigid.working_scan import BoolArray, WorkingScan, working_scan
from ChangeMapJointLib.scan.scan import Scan

COARSE_MM, MEDIUM_MM, FINE_MM = 9.0, 6.0, 3.0
COARSE = Descent(step_mm=4.0, stop_mm=0.02, iterations=60)
MEDIUM = Descent(step_mm=2.0, stop_mm=0.005, sampling=0.5)
FINE = Descent(step_mm=0.5, stop_mm=1e-4, sampling=0.25)
ODD_LUNG_MM = 15.0  # thicker than what breathing of 20 mm leaves after alignment
CLEAR_SCORE = 0.8  # of the coarse correlation; wrong poses and other patients have up to 0.75
RIVALS = 3  # poses that are compared by their vessels where no score is clear
LEAST_SCORE = 0.1  # the worst true pair measured, with one lung collapsed, has 0.35
FLIPS: tuple[tuple[int, ...], ...] = ((2,), (0,), (1,), (1, 2), (0, 2), (0, 1), (0, 1, 2))  # array axes
DIRECTIONS = ("left-right", "front-back", "head-feet")  # of x, y, z in LPS


@dataclass(frozen=True)
class RigidAlignment:
    """The rigid part of the mapping, ``y(x) = matrix @ x``.

    Attributes:
        matrix: 4x4, physical LPS in mm, float64: reference points to template points.
        rotation_deg: the angle of the turn, >= 0.
        translation_mm: movement (x, y, z) of the middle of the reference's lungs.
        overlap: how much of the lungs both scans show.
        lung_dice: Dice of the aligned lung masks within the common field of view, in [0, 1].
        similarity: agreement of lung vessels, in [-1, 1]: the figure that pairs are accepted by. None when the
            scans show too few.
        wall_similarity: agreement of ribs, spine and chest wall, in [-1, 1]; None as above.
        status: one sentence: what was found and, where needed, what to do.
        warnings: what the user should look at; empty when nothing is odd.
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
    """Find the rigid motion that lays ``template`` on ``reference``.

    Args:
        reference: the current scan and its lungs.
        template: the prior scan and its lungs; any frame, field of view, slice thickness.
        options: see :class:`RigidOptions`.
        progress: told how far it is.

    Returns:
        The alignment. A scan against itself gives exactly the identity. The same input gives the same bytes.

    Raises:
        InputError: a scan without lungs; scans that share too little; scans that do not show the same chest
            (another patient, another body part, mirrored or upside down).
    """
    options = options or RigidOptions()
    progress(0.0, "Preparing")
    fixed = prepare(reference, "reference", options)
    moving = prepare(template, "template", options)
    found = align_scans(fixed, moving, options=options, progress=progress)
    if found is None:
        problem = "no pose was found in which their lungs overlap; choose scans of the same part of the chest"
    elif problem := unlike_chests(found.similarity, found.wall_similarity, options):
        problem += _flip_hint(fixed, moving, options)
    else:
        problem = unlike_place(found.overlap, options)
    if found is None or problem:
        raise InputError(
            f"reference {reference.volume.source} and template {template.volume.source} cannot be aligned: {problem}",
            remedy=GIVE_MORE if problem.startswith(TOO_LITTLE) else "",
        )
    progress(1.0, "Aligned")
    return found


def align_scans(
    whole: WorkingScan, moving: WorkingScan, *, options: RigidOptions, progress: Progress = silent
) -> RigidAlignment | None:
    """The alignment of two prepared scans and its figures, whatever they say of the pair.

    Args:
        whole: the reference at working resolution.
        moving: the template at working resolution.
        options: see :class:`RigidOptions`.
        progress: told how far it is.

    Returns:
        The alignment; None when no start lets the scans overlap.
    """
    fixed = whole.cropped(options.margin_mm + 2 * FINE_MM)
    progress(0.1, "Looking for the pose")
    poses = _poses(fixed, moving, options)
    if not poses:
        return None
    progress(0.4, "Aligning")
    matrix = _polish(fixed, moving, _choose(fixed, moving, poses, options), options)
    progress(0.8, "Checking")
    back: FloatArray = np.asarray(np.linalg.inv(matrix), dtype=float)
    overlap = Overlap(_seen(whole, moving, matrix), _seen(moving, whole, back))
    structures = agreement(fixed, moving, matrix, _centre(fixed), options.margin_mm)
    return _result(whole, moving, matrix, overlap, structures, options)


def prepare(scan: Scan, name: str, options: RigidOptions) -> WorkingScan:
    """The working copy of the scan that errors call ``name``; see :func:`align_rigid`."""
    found_ml = float(scan.mask.sum()) * scan.grid.voxel_volume_ml
    if found_ml < options.least_lung_ml:
        raise InputError(
            f"{found_ml:.0f} ml of lung were found, at least {options.least_lung_ml:.0f} ml are needed to align it",
            field=name,
            value=scan.volume.source,
            remedy=("check that it is a chest CT, or lower ", Argument("config.rigid.least_lung_ml")),
        )
    return working_scan(scan.volume, scan.mask, FINE_MM)


def _poses(fixed: WorkingScan, moving: WorkingScan, options: RigidOptions) -> list[tuple[float, FloatArray]]:
    """Local optima at the coarsest resolution with their scores, the best first; none when no start leads anywhere."""
    reference, template = fixed.coarser(COARSE_MM), moving.coarser(COARSE_MM)
    score = PoseScore.of(reference, template, options.margin_mm)
    region, centre = reference.region(options.margin_mm), _centre(fixed)
    starts = start_poses(reference, template, score, options.starts, options.least_overlap)
    ends = [
        refine(reference, template, region, euler_transform(start, centre), COARSE)
        for start in starts
        if score(start) > 0
    ]
    ends = distinct_poses(sorted(ends, key=score, reverse=True), fixed.lung_points_mm(200), RIVALS)
    return [(score(end), end) for end in ends if score(end) > LEAST_SCORE]


def _choose(
    fixed: WorkingScan, moving: WorkingScan, poses: list[tuple[float, FloatArray]], options: RigidOptions
) -> FloatArray:
    """The best pose; by the vessels where the correlation does not decide."""
    if len(poses) == 1 or poses[0][0] >= CLEAR_SCORE:
        return poses[0][1]
    centre = _centre(fixed)
    found = [agreement(fixed, moving, pose, centre, options.margin_mm).vessels for _, pose in poses]
    best = max(range(len(poses)), key=lambda i: found[i] or 0.0)
    return poses[best][1]


def _polish(fixed: WorkingScan, moving: WorkingScan, matrix: FloatArray, options: RigidOptions) -> FloatArray:
    """The pose to a few hundredths of a mm; the identity where nothing beats it."""
    centre = _centre(fixed)
    for level, (spacing_mm, descent) in enumerate(((MEDIUM_MM, MEDIUM), (MEDIUM_MM, MEDIUM), (FINE_MM, FINE))):
        reference, template = fixed.coarser(spacing_mm), moving.coarser(spacing_mm)
        region = reference.region(options.margin_mm)
        if level > 0:
            region &= ~_lung_in_one(reference, template, matrix)
        matrix = refine(reference, template, region, euler_transform(matrix, centre), descent)
    points = fixed.lung_points_mm()
    moved_mm = np.linalg.norm(apply_affine(matrix, points) - points, axis=1).max()
    if moved_mm < options.identity_mm:
        return np.eye(4)
    if moved_mm < FINE_MM:  # further away the identity is no rival, and may have nothing to compare
        region = fixed.region(options.margin_mm)
        rival, found = (correlation(fixed, moving, region, euler_transform(m, centre)) for m in (np.eye(4), matrix))
        if rival >= found:
            return np.eye(4)
    return matrix


def _lung_in_one(reference: WorkingScan, template: WorkingScan, matrix: FloatArray) -> BoolArray:
    """Where only one of two aligned scans has lung, over more than ``ODD_LUNG_MM``: collapse, effusion, surgery."""
    lungs = resample(template.lungs.astype(np.float32), template.grid, reference.grid, matrix=matrix) > 0.5
    seen = resample(template.valid.astype(np.float32), template.grid, reference.grid, matrix=matrix) > 0.5
    width = [max(1, round(ODD_LUNG_MM / h)) for h in reference.grid.spacing_mm[::-1]]
    odd = ndimage.binary_opening((reference.lungs != lungs) & seen, np.ones(width, dtype=bool))
    found: BoolArray = ndimage.binary_dilation(odd, np.ones((3, 3, 3), dtype=bool))
    return found


def _seen(scan: WorkingScan, other: WorkingScan, matrix: FloatArray) -> float:
    """Fraction of ``scan``'s lungs, moved by ``matrix``, where ``other`` has data."""
    return float(other.has_data_at(apply_affine(matrix, scan.lung_points_mm(20000))).mean())


def _flip_hint(whole: WorkingScan, moving: WorkingScan, options: RigidOptions) -> str:
    """The remedy where the template is the same chest, only flipped; else a general one."""
    fixed = whole.cropped(options.margin_mm + 2 * FINE_MM)
    quick = replace(options, starts=2)
    scores = {axes: max((s for s, _ in _poses(fixed, moving.flipped(axes), quick)), default=0.0) for axes in FLIPS}
    axes = max(FLIPS, key=lambda flip: scores[flip])
    found = align_scans(whole, moving.flipped(axes), options=options)
    if found is None or found.similarity is None or found.similarity < options.warn_below:
        return "; check that both are of one patient"
    columns = np.abs(np.asarray(moving.grid.direction))
    names = " and ".join(DIRECTIONS[int(columns[:, 2 - axis].argmax())] for axis in axes)
    return f"; the template agrees by {found.similarity:.2f} once it is flipped {names}: correct its orientation"


def _result(
    fixed: WorkingScan,
    moving: WorkingScan,
    matrix: FloatArray,
    overlap: Overlap,
    structures: Agreement,
    options: RigidOptions,
) -> RigidAlignment:
    centre = _centre(fixed)
    shift = apply_affine(matrix, centre) - centre
    turn = float(np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude()))
    warnings = doubts(structures.vessels, overlap, turn, options)
    status = f"Aligned: lungs moved by {np.linalg.norm(shift):.1f} mm, turned by {turn:.1f} degrees."
    if structures.vessels is not None:
        status += f" Lung vessels agree by {structures.vessels:.2f} (same chest from {options.refuse_below:.2f})."
    return RigidAlignment(
        matrix=matrix,
        rotation_deg=turn,
        translation_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
        overlap=overlap,
        lung_dice=_lung_dice(fixed, moving, matrix),
        similarity=structures.vessels,
        wall_similarity=structures.wall,
        status=" ".join([status, *warnings]),
        warnings=warnings,
    )


def _lung_dice(fixed: WorkingScan, moving: WorkingScan, matrix: FloatArray) -> float:
    """Dice of the lungs where both scans have data."""
    lungs, seen = (
        resample(values.astype(np.float32), moving.grid, fixed.grid, matrix=matrix) > 0.5
        for values in (moving.lungs, moving.valid)
    )
    common = seen & fixed.valid
    a, b = fixed.lungs & common, lungs & common
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def _centre(scan: WorkingScan) -> FloatArray:
    """Middle of the lungs in physical mm."""
    centre: FloatArray = scan.lung_points_mm().mean(axis=0)
    return centre
