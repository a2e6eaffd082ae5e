"""Trust in the registration, voxel by voxel, without knowing the true deformation.

The registration error in mm is predicted from evidence that needs no truth, and trust is a function of it. The
prediction was calibrated on pairs with known motion, including registrations that were spoilt on purpose
(``Testing/benchmarks/trust_calibration.py``).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.compiled import compiled_available, over_slices
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.resample import index_points, resample, sample
from ChangeMapJointLib.registration.deformable.change_weight import residual_weight
from ChangeMapJointLib.registration.deformable.objective import Keypoints
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid
from ChangeMapJointLib.scan.pair import ScanPair

FloatMap = NDArray[np.float32]

EVIDENCE_MM = 3.0  # voxel size of the evidence, enough for errors of 2 mm and more
CHANGE_HU = 75.0  # voxels with a larger residual changed; they and their neighbours do not count as misfit
FAINT_HU = 30.0  # contrast below this is not informative
NEAR_MM, FAR_MM = 6.0, 10.0  # sigmas of the local misfit, and of the slow variation of density that is subtracted
KEYPOINT_MM, ENOUGH = 10.0, 2.0  # sigma of the local keypoint distance; number of nearby keypoints for full weight


@dataclass(frozen=True)
class Calibration:
    """Coefficients of ``log(error in mm)``; fitted by ``Testing/benchmarks/trust_calibration.py``.

    Attributes:
        constant: the constant term.
        inverse: coefficient of ``log(forward-backward error in mm + 0.3)``.
        misfit: coefficient of ``log(misfit + 0.1)``.
        border: coefficient of ``sqrt(border mismatch)``.
        keypoints: coefficient of ``log(distance of the matched keypoints in mm + 0.5)``.
    """

    constant: float
    inverse: float
    misfit: float
    border: float
    keypoints: float = 0.0


ALONE = Calibration(constant=1.379, inverse=0.493, misfit=2.4, border=3.687)
WITH_KEYPOINTS = Calibration(constant=-0.951, inverse=0.144, misfit=0.571, border=1.464, keypoints=1.442)
KEYPOINTS_COUNT = 0.5  # largest weight of keypoints: y was fitted to them, so they agree even where all are wrong


@dataclass(frozen=True)
class TrustOptions:
    """Options of :func:`trust_map`.

    Attributes:
        half_error_mm: predicted error at which trust is 0.5: so low that 95 % of the errors above 3 mm have less trust,
            however the registration went wrong (``Testing/benchmarks/trust_calibration.py``). For voxels larger than
            3 mm it grows in proportion to their volume, since all evidence is coarser.
        smooth_mm: sigma of the local mean of forward-backward error and border mismatch.
        jacobian_range: values of det grad y at which trust is halved; breathing stays between them.
    """

    half_error_mm: float = 0.72
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
    """Evidence for and against the deformation; maps are float32 ``[z, y, x]`` on :attr:`grid`.

    Attributes:
        grid: grid of the box around the reference's lungs, with voxels of 3 mm or coarser.
        field: y on that grid.
        inverse_mm: forward-backward error.
        misfit: residual relative to the contrast, 0 (equal) to about 1 (nothing in common). Tissue that changed and
            slow variations of density do not count.
        border: local mean of |M_R - M_T(y)|, in [0, 1].
        keypoint_mm: local mean distance between y(k_R) and the matched k_T; 0 where :attr:`keypoint_share` is 0.
        keypoint_share: 1 where enough keypoints are near, 0 where there are none.
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
    error = np.empty(forward.grid.shape, dtype=np.float32)
    if compiled_available():
        from ChangeMapJointLib.core import kernels

        to_index = backward.grid.inverse_affine
        affine, linear = to_index @ forward.grid.affine, np.ascontiguousarray(to_index[:3, :3])
        vectors, other = (np.ascontiguousarray(field.vectors_mm) for field in (forward, backward))
        fixed = (vectors, np.ascontiguousarray(affine[:3]), linear, other, error)
        over_slices(partial(kernels.inverse_error_slices, *fixed), len(error))
        return error
    backward_mm = torch.as_tensor(backward.vectors_mm).movedim(-1, 0)
    for z in range(0, forward.grid.shape[0], 16):
        slab = slice(z, z + 16)
        u = torch.as_tensor(forward.vectors_mm[slab])
        points = index_points(forward.grid, forward.grid.affine, slab) + u
        error[slab] = (u + sample(backward_mm, points, backward.grid).movedim(0, -1)).norm(dim=-1).numpy()
    return error


def inside_template(field: DisplacementField, template: Grid) -> NDArray[np.bool_]:
    """Where y(x) lies inside the template's field of view, bool ``[z, y, x]`` on the field's grid."""
    everywhere = np.ones(template.shape, dtype=np.float32)
    inside: NDArray[np.bool_] = warp(everywhere, template, field.grid, field, outside=0.0) > 0.5
    return inside


