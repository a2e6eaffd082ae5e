"""Synthetic lung nodules: irregular shapes given by a few numbers, and how they are painted into a CT.

A shape is star-shaped round its centre: the radius depends on the direction only, so that the same
shape exists at any size and its signed distance is known everywhere. Borders are feathered with
``alpha = clip(0.5 - distance / (2 s), 0, 1)``, which leaves no seam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import IDENTITY3, FloatArray, Grid, Matrix3, Vector3
from ChangeMapJointLib.training.acquisition import correlated_noise
from ChangeMapJointLib.training.breathing import as_vector

Texture = Literal["solid", "part-solid", "ground-glass"]
TEXTURES: tuple[Texture, ...] = get_args(Texture)

SPHERE_DIRECTIONS = 4000
GROUND_GLASS_FEATHER = 2.0  # ground glass fades over a wider rim than a solid border
MOTTLE_MM = 2.0  # width of the slow variation inside a lesion


@dataclass(frozen=True)
class Lobe:
    """Adds ``amplitude * exp(sharpness (cos angle - 1))`` to the relative radius about ``direction``.

    A low ``sharpness`` (3 to 6) makes a lobulation, a high one (above 30) a spicule.
    """

    direction: Vector3
    amplitude: float
    sharpness: float


@dataclass(frozen=True)
class LesionShape:
    """A nodule's outline, without its size.

    Attributes:
        axes: relative half axes of the ellipsoid underneath.
        lobes: lobulations and spicules.
        rotation: 3x3; columns are the ellipsoid's axes in physical space.
        radii: relative radii of a real nodule in the directions of :func:`sphere_directions`, before the rotation;
            they take the ellipsoid's place.
    """

    axes: Vector3 = (1.0, 1.0, 1.0)
    lobes: tuple[Lobe, ...] = ()
    rotation: Matrix3 = IDENTITY3
    radii: tuple[float, ...] = ()

    def signed_distance(self, offsets_mm: NDArray[np.generic], diameter_mm: float) -> FloatArray:
        """Distance from the border in mm, negative inside, measured along the ray from the centre.

        Args:
            offsets_mm: ``[..., 3]``, points minus the lesion's centre.
            diameter_mm: of the sphere with the lesion's volume.

        Returns:
            ``[...]``; exact for a sphere, slightly too large in size for others.
        """
        offsets = np.asarray(offsets_mm, dtype=float)
        length = np.linalg.norm(offsets, axis=-1)
        directions = np.where(length[..., None] > 1e-9, offsets, (0.0, 0.0, 1.0))
        directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        distance: FloatArray = length - diameter_mm / 2 * self._mean_radius_factor * self._radius(directions)
        return distance

    def turned(self, rotation: NDArray[np.generic]) -> LesionShape:
        """The shape after every point p has moved to ``rotation @ p``."""
        matrix = np.asarray(rotation, dtype=float)
        a, b, c = (as_vector(row) for row in matrix @ np.asarray(self.rotation))
        lobes = tuple(
            Lobe(as_vector(matrix @ np.asarray(lobe.direction)), lobe.amplitude, lobe.sharpness) for lobe in self.lobes
        )
        return LesionShape(self.axes, lobes, (a, b, c), self.radii)

    @property
    def reach(self) -> float:
        """The largest radius as a multiple of half the diameter."""
        return float(self._radius(_sphere()).max() * self._mean_radius_factor)

    def _radius(self, directions: FloatArray) -> FloatArray:
        """Relative radius in unit ``directions`` ``[..., 3]``, before it is scaled to the volume."""
        local = directions @ np.asarray(self.rotation)
        if self.radii:
            radius = interpolated_radius(local, np.asarray(self.radii))
        else:
            radius = 1 / np.maximum(np.linalg.norm(local / np.asarray(self.axes), axis=-1), 1e-9)
        factor = np.ones_like(radius)
        for lobe in self.lobes:
            factor += lobe.amplitude * np.exp(lobe.sharpness * (directions @ np.asarray(lobe.direction) - 1))
        return radius * np.maximum(factor, 0.2)

    @cached_property
    def _mean_radius_factor(self) -> float:
        """Makes the volume that of the sphere: V = 4/3 pi mean(radius^3) over all directions."""
        return float(np.mean(self._radius(_sphere()) ** 3) ** (-1 / 3))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LesionShape:
        """The inverse of :meth:`to_dict`."""
        lobes = tuple(Lobe(as_vector(b["direction"]), b["amplitude"], b["sharpness"]) for b in values["lobes"])
        a, b, c = (as_vector(row) for row in values["rotation"])
        return cls(as_vector(values["axes"]), lobes, (a, b, c), tuple(values.get("radii", ())))


def sphere_directions(count: int) -> FloatArray:
    """``[count, 3]`` unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    number = np.arange(count) + 0.5
    z, turn = 1 - 2 * number / count, np.pi * (1 + 5**0.5) * number
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=-1)


def interpolated_radius(directions: FloatArray, radii: FloatArray) -> FloatArray:
    """Radii given in :func:`sphere_directions`, in other unit ``directions`` ``[..., 3]``: a mean over neighbours."""
    known = sphere_directions(len(radii))
    sharpness = 0.3 * len(radii)  # neighbours are about sqrt(4 pi / n) apart; the steps between slices vanish
    flat = directions.reshape(-1, 3)
    result = np.empty(len(flat))
    for begin in range(0, len(flat), 20_000):  # bounds the memory
        part = slice(begin, begin + 20_000)
        weight = np.exp(sharpness * (flat[part] @ known.T - 1))
        result[part] = weight @ radii / np.maximum(weight.sum(axis=1), 1e-300)
    found: FloatArray = result.reshape(directions.shape[:-1])
    return found


