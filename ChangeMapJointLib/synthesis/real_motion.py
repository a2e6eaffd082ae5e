"""Real breathing motion: fitted to correspondences of one patient's two scans, carried to the lungs of another.

Correspondences are scattered points. A thin-plate spline through them, sampled as a cubic B-spline, gives a motion that
is smooth between them and levels off beyond the lungs. Each lung is carried by its own bounding box, so that apex, base
and walls meet those of the other patient; between the lungs the two maps blend. Displacements are scaled like the
boxes: y = A^-1(S(A(z))) for the patient's motion S and the map A, which keeps det grad where A is affine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, spline_filter
from scipy.spatial import cKDTree

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Vector3

KNOTS_MM = 12.0
KNOTS_BEYOND_MM = 48.0  # of the lungs' boxes
ANCHORS_MM, ANCHORS_FROM_MM = 45.0, 35.0  # that far from the points the motion levels off
SMOOTHING = 30.0  # of the thin-plate spline: 0 predicts left-out points 4 % better, but folds more easily
FIT_MIN_DET = 0.1
BLEND_MM = 25.0  # on either side of the middle, where the maps of both lungs blend
PLACES = 3  # from knot to knot, at which folding is looked for
SMOOTHINGS = 40  # until nothing folds
LARGEST_IN_GAP = 0.6  # of the mean number of points for the same width
OUTLIER = 6.0  # median distances from what the neighbours say
SHIFT_POINTS = 2000


@dataclass(frozen=True)
class LungBoxes:
    """The boxes around the right and the left lung in mm, LPS; each by its smallest and its largest coordinates."""

    right_low_mm: Vector3
    right_high_mm: Vector3
    left_low_mm: Vector3
    left_high_mm: Vector3

    @classmethod
    def of_points(cls, points_mm: NDArray[np.generic]) -> LungBoxes:
        """Measure the lungs by points ``[n, 3]`` in them; x is parted where fewest points lie.

        Raises:
            InputError: there is no gap between two lungs, one holds less than a tenth of the points, or they are few.
        """
        points = np.asarray(points_mm, dtype=float)
        if len(points) < 100:
            raise InputError(f"found {len(points)} points", field="lungs", expected="at least 100 in both lungs")
        low, high = np.percentile(points[:, 0], (0.5, 99.5))
        counts, edges = np.histogram(points[:, 0], bins=50, range=(low, high))
        smooth = np.convolve(counts, (0.25, 0.5, 0.25), mode="same")
        fewest = 17 + int(np.argmin(smooth[17:33]))  # in the middle third
        middle = float(edges[fewest : fewest + 2].mean())
        parts = points[points[:, 0] < middle], points[points[:, 0] >= middle]
        if smooth[fewest] > LARGEST_IN_GAP * counts.mean() or min(map(len, parts)) < 0.1 * len(points):
            raise InputError("found one lung only", field="lungs", expected="both, to carry real motion to them")
        corners = (np.percentile(part, end, axis=0) for part in parts for end in (0.5, 99.5))
        return cls(*map(_vector, corners))

    @property
    def middle_mm(self) -> float:
        """X halfway between the lungs."""
        return (self.right_high_mm[0] + self.left_low_mm[0]) / 2


@dataclass(frozen=True, eq=False)
class RealMotion:
    """The motion of one patient as a cubic B-spline, without its mean.

    Attributes:
        name: of the patient.
        coefficients: of the displacement in mm, float32 ``[z, y, x, 3]``, components (x, y, z), LPS.
        low_mm: position of the first knot (x, y, z).
        knots_mm: distance of the knots.
        lungs: where the patient's lungs lie.
    """

    name: str
    coefficients: NDArray[np.float32]
    low_mm: Vector3
    knots_mm: float
    lungs: LungBoxes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RealMotion):
            return NotImplemented
        same = (self.name, self.low_mm, self.knots_mm, self.lungs) == (
            other.name, other.low_mm, other.knots_mm, other.lungs
        )  # fmt: skip
        return same and np.array_equal(self.coefficients, other.coefficients)

    def __hash__(self) -> int:
        return hash((self.name, self.low_mm, self.knots_mm, self.lungs))

    def displacement(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """The displacement in mm at points ``[n, 3]`` of the patient; constant beyond the knots."""
        at = ((np.asarray(points_mm, dtype=float) - self.low_mm) / self.knots_mm)[:, ::-1].T
        parts = [
            map_coordinates(self.coefficients[..., c], at, order=3, mode="nearest", prefilter=False) for c in range(3)
        ]
        return np.stack(parts, axis=-1).astype(float)

    def unfolded(self, gain: float, minimum_det: float) -> RealMotion:
        """The motion, smoothed around the places where ``gain`` times it has a det grad y below ``minimum_det``."""
        motion = self
        for _ in range(SMOOTHINGS):
            low = motion._det(gain) < minimum_det
            if not low.any():
                break
            at = np.zeros(self.coefficients.shape[:3], np.float32)
            at[tuple(np.rint(np.argwhere(low) / PLACES).astype(int).T)] = 1.0
            weight = np.minimum(4 * gaussian_filter(maximum_filter(at, 3), 1.0), 1.0)[..., None]
            smooth = gaussian_filter(motion.coefficients, (1.0, 1.0, 1.0, 0.0), mode="nearest")
            motion = replace(motion, coefficients=_rounded(motion.coefficients * (1 - weight) + smooth * weight))
        return motion

    def smallest_det(self, gain: float = 1.0) -> float:
        """The smallest det grad y of ``gain`` times the motion."""
        return float(self._det(gain).min())

    def _det(self, gain: float) -> FloatArray:
        """The det grad y of ``gain`` times the motion, ``[z, y, x]``, at :data:`PLACES` places from knot to knot."""
        shift = self.coefficients.astype(float)
        for axis in range(3):
            shift = np.moveaxis(np.tensordot(_spline_matrix(shift.shape[axis]), shift, (1, axis)), 0, axis)
        gradient = np.stack([np.gradient(shift, self.knots_mm / PLACES, axis=2 - c) for c in range(3)], axis=-1)
        return np.asarray(np.linalg.det(np.eye(3) + gain * gradient))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers for a JSON file."""
        flat = np.rint(self.coefficients.astype(float).ravel() * 1000).astype(int).tolist()
        return {
            "name": self.name,
            "shape": list(self.coefficients.shape[:3]),
            "coefficients_um": flat,
            "low_mm": list(self.low_mm),
            "knots_mm": self.knots_mm,
            "lungs": asdict(self.lungs),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RealMotion:
        """The inverse of :meth:`to_dict`; raises KeyError, TypeError or ValueError where entries do not fit."""
        coefficients = np.asarray(values["coefficients_um"], dtype=float).reshape(*values["shape"], 3) / 1000
        lungs = LungBoxes(**{name: _vector(corner) for name, corner in values["lungs"].items()})
        return cls(
            str(values["name"]),
            coefficients.astype(np.float32),
            _vector(values["low_mm"]),
            float(values["knots_mm"]),
            lungs,
        )


@dataclass(frozen=True)
class CarriedMotion:
    """The motion of one patient in the lungs of another.

    Attributes:
        motion: of the patient.
        lungs: where the other patient's lungs lie.
        gain: factor of the displacement.

    Example:
        >>> import numpy as np
        >>> points = np.random.default_rng(0).uniform(-1, 1, (400, 3)) * (40, 80, 100)
        >>> points[:, 0] += np.where(points[:, 0] < 0, -40, 40)
        >>> motion = fit_motion("a patient", points, points + np.c_[0 * points[:, :2], 0.05 * points[:, 2]])
        >>> carried = CarriedMotion(motion, LungBoxes.of_points(1.2 * points), gain=0.5)
        >>> round(float(carried(np.array([[60.0, 0, 100]]))[0, 2]), 1)  # half of 5 % of 100 mm
        2.5
    """

    motion: RealMotion
    lungs: LungBoxes
    gain: float = 1.0

    def __call__(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """The displacement in mm at points ``[n, 3]`` of the other patient."""
        points = np.asarray(points_mm, dtype=float)
        here, there = self.lungs, self.motion.lungs
        t = np.clip((points[:, :1] - here.middle_mm) / (2 * BLEND_MM) + 0.5, 0.0, 1.0)
        left = t * t * (3 - 2 * t)
        at, scale = np.zeros_like(points), np.zeros_like(points)
        for side, weight in (("right", 1 - left), ("left", left)):
            low, high, low_there, high_there = (
                np.asarray(getattr(boxes, f"{side}_{end}_mm")) for boxes in (here, there) for end in ("low", "high")
            )
            ratio = (high_there - low_there) / np.maximum(high - low, 1.0)
            at += weight * (low_there + (points - low) * ratio)
            scale += weight / ratio
        return self.gain * scale * self.motion.displacement(at)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers for a JSON file."""
        return {"motion": self.motion.to_dict(), "lungs": asdict(self.lungs), "gain": self.gain}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CarriedMotion:
        """The inverse of :meth:`to_dict`; raises KeyError, TypeError or ValueError where entries do not fit."""
        lungs = LungBoxes(**{name: _vector(corner) for name, corner in values["lungs"].items()})
        return cls(RealMotion.from_dict(values["motion"]), lungs, float(values["gain"]))


def fit_motion(name: str, from_mm: NDArray[np.generic], to_mm: NDArray[np.generic]) -> RealMotion:
    """Fit a smooth, fold-free motion to correspondences.

    Points that move unlike their neighbours are left out. The mean displacement is removed.

    Args:
        name: of the patient.
        from_mm: points in both lungs, ``[n, 3]`` in mm, LPS.
        to_mm: the same tissue in the other scan.

    Raises:
        InputError: the shapes differ, both lungs are not there, or the points fold however smooth the fit.
    """
    start, end = np.asarray(from_mm, dtype=float), np.asarray(to_mm, dtype=float)
    if start.ndim != 2 or start.shape[1] != 3 or start.shape != end.shape:
        raise InputError(
            f"found shapes {start.shape} and {end.shape}",
            field=name,
            expected="two lists of equally many points in mm",
        )
    lungs = LungBoxes.of_points(start)
    start, shift = _consistent(start, end - start)
    motion = _fitted(name, lungs, start, shift - shift.mean(axis=0)).unfolded(1.0, FIT_MIN_DET)
    if motion.smallest_det() >= FIT_MIN_DET:
        return motion
    raise InputError(
        "its points fold", field=name, expected="a motion without folding", remedy="check the correspondences"
    )


def relative_shift_mm(shifts_mm: FloatArray) -> float:
    """Median distance by which two of the points ``[n, 3]`` move against each other."""
    one, other = np.random.default_rng(0).integers(len(shifts_mm), size=(2, SHIFT_POINTS))
    return float(np.median(np.linalg.norm(shifts_mm[one] - shifts_mm[other], axis=1)))


def _consistent(start: FloatArray, shift: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Leave out points that move unlike the median of their neighbours."""
    near = cKDTree(start).query(start, k=9)[1][:, 1:]
    odd = np.linalg.norm(shift - np.median(shift[near], axis=1), axis=1)
    kept = odd <= max(OUTLIER * float(np.median(odd)), 1.0)
    return start[kept], shift[kept]


def _fitted(name: str, lungs: LungBoxes, start: FloatArray, shift: FloatArray) -> RealMotion:
    low = np.minimum(lungs.right_low_mm, lungs.left_low_mm) - KNOTS_BEYOND_MM
    high = np.maximum(lungs.right_high_mm, lungs.left_high_mm) + KNOTS_BEYOND_MM
    anchors = _lattice(low, high, ANCHORS_MM).reshape(-1, 3)
    anchors = anchors[cKDTree(start).query(anchors)[0] > ANCHORS_FROM_MM]
    places, shifts = np.concatenate([start, anchors]), np.concatenate([shift, _mean_shift(start, shift, anchors)])
    spline = RBFInterpolator(places, shifts, kernel="thin_plate_spline", degree=1, smoothing=SMOOTHING)
    knots = _lattice(low, high, KNOTS_MM)
    values = spline(knots.reshape(-1, 3)).reshape(knots.shape)
    coefficients = np.stack([spline_filter(values[..., c], order=3, mode="nearest") for c in range(3)], axis=-1)
    return RealMotion(name, _rounded(coefficients), _vector(low), KNOTS_MM, lungs)


def _mean_shift(start: FloatArray, shift: FloatArray, places: FloatArray) -> FloatArray:
    """How the points near each place move in the mean: there the motion levels off."""
    squared = ((places[:, None] - start) ** 2).sum(axis=-1)
    weight = np.exp((squared.min(axis=1, keepdims=True) - squared) / (2 * ANCHORS_FROM_MM**2))
    mean: FloatArray = weight @ shift / weight.sum(axis=1, keepdims=True)
    return mean


def _lattice(low: FloatArray, high: FloatArray, step: float) -> FloatArray:
    """Places ``[z, y, x, 3]`` in mm from ``low`` to ``high`` or a little beyond."""
    along = [a + step * np.arange(int(np.ceil((b - a) / step)) + 1) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*along[::-1], indexing="ij"), axis=-1)[..., ::-1]


def _spline_matrix(knots: int) -> FloatArray:
    """The values of a cubic B-spline at :data:`PLACES` places from knot to knot, ``[places, knots]``."""
    places = np.arange(PLACES * (knots - 1) + 1)[None] / PLACES
    rows = [map_coordinates(unit, places, order=3, mode="nearest", prefilter=False) for unit in np.eye(knots)]
    return np.stack(rows, axis=1)


def _rounded(coefficients: FloatArray) -> NDArray[np.float32]:
    """To the micrometre, as a file holds them."""
    return np.asarray(np.rint(coefficients.astype(float) * 1000) / 1000, dtype=np.float32)


def _vector(values: Any) -> Vector3:
    x, y, z = (round(float(v), 3) for v in values)
    return x, y, z
