"""One local registration with SimpleITK: refine a linear transform by correlation."""

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
THREADS = 2  # on any machine: sums over another number of parts differ in the last digits


@dataclass(frozen=True)
class Descent:
    """Options of one local registration by gradient descent.

    Attributes:
        step_mm: first and largest step, as displacement of the voxels.
        stop_mm: stop when steps become smaller than this.
        iterations: maximum number of steps.
        sampling: fraction of the voxels that are used, in (0, 1].
    """

    step_mm: float
    stop_mm: float
    iterations: int = 100
    sampling: float = 1.0


def euler_transform(matrix: FloatArray, centre_mm: FloatArray) -> sitk.Euler3DTransform:
    """The rigid 4x4 ``matrix`` as a SimpleITK transform that rotates about ``centre_mm``."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(np.asarray(centre_mm, dtype=float).tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist(), 1e-6)
    transform.SetTranslation(_shift(matrix, centre_mm))
    return transform


def affine_transform(matrix: FloatArray, centre_mm: FloatArray) -> sitk.AffineTransform:
    """The affine 4x4 ``matrix`` as a SimpleITK transform with the fixed centre ``centre_mm``."""
    transform = sitk.AffineTransform(3)
    transform.SetCenter(np.asarray(centre_mm, dtype=float).tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(_shift(matrix, centre_mm))
    return transform


def matrix_of(transform: sitk.Euler3DTransform | sitk.AffineTransform) -> FloatArray:
    """The 4x4 matrix of a transform, in physical space."""
    linear: Any = transform  # SimpleITK's methods have no types
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(linear.GetMatrix(), (3, 3))
    centre = np.asarray(linear.GetCenter())
    matrix[:3, 3] = centre + np.asarray(linear.GetTranslation()) - matrix[:3, :3] @ centre
    return matrix


def refine_alignment(
    reference: WorkingScan,
    template: WorkingScan,
    region: BoolArray,
    start: sitk.Euler3DTransform | sitk.AffineTransform,
    descent: Descent,
) -> FloatArray:
    """Refine ``start`` by maximising the correlation inside ``region``.

    Args:
        reference: fixed scan.
        template: moving scan.
        region: bool on the reference's grid; the scans are compared only there.
        start: the initial transform; it is modified.
        descent: step lengths and sampling.

    Returns:
        The 4x4 matrix from reference to template, in physical space; that of ``start`` where the scans do not overlap.
    """
    before = matrix_of(start)
    images = reference.grid.to_image(reference.array), template.grid.to_image(template.array)
    with _fixed_threads():
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
    """Squared correlation of the scans inside ``region``, in [0, 1], over all voxels."""
    images = reference.grid.to_image(reference.array), template.grid.to_image(template.array)
    with _fixed_threads():
        method = _correlation(reference, template, region)
        method.SetInitialTransform(transform, inPlace=True)
        return -float(method.MetricEvaluate(*images))


@contextmanager
def _fixed_threads() -> Iterator[None]:
    """Let SimpleITK use a fixed number of threads, so that results do not depend on the machine.

    Sums over a different number of parts differ in the last digits. The metric ignores the number of threads of the
    registration method, so the default of the process is changed for the time being.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(THREADS)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _correlation(reference: WorkingScan, template: WorkingScan, region: BoolArray) -> sitk.ImageRegistrationMethod:
    """A registration method with the correlation inside ``region``, where both scans have data."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricFixedMask(reference.grid.to_image(region.astype(np.uint8)))
    if not template.valid.all():
        method.SetMetricMovingMask(template.grid.to_image(template.valid.astype(np.uint8)))
    return method


def _shift(matrix: FloatArray, centre_mm: FloatArray) -> list[float]:
    """The displacement of ``centre_mm`` by ``matrix``."""
    shift: list[float] = (matrix[:3, :3] @ centre_mm + matrix[:3, 3] - centre_mm).tolist()
    return shift
