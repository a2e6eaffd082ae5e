"""How far the registration can be believed, voxel by voxel, without knowing the truth.

The error in mm is predicted from evidence that does not depend on the truth, and trust follows from it. The prediction
is calibrated on pairs with known motion, among them registrations that were spoilt on purpose
(``Testing/benchmarks/trust_calibration.py``).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.resample import index_points, resample, sample
from ChangeMapJointLib.registration.deformable.change_weight import residual_weight
from ChangeMapJointLib.registration.deformable.objective import Keypoints
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid
from ChangeMapJointLib.scan.pair import ScanPair

FloatMap = NDArray[np.float32]

EVIDENCE_MM = 3.0  # of the evidence: errors of 2 mm and more are what it is about
CHANGE_HU = 75.0  # what changed is no misfit, nor is the voxel next to it
FAINT_HU = 30.0  # contrast below it says nothing
NEAR_MM, FAR_MM = 6.0, 10.0  # over which the misfit is gathered; density differs slowly
KEYPOINT_MM, ENOUGH = 10.0, 2.0  # over which keypoints are gathered; where so many are near, they are believed


@dataclass(frozen=True)
class Calibration:
    """``log(error in mm)`` as a sum; fitted by ``Testing/benchmarks/trust_calibration.py``.

    Attributes:
        constant: of the sum.
        inverse: of ``log(forward-backward error in mm + 0.3)``.
        misfit: of ``log(misfit + 0.1)``.
        border: of ``sqrt(border mismatch)``.
        keypoints: of ``log(distance of the matched keypoints in mm + 0.5)``.
    """

    constant: float
    inverse: float
    misfit: float
    border: float
    keypoints: float = 0.0


ALONE = Calibration(constant=2.273, inverse=0.291, misfit=3.007, border=2.34)
WITH_KEYPOINTS = Calibration(constant=-0.148, inverse=0.079, misfit=0.979, border=1.196, keypoints=1.061)
KEYPOINTS_COUNT = 0.5  # at most: y was fitted to them, and where they are wrong together they agree with it


@dataclass(frozen=True)
class TrustOptions:
    """Options of :func:`trust_map`.

    Attributes:
        half_error_mm: predicted error at which trust is 0.5, low enough that few errors above 3 mm escape; where voxels
            are larger than 3 mm, by how much larger their volume is: all evidence is as coarse.
        smooth_mm: sigma over which forward-backward error and border mismatch are gathered.
        jacobian_range: det grad y beyond it is not breathing: trust is halved at these values.
    """

    half_error_mm: float = 1.25
    smooth_mm: float = 4.0
    jacobian_range: tuple[float, float] = (0.25, 4.0)

    def __post_init__(self) -> None:
        low, high = self.jacobian_range
        require(
            self,
            half_error_mm=(within(self.half_error_mm, 0.01, 100.0), "0.01 to 100"),
            smooth_mm=(within(self.smooth_mm, 0.0, 50.0), "0 to 50"),
            jacobian_range=(0 < low < 1 < high < 1e6, "a number below 1 and one above it, both positive"),
        )


@dataclass(frozen=True)
class Evidence:
    """What speaks for or against the deformation, float32 ``[z, y, x]`` on :attr:`grid`.

    Attributes:
        grid: over the box round the reference's lungs, voxels of 3 mm or coarser.
        field: y on that grid.
        inverse_mm: forward-backward error.
        misfit: residual as a part of the contrast, 0 (equal) to about 1 (nothing in common). What changed does not
            count, nor does a slow change of density.
        border: local mean of |M_R - M_T(y)|, in [0, 1].
        keypoint_mm: distance between y(k_R) and the matched k_T round the voxel; 0 where :attr:`keypoint_share` is 0.
        keypoint_share: how far there are keypoints near, in [0, 1].
    """

    grid: Grid
    field: DisplacementField
    inverse_mm: FloatMap
    misfit: FloatMap
    border: FloatMap
    keypoint_mm: FloatMap
    keypoint_share: FloatMap


def inverse_consistency(forward: DisplacementField, backward: DisplacementField) -> FloatMap:
    """Forward-backward error ``|y_b(y_f(x)) - x|`` in mm on the forward field's grid.

    Args:
        forward: y_f, reference to template.
        backward: y_b, template to reference, estimated independently.

    Returns:
        float32 ``[z, y, x]``; 0 where both agree.
    """
    back = torch.as_tensor(backward.vectors_mm).movedim(-1, 0)
    error = np.empty(forward.grid.shape, dtype=np.float32)
    for z in range(0, forward.grid.shape[0], 16):
        slab = slice(z, z + 16)
        u = torch.as_tensor(forward.vectors_mm[slab])
        points = index_points(forward.grid, forward.grid.affine, slab) + u
        error[slab] = (u + sample(back, points, backward.grid).movedim(0, -1)).norm(dim=-1).numpy()
    return error


def inside_template(field: DisplacementField, template: Grid) -> NDArray[np.bool_]:
    """Where y(x) lies inside the template's field of view, bool on the field's grid."""
    inside = np.empty(field.grid.shape, dtype=bool)
    for z in range(0, field.grid.shape[0], 16):
        slab = slice(z, z + 16)
        points = index_points(field.grid, field.grid.affine, slab).double() + torch.as_tensor(field.vectors_mm[slab])
        inside[slab] = template.contains(points.numpy())
    return inside


def gather_evidence(
    pair: ScanPair,
    field: DisplacementField,
    backward: DisplacementField,
    *,
    keypoints: Keypoints | None = None,
    options: TrustOptions = TrustOptions(),
) -> Evidence:
    """The evidence for and against y.

    Args:
        pair: both scans with lungs.
        field: y, reference to template.
        backward: y_b, template to reference, estimated independently.
        keypoints: correspondences; y was fitted to them among other things.
        options: how far evidence is gathered.
    """
    r, t = (
        scan_pyramid(scan, margin_mm=MARGIN_MM, working_mm=EVIDENCE_MM, levels=1, window_hu=CHANGE_WINDOW_HU)[0]
        for scan in (pair.reference, pair.template)
    )
    grid = r.grid
    coarse = DisplacementField(_vectors(field, grid), grid)
    ours, theirs = r.mask.numpy(), warp(t.mask.numpy(), t.grid, grid, coarse)
    sigma = _sigma(options.smooth_mm, grid)
    error = ndimage.gaussian_filter(inverse_consistency(coarse, backward), sigma, mode="nearest")
    border = ndimage.gaussian_filter(np.abs(ours - theirs), sigma, mode="nearest")
    image = warp(t.image.numpy(), t.grid, grid, coarse, outside=CHANGE_WINDOW_HU[0])
    both = (ours > 0.5) & (theirs > 0.5) & inside_template(coarse, pair.template.grid)
    distance, share = _keypoint_distance(coarse, keypoints)
    return Evidence(grid, coarse, error, local_misfit(r, image, both), border, distance, share)


def local_misfit(reference: ScanView, warped: FloatMap, where: NDArray[np.bool_]) -> FloatMap:
    """Residual of R and T(y) as a part of their contrast, see :class:`Evidence`.

    Args:
        reference: R at the resolution of the evidence.
        warped: T(y), HU ``[z, y, x]``, on R's grid.
        where: both lungs.

    Returns:
        float32 ``[z, y, x]``, >= 0; 0 far from ``where``.
    """
    image, grid = reference.image.numpy(), reference.grid
    if not where.any():
        return np.zeros(grid.shape, np.float32)
    residual = image - warped
    both = torch.as_tensor(where.astype(np.float32))
    same = residual_weight(torch.as_tensor(residual), both, grid, CHANGE_HU).numpy()
    weight = both.numpy() * ndimage.minimum_filter(same, size=3)
    near, far = _sigma(NEAR_MM, grid), _sigma(FAR_MM, grid)

    def mean(values: FloatMap, sigma: list[float]) -> FloatMap:
        smooth: FloatMap = ndimage.gaussian_filter(values * weight, sigma, mode="constant", truncate=3.0)
        share = ndimage.gaussian_filter(weight, sigma, mode="constant", truncate=3.0)
        average: FloatMap = smooth / np.maximum(share, np.float32(0.02))
        return average

    def energy(values: FloatMap) -> FloatMap:
        return mean((values - mean(values, far)) ** 2, near)

    return np.sqrt(energy(residual) / (energy(image) + energy(warped) + np.float32(FAINT_HU**2)))


def evidence_terms(evidence: Evidence) -> FloatMap:
    """What the coefficients of :class:`Calibration` are multiplied with, in their order, float32 ``[5, ...]``."""
    return np.stack(
        [
            np.ones_like(evidence.inverse_mm),
            np.log(evidence.inverse_mm + 0.3),
            np.log(evidence.misfit + 0.1),
            np.sqrt(evidence.border),
            np.log(evidence.keypoint_mm + 0.5),
        ]
    ).astype(np.float32)


def predicted_error(
    evidence: Evidence, *, alone: Calibration = ALONE, with_keypoints: Calibration = WITH_KEYPOINTS
) -> FloatMap:
    """The error of y in mm that the evidence lets expect, float32 on the evidence's grid.

    Args:
        evidence: from :func:`gather_evidence`.
        alone: coefficients where there are no keypoints near.
        with_keypoints: where there are.
    """
    terms, share = evidence_terms(evidence), KEYPOINTS_COUNT * evidence.keypoint_share
    expected = [
        sum(np.float32(factor) * term for factor, term in zip(astuple(c), terms, strict=True))
        for c in (alone, with_keypoints)
    ]
    result: FloatMap = np.exp((1 - share) * expected[0] + share * expected[1]).astype(np.float32)
    return result


def trust_map(
    evidence: Evidence, field: DisplacementField, template: Grid, *, options: TrustOptions = TrustOptions()
) -> FloatMap:
    """Trust in [0, 1] on the field's grid: ``1 / (1 + (e / half_error)^2)`` with e the predicted error.

    It is lowered where det grad y is beyond what breathing does, and 0 where y(x) lies outside the template's field of
    view and beyond the box of the evidence, far from the lungs. A change of lung density or a lesion does not lower it.
    """
    coarser = max(float(np.prod(evidence.grid.spacing_mm)) / EVIDENCE_MM**3, 1.0)
    trust = 1 / (1 + (predicted_error(evidence) / (coarser * options.half_error_mm)) ** 2)
    low, high = np.log(options.jacobian_range)
    determinant = np.log(np.clip(evidence.field.jacobian_determinant(), 1e-6, None))
    trust *= np.exp2(-((determinant / np.where(determinant < 0, low, high)) ** 4))
    result = resample(trust, evidence.grid, field.grid)
    result[~inside_template(field, template)] = 0.0
    return result


def _keypoint_distance(field: DisplacementField, keypoints: Keypoints | None) -> tuple[FloatMap, FloatMap]:
    """Distance between y(k_R) and k_T, the mean round every voxel, and how far there are keypoints near."""
    grid = field.grid
    if keypoints is None or not len(keypoints.reference_mm):
        return np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    apart = np.linalg.norm(field.apply(keypoints.reference_mm) - keypoints.template_mm, axis=1)
    places = np.rint(grid.to_index(keypoints.reference_mm)[:, ::-1]).astype(np.int64)
    inside = ((places >= 0) & (places < grid.shape)).all(axis=1)
    at = tuple(places[inside].T)
    # the logarithm: one wrong match among many does not make a place doubtful
    values, weight = np.log(apart[inside] + 0.5), keypoints.weight[inside]
    total, gathered = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    np.add.at(total, at, weight)
    np.add.at(gathered, at, weight * values)
    sigma = _sigma(KEYPOINT_MM, grid)
    peak = np.float32((2 * np.pi) ** 1.5 * np.prod(sigma))  # one keypoint counts 1 where it is
    total, gathered = (
        peak * ndimage.gaussian_filter(v, sigma, mode="constant", truncate=3.0) for v in (total, gathered)
    )
    share = np.clip(total / ENOUGH, 0.0, 1.0)
    mean = np.where(share > 0, np.exp(gathered / np.maximum(total, np.float32(1e-9))) - 0.5, 0.0)
    return mean.astype(np.float32), share.astype(np.float32)


def _vectors(field: DisplacementField, grid: Grid) -> FloatMap:
    """U of ``field`` at the voxels of another grid."""
    vectors = torch.as_tensor(field.vectors_mm).movedim(-1, 0)
    points: FloatArray = field.grid.inverse_affine @ grid.affine
    found = sample(vectors, index_points(grid, points), Grid(field.grid.shape))
    return found.movedim(0, -1).contiguous().numpy()


def _sigma(length_mm: float, grid: Grid) -> list[float]:
    return [length_mm / h for h in reversed(grid.spacing_mm)]
