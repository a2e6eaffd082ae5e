"""Random motions as real patients breathe, as large as relative shifts between follow-up exams are."""

from __future__ import annotations

import numpy as np

from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.shipped_motion import PATIENTS, ShippedMotion

MINIMUM_DET = 0.3
# of the logarithm of relative shifts: over the places of one pair, measured on such pairs
SPREAD_WITHIN = 0.35
UPPER_95 = 1.645  # standard deviations
ROTATION_SHARE = (0.1, 0.5)  # of the squared shift
MM_PER_DEGREE = 1.75  # median relative shift in lungs by a rotation of 1 degree about a random axis
LARGEST_ROTATION_DEG, LARGEST_REAL_MM = 12.0, 28.0
DEPTH_SHARE = 0.4  # standard deviation of the diaphragm's own motion relative to the shift


def draw_real(rng: np.random.Generator, shift_mm: tuple[float, float], translation_mm: float) -> MotionOptions:
    """Draw the motion of a pair that moves as one of those that ship, in either direction.

    The diaphragm's motion is added, because the correspondences lack the overall change of volume.

    Args:
        rng: of all choices.
        shift_mm: median and 95th percentile of the distance by which two places move against each other.
        translation_mm: of the rigid part.
    """
    median, upper = shift_mm
    spread = max((np.log(upper / median) / UPPER_95) ** 2 - SPREAD_WITHIN**2, 0.0) ** 0.5
    size = median * float(np.exp(spread * rng.standard_normal()))
    rotation_deg = min(size * float(rng.uniform(*ROTATION_SHARE)) ** 0.5 / MM_PER_DEGREE, LARGEST_ROTATION_DEG)
    rest = max(size**2 - (MM_PER_DEGREE * rotation_deg) ** 2, 0.0) ** 0.5
    depth = DEPTH_SHARE * min(rest, LARGEST_REAL_MM) * float(rng.standard_normal())
    patient, backward = PATIENTS[int(rng.integers(len(PATIENTS)))], bool(rng.random() < 0.5)
    return MotionOptions(
        diaphragm_mm=depth,
        ventral_mm=depth * float(rng.uniform(0.15, 0.3)),
        lateral_mm=depth * float(rng.uniform(0.05, 0.12)),
        bumps=0,
        rotation_deg=rotation_deg,
        translation_mm=translation_mm,
        minimum_det=MINIMUM_DET,
        real=ShippedMotion(patient, backward),
        real_mm=min(rest, LARGEST_REAL_MM),
    )
