"""Parametric outlines of lung nodules.

An outline is star-shaped around its centre: its radius is a function of the direction, so that it exists at any size
and its signed distance is known everywhere. A second size is made by scaling, or by erosion as in the paper
(section 3), which removes spicules and lobes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, distance_transform_edt, find_objects, gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.grid import IDENTITY3, FloatArray, Matrix3, Vector3
from ChangeMapJointLib.synthesis.breathing import as_vector

SPHERE_DIRECTIONS = 4000
DIRECTIONS = 300  # in which the radii of a real nodule are measured
RAY_MM = 0.2  # step along a ray
FINE_MM = 0.5  # voxel size for rounding a mask
ROUNDING = 0.6  # standard deviation of rounding, in multiples of the largest voxel edge
SMALLEST_MM, LARGEST_MM = 5.0, 40.0  # diameter of a real nodule, as the sphere with its volume
LONGEST = 4.0  # largest extent in multiples of that diameter; longer bodies are vessels
STAR_LIKE = (0.8, 1.25)  # accepted ratio of the volume inside the radii to the volume of the mask
STEPS = 48  # voxels across the outline of the grid for erosion
THIN = 8  # a body that is nowhere deeper than this many voxels needs a finer grid
MARGIN_MM = 6.0  # of that grid beyond the outline, where borders fade


@dataclass(frozen=True)
class Lobe:
    """A bump around ``direction``: adds ``amplitude exp(sharpness (cos angle - 1))`` to the factor on the radius.

    A low ``sharpness`` (3 to 6) makes a lobulation, a high one (above 30) a spicule.
    """

    direction: Vector3
    amplitude: float
    sharpness: float


@dataclass(frozen=True)
class LesionShape:
    """A nodule's outline, without its size.

    Attributes:
        axes: relative half axes of the underlying ellipsoid.
        lobes: lobulations and spicules.
        rotation: 3x3; columns are the ellipsoid's axes in physical space.
        radii: relative radii of a real nodule in the directions of :func:`sphere_directions`, before the rotation;
            they replace the ellipsoid. Empty: the ellipsoid is used.
        full_mm: diameter of the outline as given; smaller sizes are made by erosion. 0: all sizes are made by scaling.
    """

    axes: Vector3 = (1.0, 1.0, 1.0)
    lobes: tuple[Lobe, ...] = ()
    rotation: Matrix3 = IDENTITY3
    radii: tuple[float, ...] = ()
    full_mm: float = 0.0

    def signed_distance(self, offsets_mm: NDArray[np.generic], diameter_mm: float) -> FloatArray:
        """Distance from the border in mm, negative inside, measured along the ray from the centre.

        Args:
            offsets_mm: ``[..., 3]``, points minus the lesion's centre.
            diameter_mm: of the sphere with the lesion's volume.

        Returns:
            ``[...]``; exact for a sphere, slightly too large in magnitude for other outlines. For an eroded outline,
            the distance to the nearest point of the border.
        """
        offsets = np.asarray(offsets_mm, dtype=float)
        if 0 < diameter_mm < self.full_mm:
            return self._distances.at(offsets) + self._distances.erosion_mm(diameter_mm)
        length = np.linalg.norm(offsets, axis=-1)
        directions = np.where(length[..., None] > 1e-9, offsets, (0.0, 0.0, 1.0))
        directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        distance: FloatArray = length - diameter_mm / 2 * self._mean_radius_factor * self._radius(directions)
        return distance

    def turned(self, rotation: NDArray[np.generic]) -> LesionShape:
        """The shape rotated by a 3x3 matrix."""
        matrix = np.asarray(rotation, dtype=float)
        a, b, c = (as_vector(row) for row in matrix @ np.asarray(self.rotation))
        lobes = tuple(
            Lobe(as_vector(matrix @ np.asarray(lobe.direction)), lobe.amplitude, lobe.sharpness) for lobe in self.lobes
        )
        return replace(self, lobes=lobes, rotation=(a, b, c))

    @property
    def reach(self) -> float:
        """The largest radius as a multiple of half the diameter."""
        return float(self._radius(sphere_directions(SPHERE_DIRECTIONS)).max() * self._mean_radius_factor)

    def radius_mm(self, diameter_mm: float) -> float:
        """The largest distance of the outline of that diameter from its centre."""
        if 0 < diameter_mm < self.full_mm:
            return self._distances.radius_mm(diameter_mm)
        return self.reach * diameter_mm / 2

    @cached_property
    def _distances(self) -> _Distances:
        """Signed distances of the outline at its full size."""
        distances = self._measured(STEPS)
        if -distances.inner[0] < THIN * distances.step_mm:
            distances = self._measured(2 * STEPS)
        return distances

    def _measured(self, steps: int) -> _Distances:
        step = self.reach * self.full_mm / steps
        along = (np.arange(steps + 3) - (steps + 2) / 2) * step
        points = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1)
        inside = replace(self, full_mm=0.0).signed_distance(points, self.full_mm) <= 0
        return _Distances.of(np.pad(inside, int(np.ceil(MARGIN_MM / step))), step)

    def _radius(self, directions: FloatArray) -> FloatArray:
        """Relative radius in unit ``directions`` ``[..., 3]``, not yet scaled to the volume."""
        local = directions @ np.asarray(self.rotation)
        if self.radii:
            radius = interpolated_radius(local, np.asarray(self.radii))
        else:
            radius = 1 / np.maximum(np.linalg.norm(local / np.asarray(self.axes), axis=-1), 1e-9)
        factor = np.ones_like(radius)
        for lobe in self.lobes:
            factor += lobe.amplitude * np.exp(lobe.sharpness * (directions @ np.asarray(lobe.direction) - 1))
        radii: FloatArray = radius * np.maximum(factor, 0.2)
        return radii

    @cached_property
    def _mean_radius_factor(self) -> float:
        """Scales the volume to that of the sphere: V = 4/3 pi mean(radius^3) over all directions."""
        return float(np.mean(self._radius(sphere_directions(SPHERE_DIRECTIONS)) ** 3) ** (-1 / 3))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LesionShape:
        """The inverse of :meth:`to_dict`."""
        lobes = tuple(Lobe(as_vector(b["direction"]), b["amplitude"], b["sharpness"]) for b in values["lobes"])
        a, b, c = (as_vector(row) for row in values["rotation"])
        radii, full = tuple(values.get("radii", ())), float(values.get("full_mm", 0.0))
        return cls(as_vector(values["axes"]), lobes, (a, b, c), radii, full)


@dataclass(frozen=True)
class _Distances:
    """Signed distance in mm to the border of a body, ``[x, y, z]`` around its centre, negative inside."""

    values: NDArray[np.float32]
    inner: NDArray[np.float32]  # the negative values of :meth:`at` at eight points in each voxel, sorted
    step_mm: float

    @classmethod
    def of(cls, inside: NDArray[np.bool_], step_mm: float) -> _Distances:
        """Measure a body, bool ``[x, y, z]`` with isotropic voxels of ``step_mm``."""
        within, beyond = distance_transform_edt(inside), distance_transform_edt(~inside)
        values = (np.where(inside, 0.5 - within, beyond - 0.5) * step_mm).astype(np.float32)
        fine = np.stack(np.meshgrid(*(np.arange(-0.25, n, 0.5) for n in values.shape), indexing="ij"))
        samples = map_coordinates(values, fine, order=1, mode="nearest")
        return cls(values, np.sort(samples[samples <= 0]), step_mm)

    def at(self, offsets: FloatArray) -> FloatArray:
        """Interpolate at points ``[..., 3]`` in mm from the centre."""
        index = offsets / self.step_mm + (np.array(self.values.shape) - 1) / 2
        within = np.clip(index, 0, np.array(self.values.shape) - 1)
        at_border = map_coordinates(self.values, np.moveaxis(within, -1, 0), order=1)
        distance: FloatArray = at_border + np.linalg.norm(index - within, axis=-1) * self.step_mm
        return distance

    def erosion_mm(self, diameter_mm: float) -> float:
        """The depth of erosion at which the volume equals that of a sphere of this diameter."""
        samples = 8 * np.pi / 6 * diameter_mm**3 / self.step_mm**3
        return -float(np.interp(samples - 0.5, np.arange(len(self.inner)), self.inner))

    def radius_mm(self, diameter_mm: float) -> float:
        """The largest distance of the eroded body from the centre."""
        remaining = np.argwhere(self.values <= -self.erosion_mm(diameter_mm)) - (np.array(self.values.shape) - 1) / 2
        return float(np.linalg.norm(remaining, axis=1).max() + 1) * self.step_mm


def sphere_directions(count: int) -> FloatArray:
    """``[count, 3]`` unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    number = np.arange(count) + 0.5
    z, turn = 1 - 2 * number / count, np.pi * (1 + 5**0.5) * number
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=-1)


