"""Random motions of a given size: depth of breathing and position of the patient."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.synthesis.breathing import BreathingMotion, Bump, LungFrame, as_vector
from ChangeMapJointLib.synthesis.real_motion import CarriedMotion, LungBoxes, RealMotion, relative_shift_mm
from ChangeMapJointLib.synthesis.shipped_motion import ShippedMotion

REAL_POINTS = 4000  # by which the size of real motion is measured
HEADROOM = 0.05  # of det grad y, for the other parts of the motion


@dataclass(frozen=True)
class MotionOptions:
    """Size of the motion; its other parameters are random.

    Attributes:
        diaphragm_mm: descent of the diaphragm from the reference to the template; positive values mean that the
            template was taken in deeper inspiration. It fades towards the apex.
        ventral_mm: forward motion of the ventral chest wall, also from the reference to the template.
        lateral_mm: outward motion of each lateral chest wall.
        bumps: number of random Gaussian bumps.
        bump_mm: largest displacement of a bump.
        bump_radius_mm: smallest and largest standard deviation of a bump.
        rotation_deg: angle of the rigid part; its axis is random.
        translation_mm: length of its translation; the direction is random.
        frame_shift_mm: added to the translation (x, y, z), for another table position.
        minimum_det: the breathing is scaled down until det grad y is at least this.
        real: motion of a real patient, added to the rest; None: none.
        real_mm: its size: the median distance by which two points in the lungs move against each other.
    """

    diaphragm_mm: float = 20.0
    ventral_mm: float = 5.0
    lateral_mm: float = 2.0
    bumps: int = 8
    bump_mm: float = 3.0
    bump_radius_mm: tuple[float, float] = (25.0, 60.0)
    rotation_deg: float = 2.0
    translation_mm: float = 5.0
    frame_shift_mm: Vector3 = (0.0, 0.0, 0.0)
    minimum_det: float = 0.4
    real: RealMotion | ShippedMotion | None = None
    real_mm: float = 8.0


def draw_motion(
    lungs: NDArray[np.bool_], grid: Grid, *, seed: int, options: MotionOptions | None = None
) -> BreathingMotion:
    """Draw a random motion for the lungs of a template.

    Args:
        lungs: the template's lung mask ``[z, y, x]`` on ``grid``.
        grid: the template's grid.
        seed: the same seed, mask and options give the same motion.
        options: size of the motion.

    Returns:
        A motion with det grad y >= ``options.minimum_det`` in and around the lungs.

    Raises:
        InputError: the mask is empty or tiny.
    """
    options = options or MotionOptions()
    rng = np.random.default_rng(seed)
    frame = LungFrame.of_mask(lungs, grid)
    bumps = tuple(_draw_bump(rng, frame, options) for _ in range(options.bumps))
    rotation = Rotation.from_rotvec(np.deg2rad(options.rotation_deg) * _direction(rng)).as_matrix()
    translation = options.translation_mm * _direction(rng) + options.frame_shift_mm
    motion = BreathingMotion(
        lungs=frame,
        diaphragm_mm=options.diaphragm_mm,
        ventral_mm=options.ventral_mm,
        lateral_mm=options.lateral_mm,
        dorsal_gain=float(rng.uniform(0.1, 0.3)),
        left_gain=float(rng.uniform(-0.12, 0.12)),
        bumps=bumps,
        carried=_carried(lungs, grid, options),
        rotation=tuple(as_vector(row) for row in rotation),  # type: ignore[arg-type]
        # the pivot is a point of the reference: the lungs' centre before the translation
        pivot_mm=as_vector(frame.centre_mm - translation),
        translation_mm=as_vector(translation),
    )
    return motion.limited(options.minimum_det)


def _carried(lungs: NDArray[np.bool_], grid: Grid, options: MotionOptions) -> CarriedMotion | None:
    """The real motion in these lungs, of the size that ``options`` say."""
    if options.real is None:
        return None
    real = options.real.fitted() if isinstance(options.real, ShippedMotion) else options.real
    points = grid.to_physical(np.argwhere(lungs)[:, ::-1])
    plain = CarriedMotion(real, LungBoxes.of_points(points))
    shifts = plain(np.random.default_rng(0).choice(points, size=REAL_POINTS))
    gain = options.real_mm / max(relative_shift_mm(shifts), 1e-6)
    return replace(plain, motion=real.unfolded(gain, options.minimum_det + HEADROOM), gain=gain)


def _draw_bump(rng: np.random.Generator, frame: LungFrame, options: MotionOptions) -> Bump:
    centre = rng.uniform(frame.low_mm, frame.high_mm)
    shift = _direction(rng) * rng.uniform(0.4, 1.0) * options.bump_mm
    return Bump(as_vector(centre), as_vector(shift), float(rng.uniform(*options.bump_radius_mm)))


def _direction(rng: np.random.Generator) -> FloatArray:
    vector = rng.normal(size=3)
    direction: FloatArray = vector / np.linalg.norm(vector)
    return direction