def draw_shape(rng: np.random.Generator, *, spiculated: bool = False) -> LesionShape:
    """A random nodule: slightly ellipsoidal, lobulated, on request with spicules."""
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


@dataclass(frozen=True)
class Lesion:
    """What a nodule looks like, apart from its place and size.

    Attributes:
        shape: its outline, in the orientation of the scan it is painted into.
        texture: solid, part-solid or ground-glass.
        solid_hu: of the solid part.
        ground_glass_hu: by how much a ground-glass part raises aerated lung.
        core: diameter of a part-solid nodule's solid core, as a part of the whole.
        softness: factor of the border's width.
    """

    shape: LesionShape
    texture: Texture = "solid"
    solid_hu: float = 40.0
    ground_glass_hu: float = 280.0
    core: float = 0.5
    softness: float = 1.0

    def __post_init__(self) -> None:
        if self.texture not in TEXTURES:
            raise InputError(f"lesion texture: found {self.texture!r}, expected one of {', '.join(TEXTURES)}")


def paint_lesion(
    array: NDArray[np.float32],
    grid: Grid,
    lesion: Lesion,
    *,
    centre_mm: NDArray[np.generic],
    diameter_mm: float,
    lungs: NDArray[np.bool_],
    rng: np.random.Generator,
    noise_hu: float = 0.0,
    feather_vox: float = 0.8,
) -> NDArray[np.bool_]:
    """Paint a nodule into ``array``, in place.

    Nothing outside the lungs is changed and no voxel becomes less dense, so that a nodule on the
    pleura joins the chest wall and vessels shine through ground glass.

    Args:
        array: HU ``[z, y, x]``; changed.
        grid: its grid.
        lesion: what it looks like.
        centre_mm: where, LPS.
        diameter_mm: of the sphere with its volume.
        lungs: where it may be, ``[z, y, x]``, vessels included.
        rng: for the noise inside a solid part.
        noise_hu: standard deviation of that noise: the scan's own (0 where noise is added later).
        feather_vox: s of the module's formula for a softness of 1, in mean voxel edges.

    Returns:
        Bool ``[z, y, x]``: the lesion's support, alpha of 0.5 and more.
    """
    support = np.zeros(grid.shape, dtype=bool)
    feather_mm = lesion.softness * feather_vox * float(np.prod(grid.spacing_mm)) ** (1 / 3)
    box, offsets = _neighbourhood(grid, centre_mm, lesion.shape.reach * diameter_mm / 2 + 4 * feather_mm)
    if diameter_mm <= 0 or offsets.size == 0:
        return support
    crop, inside = array[box], lungs[box]
    mottle = _mottle(rng, crop.shape, grid)
    if lesion.texture != "solid":
        alpha = _alpha(lesion.shape.signed_distance(offsets, diameter_mm), GROUND_GLASS_FEATHER * feather_mm)
        aerated = np.clip(-crop / 800.0, 0.0, 1.0)
        raised = lesion.ground_glass_hu * np.maximum(1 + 0.25 * mottle, 0.0)
        crop += np.where(inside, alpha * aerated * raised, 0).astype(np.float32)
    if lesion.texture != "ground-glass":
        core = diameter_mm * (lesion.core if lesion.texture == "part-solid" else 1.0)
        alpha = _alpha(lesion.shape.signed_distance(offsets, core), feather_mm)
        noise = correlated_noise(rng, crop.shape, (0.6, 0.6, 0.6)) * noise_hu
        target = lesion.solid_hu + 8.0 * mottle + noise
        crop += np.where(inside, alpha * np.maximum(target - crop, 0.0), 0).astype(np.float32)
    support[box] = inside & (lesion.shape.signed_distance(offsets, diameter_mm) <= 0)
    return support


def _alpha(distance_mm: FloatArray, feather_mm: float) -> FloatArray:
    return np.clip(0.5 - distance_mm / (2 * feather_mm), 0.0, 1.0)


def _mottle(rng: np.random.Generator, shape: tuple[int, ...], grid: Grid) -> NDArray[np.float32]:
    x, y, z = (MOTTLE_MM / h for h in grid.spacing_mm)
    return correlated_noise(rng, shape, (z, y, x))


def _neighbourhood(
    grid: Grid, centre_mm: NDArray[np.generic], radius_mm: float
) -> tuple[tuple[slice, slice, slice], FloatArray]:
    """The box of voxels within ``radius_mm`` of the centre, and their offsets ``[z, y, x, 3]`` from it."""
    i, j, k = grid.to_index(centre_mm)
    nz, ny, nx = grid.shape
    hx, hy, hz = grid.spacing_mm
    spans = ((k, hz, nz), (j, hy, ny), (i, hx, nx))
    starts = [max(int(np.floor(c - radius_mm / h)), 0) for c, h, _ in spans]
    stops = [min(int(np.ceil(c + radius_mm / h)) + 1, n) for c, h, n in spans]
    box = (slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2]))
    index = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(starts, stops, strict=True)), indexing="ij"), -1)
    return box, grid.to_physical(index[..., ::-1]) - np.asarray(centre_mm, dtype=float)


def _sphere() -> FloatArray:
    """Evenly spread unit directions ``[n, 3]`` (Fibonacci's spiral)."""
    k = np.arange(SPHERE_DIRECTIONS) + 0.5
    height, angle = 1 - 2 * k / SPHERE_DIRECTIONS, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=-1)