def interpolated_radius(directions: FloatArray, radii: FloatArray) -> FloatArray:
    """Interpolate radii given in :func:`sphere_directions` to other unit ``directions`` ``[..., 3]``."""
    known = sphere_directions(len(radii))
    sharpness = 0.3 * len(
        radii
    )  # directions are about sqrt(4 pi / n) apart; wide enough to smooth the steps between slices
    flat = directions.reshape(-1, 3)
    result = np.empty(len(flat))
    for begin in range(0, len(flat), 20_000):  # in parts, to bound the memory
        part = slice(begin, begin + 20_000)
        weight = np.exp(sharpness * (flat[part] @ known.T - 1))
        result[part] = weight @ radii / np.maximum(weight.sum(axis=1), 1e-300)
    interpolated: FloatArray = result.reshape(directions.shape[:-1])
    return interpolated


def shape_of_body(body: NDArray[np.bool_], spacing_mm: Sequence[float]) -> LesionShape | None:
    """Measure the outline of a mask.

    The voxel edges of the mask are rounded by the slice thickness along all axes; otherwise a rotated nodule would show
    them as facets. With thick slices, in-plane detail is lost as well.

    Args:
        body: the mask, bool ``[z, y, x]``.
        spacing_mm: (z, y, x).

    Returns:
        The outline; None where the body is too small, too large or too long, or not star-shaped around its centre.
    """
    diameter = (6 * float(body.sum()) * float(np.prod(spacing_mm)) / np.pi) ** (1 / 3)
    if not SMALLEST_MM <= diameter <= LARGEST_MM:
        return None
    body = body[find_objects(body.astype(np.int8))[0]]
    if (np.array(body.shape) * spacing_mm).max() > LONGEST * diameter:
        return None
    smooth, step = _rounded(body, np.array(spacing_mm))
    radii = _radii(smooth, step, diameter)
    volume_ratio = float((radii**3).mean()) / (diameter / 2) ** 3
    if not STAR_LIKE[0] <= volume_ratio <= STAR_LIKE[1] or radii.min() <= 0:
        return None
    return LesionShape(radii=tuple(round(float(r), 3) for r in radii / (diameter / 2)))


