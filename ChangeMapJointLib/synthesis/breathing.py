"""An analytic model of breathing motion, so that the true deformation is known everywhere.

It is a sum of analytic terms, deliberately unlike the control grids that registration solves for: the diaphragm
descends, the chest wall moves forward and sideways, a few random bumps disturb both, and a small rigid motion models a
different position on the table. The motion of a real patient may be added (see
:mod:`~ChangeMapJointLib.synthesis.real_motion`). A frozen dataclass holds all parameters, so that a file reproduces the
same map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import IDENTITY3, FloatArray, Grid, Matrix3, Vector3
from ChangeMapJointLib.synthesis.real_motion import CarriedMotion

SLAB_VOXELS = 400_000  # points evaluated at a time, to bound the memory on large scans
INVERSE_STEPS = 100
INVERSE_TOLERANCE_MM = 1e-5
LARGEST_GRADIENT = 0.9  # below 1 the fixed-point inverse converges
SLOPE_MM = 0.1  # for derivatives by central differences
LONGEST_STEP_MM = 8.0
CHECK_SPACING_MM = 4.0


@dataclass(frozen=True)
class LungFrame:
    """Extent of the lungs in mm, LPS, to which the motion is scaled.

    Attributes:
        apex_z_mm: their highest point.
        base_z_mm: their lowest point.
        front_y_mm: their ventral end (smaller y).
        back_y_mm: their dorsal end (larger y).
        right_x_mm: the right lung's lateral end (smaller x).
        left_x_mm: the left lung's lateral end (larger x).
    """

    apex_z_mm: float
    base_z_mm: float
    front_y_mm: float
    back_y_mm: float
    right_x_mm: float
    left_x_mm: float

    @classmethod
    def of_mask(cls, lungs: NDArray[np.bool_], grid: Grid) -> LungFrame:
        """Measure a lung mask ``[z, y, x]`` on ``grid``.

        Raises:
            InputError: the mask holds fewer than 100 voxels.
        """
        index = np.argwhere(lungs)[:, ::-1]
        if len(index) < 100:
            raise InputError(
                f"found {len(index)} voxels", field="lungs mask", expected="at least 100", remedy="check the mask"
            )
        low, high = np.percentile(grid.to_physical(index), (0.5, 99.5), axis=0)
        return cls(
            apex_z_mm=float(high[2]),
            base_z_mm=float(low[2]),
            front_y_mm=float(low[1]),
            back_y_mm=float(high[1]),
            right_x_mm=float(low[0]),
            left_x_mm=float(high[0]),
        )

    @property
    def low_mm(self) -> FloatArray:
        """The corner with the smallest coordinates."""
        return np.array([self.right_x_mm, self.front_y_mm, self.base_z_mm])

    @property
    def high_mm(self) -> FloatArray:
        """The corner with the largest coordinates."""
        return np.array([self.left_x_mm, self.back_y_mm, self.apex_z_mm])

    @property
    def centre_mm(self) -> FloatArray:
        """The centre of the box around the lungs."""
        return (self.low_mm + self.high_mm) / 2


@dataclass(frozen=True)
class Bump:
    """A Gaussian displacement ``shift_mm * exp(-|p - centre_mm|^2 / (2 radius_mm^2))``."""

    centre_mm: Vector3
    shift_mm: Vector3
    radius_mm: float


@dataclass(frozen=True)
class StiffBall:
    """A ball that breathing moves rigidly, like a solid nodule; the effect fades out beyond the radius.

    ``centre_mm`` is an aligned point z, before breathing moves it.
    """

    centre_mm: Vector3
    radius_mm: float

    @property
    def reach_mm(self) -> float:
        """Distance from the centre at which its influence ends."""
        return 2.5 * self.radius_mm + 8.0


@dataclass(frozen=True)
class BreathingMotion:
    """The map ``y(x) = z + b(z)``, ``z = rotation (x - pivot) + pivot + translation``.

    x is a point of the reference and y(x) the same tissue in the template, both in mm, LPS. The breathing b is defined
    in the template's frame, as are all attributes except ``pivot_mm``.

    Attributes:
        lungs: the template's lungs.
        diaphragm_mm: descent of the diaphragm from the reference to the template.
        ventral_mm: forward motion of the ventral chest wall, also from the reference to the template.
        lateral_mm: outward motion of each lateral chest wall.
        dorsal_gain: relative increase of the descent from the middle to the back.
        left_gain: relative increase of the descent from the middle to the left.
        bumps: random disturbances.
        carried: motion of another patient, added to that of the other parameters.
        stiff: lesions, which move rigidly.
        rotation: 3x3, orthonormal.
        pivot_mm: the centre of the rotation, in the reference.
        translation_mm: of the rigid part.
        scale: factor of b, below 1 where needed to keep det grad y above its minimum.
    """

    lungs: LungFrame
    diaphragm_mm: float = 0.0
    ventral_mm: float = 0.0
    lateral_mm: float = 0.0
    dorsal_gain: float = 0.0
    left_gain: float = 0.0
    bumps: tuple[Bump, ...] = ()
    carried: CarriedMotion | None = None
    stiff: tuple[StiffBall, ...] = ()
    rotation: Matrix3 = field(default=IDENTITY3)
    pivot_mm: Vector3 = (0.0, 0.0, 0.0)
    translation_mm: Vector3 = (0.0, 0.0, 0.0)
    scale: float = 1.0

    # -- the map ----------------------------------------------------------------------
    def __call__(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """Map reference points ``[..., 3]`` (mm, LPS) to the template: y(x)."""
        aligned = self.align(points_mm)
        return aligned + self.breathing(aligned)

    def inverse(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """Map template points ``[..., 3]`` (mm, LPS) to the reference, by iteration.

        Raises:
            RuntimeError: the iteration did not converge, because the motion is too strong.
        """
        target = np.asarray(points_mm, dtype=float)
        aligned = self._fixed_point(target) if self.carried is None else self._newton(target)
        pivot = np.asarray(self.pivot_mm)
        back: FloatArray = (aligned - pivot - self.translation_mm) @ np.asarray(self.rotation) + pivot
        return back

    def _fixed_point(self, target: FloatArray) -> FloatArray:
        aligned = target.copy()
        for _ in range(INVERSE_STEPS):
            update = target - self.breathing(aligned)
            change = np.abs(update - aligned).max(initial=0.0)
            aligned = update
            if change < INVERSE_TOLERANCE_MM:
                return aligned
        raise RuntimeError("BreathingMotion.inverse() did not converge; call limited() first")

    def _newton(self, target: FloatArray) -> FloatArray:
        """Carried motion may be steeper than a fixed point allows."""
        wanted = target.reshape(-1, 3)
        aligned = wanted.copy()
        left = np.arange(len(wanted))
        for _ in range(INVERSE_STEPS):
            at = aligned[left]
            rest = wanted[left] - at - self.breathing(at)
            going = np.abs(rest).max(axis=1) >= INVERSE_TOLERANCE_MM
            left, at, rest = left[going], at[going], rest[going]
            if not len(left):
                return aligned.reshape(target.shape)
            slope = np.stack(
                [(self.breathing(at + h) - self.breathing(at - h)) / (2 * SLOPE_MM) for h in SLOPE_MM * np.eye(3)],
                axis=-1,
            )
            step = np.linalg.solve(np.eye(3) + slope, rest[..., None])[..., 0]
            length = np.linalg.norm(step, axis=1, keepdims=True)
            aligned[left] = at + step * np.minimum(1.0, LONGEST_STEP_MM / np.maximum(length, 1e-9))
        raise RuntimeError("BreathingMotion.inverse() did not converge; call limited() first")

    def align(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """Apply the rigid part to reference points ``[..., 3]``: z(x)."""
        pivot = np.asarray(self.pivot_mm)
        moved = (np.asarray(points_mm, dtype=float) - pivot) @ np.asarray(self.rotation).T
        aligned: FloatArray = moved + pivot + self.translation_mm
        return aligned

    def breathing(self, aligned_mm: NDArray[np.generic]) -> FloatArray:
        """The breathing b(z) in mm at aligned points ``[..., 3]``."""
        points = np.asarray(aligned_mm, dtype=float)
        flat = points.reshape(-1, 3)
        moved = self._free_breathing(flat)
        if self.stiff:
            moved += self._stiffening(flat, moved)
        return (self.scale * moved).reshape(points.shape)

    def field(self, grid: Grid) -> DisplacementField:
        """The displacement u = y(x) - x on ``grid`` in the reference's space."""
        return _sampled(grid, self)

    # -- parts ------------------------------------------------------------------------
    def _free_breathing(self, points: FloatArray) -> FloatArray:
        """The breathing b without stiff balls and scale, at points ``[n, 3]``."""
        lungs = self.lungs
        x, y, z = points.T
        middle = lungs.centre_mm
        half_width = max((lungs.left_x_mm - lungs.right_x_mm) / 2, 1.0)
        depth = max(lungs.back_y_mm - lungs.front_y_mm, 1.0)
        height = max(lungs.apex_z_mm - lungs.base_z_mm, 1.0)
        descent = _smooth_step((lungs.apex_z_mm - z) / (0.9 * height))  # 0.9: the domes move fully
        across, along = (x - middle[0]) / half_width, 2 * (y - middle[1]) / depth
        gain = (1 + self.dorsal_gain * np.tanh(along)) * (1 + self.left_gain * np.tanh(3 * across))
        wall = 0.4 + 0.6 * descent
        moved = np.stack(
            [
                self.lateral_mm * np.tanh(1.5 * across) * wall,
                -self.ventral_mm * _smooth_step((lungs.back_y_mm - y) / (1.2 * depth)) * wall,
                -self.diaphragm_mm * descent * gain,
            ],
            axis=-1,
        )
        for bump in self.bumps:
            squared = ((points - bump.centre_mm) ** 2).sum(-1)
            moved += np.exp(-squared / (2 * bump.radius_mm**2))[:, None] * np.asarray(bump.shift_mm)
        return moved if self.carried is None else moved + self.carried(points)

    def _stiffening(self, points: FloatArray, moved: FloatArray) -> FloatArray:
        """The correction of ``moved`` that makes every stiff ball move like its centre."""
        centres = np.array([ball.centre_mm for ball in self.stiff], dtype=float)
        shifts = self._free_breathing(centres)
        weights = np.zeros((len(self.stiff), len(points)))
        for row, ball in zip(weights, self.stiff, strict=True):
            box = np.flatnonzero((np.abs(points - ball.centre_mm) < ball.reach_mm).all(-1))
            distance = np.linalg.norm(points[box] - ball.centre_mm, axis=-1)
            row[box] = 1 - _smooth_step((distance - ball.radius_mm) / (ball.reach_mm - ball.radius_mm))
        near = np.flatnonzero(weights.any(axis=0))
        weight = weights[:, near]
        # inside a ball (weight 1) its own shift outweighs all others, with a continuous transition
        pull = weight / (1 - weight + 1e-9)
        shift = pull.T @ shifts / pull.sum(axis=0)[:, None]
        hold = 1 - np.prod(1 - weight, axis=0)
        change = np.zeros_like(moved)
        change[near] = hold[:, None] * (shift - moved[near])
        return change

    # -- safety -----------------------------------------------------------------------
    def limited(self, minimum_det: float) -> BreathingMotion:
        """The same motion, scaled down if needed until det grad y is at least ``minimum_det``.

        It is checked every 4 mm in the box around the lungs and 40 mm beyond. Without carried motion the gradient is
        also kept small enough for the inverse's fixed point to converge.
        """
        low, high = self.lungs.low_mm - 40.0, self.lungs.high_mm + 40.0
        nx, ny, nz = (int(n) for n in np.ceil((high - low) / CHECK_SPACING_MM) + 1)
        x, y, z = (float(v) for v in low)
        box = Grid((nz, ny, nx), (CHECK_SPACING_MM,) * 3, (x, y, z))
        full = replace(self, scale=1.0)
        vectors = _sampled(box, lambda points: points + full.breathing(points)).vectors_mm
        # gradient[i, j] = d b_i / d x_j; np.gradient walks the array's axes z, y, x
        gradient = np.stack([np.gradient(vectors, CHECK_SPACING_MM, axis=2 - j) for j in range(3)], axis=-1)
        scale = self.scale
        if self.carried is None:
            steepest = float(np.sqrt((gradient**2).sum((-2, -1)).max()))
            scale = min(scale, LARGEST_GRADIENT / max(steepest, 1e-9))
        while np.linalg.det(np.eye(3) + scale * gradient).min() < minimum_det:
            scale *= 0.95
        return replace(self, scale=scale)

    def stiffened(
        self, centres_mm: NDArray[np.generic], radii_mm: NDArray[np.generic], minimum_det: float
    ) -> BreathingMotion:
        """The motion with stiff balls around template points; the balls' centres keep their positions.

        Args:
            centres_mm: template points ``[n, 3]`` in mm, LPS.
            radii_mm: of the balls, ``[n]``.
            minimum_det: lower limit of det grad y.

        Raises:
            RuntimeError: the motion is too large for these balls.
        """
        motion = replace(self, stiff=())
        for _ in range(10):
            free = replace(motion, stiff=())
            aligned = free.align(free.inverse(centres_mm))
            balls = tuple(StiffBall(as_vector(c), float(r)) for c, r in zip(aligned, radii_mm, strict=True))
            motion = replace(free, stiff=balls).limited(minimum_det)
            if motion.scale == free.scale:  # a smaller scale would have moved the centres
                return motion
        raise RuntimeError("BreathingMotion.stiffened() found no scale; the motion is too large for these lesions")

    # -- files ------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers for a JSON file."""
        values = asdict(replace(self, carried=None))
        carried = {} if self.carried is None else {"carried": self.carried.to_dict()}
        del values["carried"]
        return {**values, **carried}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BreathingMotion:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: an entry is missing, unknown, or has the wrong type.
        """
        try:
            parts = dict(values)
            parts["lungs"] = LungFrame(**parts["lungs"])
            parts["bumps"] = tuple(
                Bump(as_vector(b["centre_mm"]), as_vector(b["shift_mm"]), b["radius_mm"]) for b in parts["bumps"]
            )
            if "carried" in parts:
                parts["carried"] = CarriedMotion.from_dict(parts["carried"])
            parts["stiff"] = tuple(StiffBall(as_vector(b["centre_mm"]), b["radius_mm"]) for b in parts["stiff"])
            parts["rotation"] = tuple(as_vector(row) for row in parts["rotation"])
            parts["pivot_mm"] = as_vector(parts["pivot_mm"])
            parts["translation_mm"] = as_vector(parts["translation_mm"])
            return cls(**parts)
        except (KeyError, TypeError, ValueError) as fault:
            raise InputError(
                f"has an entry that cannot be read ({fault})", field="motion", remedy="write it with to_dict()"
            ) from None


def as_vector(values: Sequence[float] | FloatArray) -> Vector3:
    """Convert to three plain floats, for a frozen dataclass or a JSON file."""
    x, y, z = (float(v) for v in values)
    return x, y, z


def _smooth_step(t: FloatArray) -> FloatArray:
    """Smoothstep: 0 below 0, 1 above 1, ``3 t^2 - 2 t^3`` in between."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _sampled(grid: Grid, mapping: Callable[[FloatArray], FloatArray]) -> DisplacementField:
    """Sample ``mapping(x) - x`` at every voxel of ``grid``."""
    nz, ny, nx = grid.shape
    vectors = np.empty((nz, ny, nx, 3), dtype=np.float32)
    plane = np.stack([*np.meshgrid(np.arange(nx), np.arange(ny)), np.zeros((ny, nx))], axis=-1)  # [y, x, (i, j, k)]
    slices = max(SLAB_VOXELS // (nx * ny), 1)
    for first in range(0, nz, slices):
        index = np.stack([plane + np.array([0, 0, k]) for k in range(first, min(first + slices, nz))])
        points = grid.to_physical(index)
        vectors[first : first + slices] = mapping(points) - points
    return DisplacementField(vectors, grid)
