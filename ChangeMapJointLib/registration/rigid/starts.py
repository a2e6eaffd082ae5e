"""Initial poses of the rigid alignment: many candidates, scored by correlation at a coarse resolution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.grid import FloatArray, apply_affine
from ChangeMapJointLib.registration.rigid.working_scan import WorkingScan

TURN_DEG = 14.0  # rotations tried about one axis at a time; the local search covers the rest
TURNED_SHIFTS = 8  # number of the best translations that are tried with a rotation as well
DISTINCT_MM = 15.0  # starts whose lungs lie closer together than this lead to the same optimum
POINTS = 5000  # samples of the score
FULL_OVERLAP = 0.5  # more overlap than this does not raise the score


@dataclass(frozen=True)
class PoseScore:
    """Correlation of the scans under a rigid pose, at sample points.

    Attributes:
        points_mm: points ``[n, 3]`` of the reference in and around its lungs (x, y, z in mm, LPS).
        values: HU of the reference there, ``[n]``.
        template: the template at the same coarse resolution.
    """

    points_mm: FloatArray
    values: FloatArray
    template: WorkingScan

    @classmethod
    def of(cls, reference: WorkingScan, template: WorkingScan, margin_mm: float) -> PoseScore:
        """Sample the voxels of ``reference`` within ``margin_mm`` of its lungs."""
        region = reference.region(margin_mm)
        index = np.argwhere(region)
        index = index[:: max(1, len(index) // POINTS)]
        return cls(reference.grid.to_physical(index[:, ::-1]), reference.array[tuple(index.T)].astype(float), template)

    def __call__(self, pose: FloatArray) -> float:
        """Correlation in [-1, 1] where both scans have data, reduced for small overlaps.

        Args:
            pose: 4x4 matrix from reference to template, in physical space.
        """
        points_mm = apply_affine(pose, self.points_mm)
        inside = self.template.has_data_at(points_mm)
        index = self.template.grid.to_index(points_mm[inside])[:, ::-1]
        overlap = float(inside.mean())
        if inside.sum() < 50:
            return -1.0
        moved = ndimage.map_coordinates(self.template.array, index.T, order=1, mode="nearest")
        a, b = self.values[inside] - self.values[inside].mean(), moved - moved.mean()
        correlation = float(a @ b / np.sqrt(max((a @ a) * (b @ b), 1e-12)))
        return correlation * min(1.0, overlap / FULL_OVERLAP)


def rigid_matrix(centre_mm: FloatArray, turns_deg: FloatArray, shift_mm: FloatArray) -> FloatArray:
    """4x4 matrix that rotates about ``centre_mm`` (Euler angles x, y, z) and then adds ``shift_mm``."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", turns_deg, degrees=True).as_matrix()
    matrix[:3, 3] = centre_mm + shift_mm - matrix[:3, :3] @ centre_mm
    return matrix


def start_poses(
    reference: WorkingScan, template: WorkingScan, score: PoseScore, count: int, least_overlap: float
) -> list[FloatArray]:
    """The ``count`` best-scoring distinct starts; the identity is always the first.

    Args:
        reference: the reference at coarse resolution.
        template: the template at coarse resolution.
        score: scores a pose.
        count: number of poses to return.
        least_overlap: smallest common length of the lungs along z, as a fraction of the shorter lungs.
    """
    centre = reference.lung_points_mm().mean(axis=0)
    turns = [np.eye(3)[axis] * angle for axis in range(3) for angle in (-TURN_DEG, TURN_DEG)]

    def pose(shift_mm: FloatArray, turn_deg: FloatArray) -> FloatArray:
        return rigid_matrix(centre, turn_deg, shift_mm)

    shifts = sorted(
        shifts_mm(reference, template, least_overlap), key=lambda shift: score(pose(shift, np.zeros(3))), reverse=True
    )
    poses = [pose(shift, np.zeros(3)) for shift in shifts]
    poses += [pose(shift, turn) for shift in shifts[:TURNED_SHIFTS] for turn in turns]
    ranked = sorted(poses, key=score, reverse=True)
    return distinct_poses([np.eye(4), *ranked], reference.lung_points_mm(200), count)


def shifts_mm(reference: WorkingScan, template: WorkingScan, least_overlap: float) -> Iterator[FloatArray]:
    """Candidate translations: none, centred boxes, centred lungs, and the lungs shifted along each other in z."""
    a, b = reference.lung_points_mm(), template.lung_points_mm()
    yield np.zeros(3)
    yield np.subtract(template.grid.centre_mm, reference.grid.centre_mm)
    between = b.mean(axis=0) - a.mean(axis=0)
    yield between
    (a0, a1), (b0, b1) = np.percentile(a[:, 2], (1, 99)), np.percentile(b[:, 2], (1, 99))
    common = least_overlap * min(a1 - a0, b1 - b0)
    tops_and_bottoms = np.array([b1 - a1, b0 - a0])
    steps = np.arange(b0 - a1 + common, b1 - a0 - common, min(reference.grid.spacing_mm))
    for z in np.concatenate([tops_and_bottoms, steps]):
        yield np.array([between[0], between[1], z])


def distinct_poses(poses: Iterable[FloatArray], points_mm: FloatArray, count: int) -> list[FloatArray]:
    """The first ``count`` of ``poses`` that move ``points_mm`` to different places."""
    chosen: list[FloatArray] = []
    places: list[FloatArray] = []
    for pose in poses:
        moved = apply_affine(pose, points_mm)
        if all(np.linalg.norm(moved - other, axis=1).mean() > DISTINCT_MM for other in places):
            chosen.append(pose)
            places.append(moved)
        if len(chosen) == count:
            break
    return chosen