def _rounded(body: NDArray[np.bool_], spacing_mm: FloatArray) -> tuple[NDArray[np.bool_], FloatArray]:
    """A rounded body of the same volume on a finer grid, and the grid's spacing (z, y, x) in mm."""
    factors = np.maximum(np.round(spacing_mm / FINE_MM), 1).astype(int)
    step, width = spacing_mm / factors, ROUNDING * spacing_mm.max()
    fine = np.pad(np.kron(body, np.ones(factors, dtype=bool)), [(int(np.ceil(3 * width / h)),) * 2 for h in step])
    blurred = gaussian_filter(fine.astype(np.float32), width / step)
    return blurred >= np.partition(blurred, -fine.sum(), axis=None)[-fine.sum()], step


def _radii(body: NDArray[np.bool_], spacing_mm: FloatArray, diameter_mm: float) -> FloatArray:
    """Distance in mm from the centre to the first exit from the body, in :data:`DIRECTIONS` directions."""
    steps = np.arange(RAY_MM, 2.5 * diameter_mm, RAY_MM)
    centre = np.array(center_of_mass(body))  # (z, y, x)
    offsets = sphere_directions(DIRECTIONS)[:, None, ::-1] * steps[None, :, None] / spacing_mm
    index = np.moveaxis(centre + offsets, -1, 0)
    outside = map_coordinates(body.astype(np.float32), index, order=1, mode="constant") < 0.5
    first = np.where(outside.any(axis=1), outside.argmax(axis=1), len(steps) - 1)
    radii: FloatArray = steps[first] - RAY_MM / 2
    return np.where(first == 0, 0.0, radii)


def draw_shape(rng: np.random.Generator, *, spiculated: bool = False) -> LesionShape:
    """Draw a random outline: slightly ellipsoidal, lobulated, and on request spiculated."""
    axes = np.exp(rng.normal(0.0, 0.13, size=3))
    lobes = [_draw_lobe(rng, (-0.25, 0.35), (3.0, 8.0)) for _ in range(6)]
    lobes += [_draw_lobe(rng, (-0.14, 0.14), (12.0, 30.0)) for _ in range(14)]
    if spiculated:
        lobes += [_draw_lobe(rng, (0.25, 0.7), (60.0, 140.0)) for _ in range(int(rng.integers(10, 16)))]
    rotation = np.asarray(Rotation.from_quat(rng.normal(size=4)).as_matrix(), dtype=float)
    a, b, c = (as_vector(row) for row in rotation)
    return LesionShape(as_vector(axes / np.prod(axes) ** (1 / 3)), tuple(lobes), (a, b, c))


def _draw_lobe(rng: np.random.Generator, amplitude: tuple[float, float], sharpness: tuple[float, float]) -> Lobe:
    direction = rng.normal(size=3)
    return Lobe(
        as_vector(direction / np.linalg.norm(direction)), float(rng.uniform(*amplitude)), float(rng.uniform(*sharpness))
    )
