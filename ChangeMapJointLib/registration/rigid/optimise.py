"""One local registration with SimpleITK: correlation, a transform refined from where it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.registration.rigid.working_scan import BoolArray, WorkingScan

SEED = 20240306


@dataclass(frozen=True)
class Descent:
    """How far and how fine one local registration goes.

    Attributes:
        step_mm: first and largest step, as movement of the voxels.
        stop_mm: ends when steps are smaller than this.
        iterations: at most so many steps.
        sampling: fraction of the voxels looked at, in (0, 1].
    """

    step_mm: float
    stop_mm: float
    iterations: int = 100
    sampling: float = 1.0


def euler_transform(matrix: FloatArray, centre_mm: FloatArray) -> sitk.Euler3DTransform:
    """The rigid 4x4 physical ``matrix`` as SimpleITK's transform that turns about ``centre_mm``."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(np.asarray(centre_mm, dtype=float).tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist(), 1e-6)
    transform.SetTranslation(_shift(matrix, centre_mm))
    return transform


def affine_transform(matrix: FloatArray, centre_mm: FloatArray) -> sitk.AffineTransform:
    """The affine 4x4 physical ``matrix`` as SimpleITK's transform with a fixed ``centre_mm``."""
    transform = sitk.AffineTransform(3)
    transform.SetCenter(np.asarray(centre_mm, dtype=float).tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(_shift(matrix, centre_mm))
    return transform


def matrix_of(transform: sitk.Euler3DTransform | sitk.AffineTransform) -> FloatArray:
    """The 4x4 physical matrix of a transform."""
    linear: Any = transform  # SimpleITK's methods have no types
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(linear.GetMatrix(), (3, 3))
    centre = np.asarray(linear.GetCenter())
    matrix[:3, 3] = centre + np.asarray(linear.GetTranslation()) - matrix[:3, :3] @ centre
    return matrix


def refine(
    reference: WorkingScan,
    template: WorkingScan,
    region: BoolArray,
    start: sitk.Euler3DTransform | sitk.AffineTransform,
    descent: Descent,
) -> FloatArray:
    """Improve ``start`` until the correlation inside ``region`` is largest.

    Args:
        reference: fixed scan.
        template: moving scan.
        region: bool on the reference's grid; only there the scans are compared.
        start: where to begin; it is changed.
        descent: step lengths and sampling.

    Returns:
        The 4x4 physical matrix, reference to template. The start's own matrix when the scans
        have nothing in common to compare.
    """
    before = matrix_of(start)
    images = reference.grid.to_image(reference.array), template.grid.to_image(template.array)
    with _one_thread():
        method = _correlation(reference, template, region)
        if descent.sampling < 1.0:
            method.SetMetricSamplingStrategy(method.REGULAR)
            method.SetMetricSamplingPercentage(descent.sampling, SEED)
        method.SetOptimizerAsRegularStepGradientDescent(
            descent.step_mm, descent.stop_mm, descent.iterations, relaxationFactor=0.5, gradientMagnitudeTolerance=1e-6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(start, inPlace=True)
        try:
            method.Execute(*images)
        except RuntimeError:  # all samples left the template
            return before
    return matrix_of(start)


def correlation(
    reference: WorkingScan, template: WorkingScan, region: BoolArray, transform: sitk.Euler3DTransform
) -> float:
    """Squared correlation in [0, 1] of the scans inside ``region``, over every voxel."""
    images = reference.grid.to_image(reference.array), template.grid.to_image(template.array)
    with _one_thread():
        method = _correlation(reference, template, region)
        method.SetInitialTransform(transform, inPlace=True)
        return -float(method.MetricEvaluate(*images))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over another number of parts differ in the last digits, and so would results from machine to machine.

    The metric does not follow the method's own number of threads, so that the process's default is changed meanwhile.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _correlation(reference: WorkingScan, template: WorkingScan, region: BoolArray) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricFixedMask(reference.grid.to_image(region.astype(np.uint8)))
    if not template.valid.all():
        method.SetMetricMovingMask(template.grid.to_image(template.valid.astype(np.uint8)))
    return method


def _shift(matrix: FloatArray, centre_mm: FloatArray) -> list[float]:
    shift: list[float] = (matrix[:3, :3] @ centre_mm + matrix[:3, 3] - centre_mm).tolist()
    return shift