def gather_evidence(
    pair: ScanPair,
    field: DisplacementField,
    backward: DisplacementField,
    *,
    keypoints: Keypoints | None = None,
    options: TrustOptions = TrustOptions(),
) -> Evidence:
    """Collect the evidence for and against y.

    Args:
        pair: both scans with lungs.
        field: y, reference to template.
        backward: y_b, template to reference, estimated independently.
        keypoints: the correspondences that the registration used.
        options: scale of the local means.
    """
    reference, template = (
        scan_pyramid(scan, margin_mm=MARGIN_MM, working_mm=EVIDENCE_MM, levels=1, window_hu=CHANGE_WINDOW_HU)[0]
        for scan in (pair.reference, pair.template)
    )
    grid = reference.grid
    coarse = field.on(grid)
    reference_mask = reference.mask.numpy()
    warped_mask = warp(template.mask.numpy(), template.grid, grid, coarse)
    sigma = _sigma(options.smooth_mm, grid)
    error = ndimage.gaussian_filter(inverse_consistency(coarse, backward), sigma, mode="nearest")
    border = ndimage.gaussian_filter(np.abs(reference_mask - warped_mask), sigma, mode="nearest")
    warped = warp(template.image.numpy(), template.grid, grid, coarse, outside=CHANGE_WINDOW_HU[0])
    both = (reference_mask > 0.5) & (warped_mask > 0.5) & inside_template(coarse, pair.template.grid)
    distance, share = _keypoint_distance(coarse, keypoints)
    return Evidence(grid, coarse, error, local_misfit(reference, warped, both), border, distance, share)


def local_misfit(reference: ScanView, warped: FloatMap, both: NDArray[np.bool_]) -> FloatMap:
    """Residual of R and T(y) relative to their contrast, see :class:`Evidence`.

    Args:
        reference: R at the resolution of the evidence.
        warped: T(y), HU ``[z, y, x]``, on R's grid.
        both: bool ``[z, y, x]``: where R and T(y) both have lung.

    Returns:
        float32 ``[z, y, x]``, >= 0; 0 far from ``both``.
    """
    image, grid = reference.image.numpy(), reference.grid
    if not both.any():
        return np.zeros(grid.shape, np.float32)
    residual = image - warped
    inside = torch.as_tensor(both.astype(np.float32))
    unchanged = residual_weight(torch.as_tensor(residual), inside, grid, CHANGE_HU).numpy()
    weight = inside.numpy() * ndimage.minimum_filter(unchanged, size=3)
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
    """The terms that belong to the coefficients of :class:`Calibration`, in their order, float32 ``[5, z, y, x]``."""
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
    """Predict the error of y in mm, float32 ``[z, y, x]`` on the evidence's grid.

    Args:
        evidence: from :func:`gather_evidence`.
        alone: coefficients where no keypoints are near.
        with_keypoints: coefficients where keypoints are near.
    """
    terms, share = evidence_terms(evidence), KEYPOINTS_COUNT * evidence.keypoint_share
    log_errors = [
        sum(np.float32(factor) * term for factor, term in zip(astuple(c), terms, strict=True))
        for c in (alone, with_keypoints)
    ]
    result: FloatMap = np.exp((1 - share) * log_errors[0] + share * log_errors[1]).astype(np.float32)
    return result


def trust_map(
    evidence: Evidence, field: DisplacementField, template: Grid, *, options: TrustOptions = TrustOptions()
) -> FloatMap:
    """Trust in [0, 1] on the field's grid: ``1 / (1 + (e / half_error)^2)`` for the predicted error e.

    Trust is lower where det grad y is outside the range of breathing. It is 0 where y(x) lies outside the template's
    field of view, and outside the box of the evidence, far from the lungs. Changes of lung density and lesions do not
    lower it.

    Args:
        evidence: from :func:`gather_evidence`.
        field: y, reference to template.
        template: the template's grid.
        options: see :class:`TrustOptions`.

    Returns:
        float32 ``[z, y, x]``.
    """
    coarseness = max(float(np.prod(evidence.grid.spacing_mm)) / EVIDENCE_MM**3, 1.0)
    trust = 1 / (1 + (predicted_error(evidence) / (coarseness * options.half_error_mm)) ** 2)
    low, high = np.log(options.jacobian_range)
    determinant = np.log(np.clip(evidence.field.jacobian_determinant(), 1e-6, None))
    trust *= np.exp2(-((determinant / np.where(determinant < 0, low, high)) ** 4))
    result = resample(trust, evidence.grid, field.grid)
    result[~inside_template(field, template)] = 0.0
    return result


def _keypoint_distance(field: DisplacementField, keypoints: Keypoints | None) -> tuple[FloatMap, FloatMap]:
    """Local mean distance between y(k_R) and k_T, and the share of :attr:`Evidence.keypoint_share`."""
    grid = field.grid
    if keypoints is None or not len(keypoints.reference_mm):
        return np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    apart = np.linalg.norm(field.apply(keypoints.reference_mm) - keypoints.template_mm, axis=1)
    voxels = np.rint(grid.to_index(keypoints.reference_mm)[:, ::-1]).astype(np.int64)
    inside = ((voxels >= 0) & (voxels < grid.shape)).all(axis=1)
    index = tuple(voxels[inside].T)
    # the mean of logarithms: one wrong match among many does not lower the trust
    values, weight = np.log(apart[inside] + 0.5), keypoints.weight[inside]
    total, weighted = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    np.add.at(total, index, weight)
    np.add.at(weighted, index, weight * values)
    sigma = _sigma(KEYPOINT_MM, grid)
    peak = np.float32((2 * np.pi) ** 1.5 * np.prod(sigma))  # so that one keypoint counts 1 at its own place
    total, weighted = (
        peak * ndimage.gaussian_filter(v, sigma, mode="constant", truncate=3.0) for v in (total, weighted)
    )
    share = np.clip(total / ENOUGH, 0.0, 1.0)
    mean = np.where(share > 0, np.exp(weighted / np.maximum(total, np.float32(1e-9))) - 0.5, 0.0)
    return mean.astype(np.float32), share.astype(np.float32)


def _sigma(length_mm: float, grid: Grid) -> list[float]:
    """A standard deviation in mm as voxels along (z, y, x)."""
    return [length_mm / h for h in reversed(grid.spacing_mm)]
