"""Positions for synthetic nodules: free in the lung, beside a vessel, or on the pleura."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, distance_transform_edt, uniform_filter

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box
from ChangeMapJointLib.core.hu import VESSEL_HU
from ChangeMapJointLib.core.resample import index_points

Place = Literal["free", "vessel", "pleura"]
Side = Literal["left", "right"]

TRUNK_RADIUS_MM = 4.0  # vessels of at least this radius belong to the hilum
RIM_MM = 3.0  # of the lungs, blurred by the chest wall
GAP_MM = 14.0  # smallest distance between the borders of two lesions
SPREAD_MM = 90.0  # larger distances from other lesions count the same
CANDIDATES = 4000


@dataclass(frozen=True)
class Site:
    """Requirements on a lesion's position.

    Attributes:
        radius_mm: of the lesion at its larger size.
        place: free in the lung, beside a vessel, or on the pleura.
        side: left or right lung; None: either.
    """

    radius_mm: float
    place: Place = "free"
    side: Side | None = None


@dataclass(frozen=True)
class LungMaps:
    """Maps that decide where a lesion fits, on a crop of the scan around the lungs.

    Attributes:
        grid: of all maps.
        lungs: the lungs with their vessels.
        hu: the scan.
        depth_mm: distance to the lungs' surface.
        vessel_mm: distance to the nearest vessel.
        trunk_mm: distance to the nearest thick vessel.
        lateral: -1 at the right lung's lateral end, 0 in the middle, 1 at the left one's.
        height: 0 at the lungs' base, 1 at the apex.
    """

    grid: Grid
    lungs: NDArray[np.bool_]
    hu: NDArray[np.float32]
    depth_mm: NDArray[np.float32]
    vessel_mm: NDArray[np.float32]
    trunk_mm: NDArray[np.float32]
    lateral: NDArray[np.float32]
    height: NDArray[np.float32]


def closed_lungs(lungs: NDArray[np.bool_], grid: Grid, *, radius_mm: float = 6.0) -> NDArray[np.bool_]:
    """Fill the vessels and small notches of a threshold mask, by closing with a ball and filling of holes."""
    start, stop = bounding_box(lungs, margin=[int(np.ceil(radius_mm / h)) + 1 for h in grid.spacing_mm[::-1]])
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    spacing = grid.spacing_mm[::-1]
    padded = np.pad(lungs[box], 1)
    grown = distance_transform_edt(~padded, sampling=spacing) <= radius_mm
    closed = distance_transform_edt(grown, sampling=spacing) > radius_mm
    result = lungs.copy()
    result[box] |= binary_fill_holes(closed | padded)[1:-1, 1:-1, 1:-1]
    return result


def lung_maps(hu: NDArray[np.generic], lungs: NDArray[np.bool_], grid: Grid) -> LungMaps:
    """Compute the maps that :func:`find_sites` needs.

    Args:
        hu: the scan, ``[z, y, x]``.
        lungs: its lungs with their vessels (see :func:`closed_lungs`).
        grid: the grid of both.
    """
    start, stop = bounding_box(lungs, margin=2)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    crop = grid.crop(start, stop)
    inside, values = lungs[box], np.asarray(hu[box], dtype=np.float32)
    spacing = grid.spacing_mm[::-1]
    dense = values > VESSEL_HU
    trunk_voxels = max(round(TRUNK_RADIUS_MM / max(spacing)), 1)
    trunk = binary_dilation(binary_erosion(dense, iterations=trunk_voxels), iterations=trunk_voxels)

    def distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        if not mask.any():
            return np.full(mask.shape, np.inf, dtype=np.float32)
        return np.asarray(distance_transform_edt(~mask, sampling=spacing), dtype=np.float32)

    depth = distance_to(~inside)
    interior = inside & (depth > RIM_MM)
    points = index_points(crop, crop.affine).numpy()  # [z, y, x, (x, y, z)]
    low, high = points[inside].min(0), points[inside].max(0)
    relative = (points - low) / np.maximum(high - low, 1e-6)
    return LungMaps(
        grid=crop,
        lungs=inside,
        hu=values,
        depth_mm=depth,
        vessel_mm=distance_to(dense & interior),
        trunk_mm=distance_to(trunk & interior),
        lateral=2 * relative[..., 0] - 1,
        height=relative[..., 2],
    )


def find_sites(
    maps: LungMaps,
    wanted: Sequence[Site],
    *,
    rng: np.random.Generator,
    occupied: Sequence[tuple[FloatArray, float]] = (),
) -> list[FloatArray]:
    """Find a position for every lesion, far from the others.

    Args:
        maps: of the scan that receives the lesions.
        wanted: requirements, in any order; the largest lesions are placed first.
        rng: for the choice among the positions that fit.
        occupied: (centre, radius) in mm of existing lesions.

    Returns:
        Centres ``[3]`` in mm, LPS, in the order of ``wanted``.

    Raises:
        InputError: a lesion fits nowhere.
    """
    taken = list(occupied)
    centres: dict[int, FloatArray] = {}
    for number in sorted(range(len(wanted)), key=lambda n: -wanted[n].radius_mm):
        centre = _best_centre(maps, wanted[number], taken, rng)
        taken.append((centre, wanted[number].radius_mm))
        centres[number] = centre
    return [centres[number] for number in range(len(wanted))]


def _best_centre(
    maps: LungMaps, site: Site, taken: Sequence[tuple[FloatArray, float]], rng: np.random.Generator
) -> FloatArray:
    index = np.argwhere(_allowed(maps, site))
    if len(index) > CANDIDATES:
        index = index[rng.choice(len(index), CANDIDATES, replace=False)]
    points = maps.grid.to_physical(index[:, ::-1])
    if taken and len(points):
        gaps = np.stack([np.linalg.norm(points - c, axis=1) - r for c, r in taken]).min(0) - site.radius_mm
    else:
        gaps = np.full(len(points), np.inf)
    points, gaps = points[gaps >= GAP_MM], gaps[gaps >= GAP_MM]
    if len(points) == 0:
        position = f"{site.place}, {site.side or 'either'} lung"
        raise InputError(
            "fits nowhere in the lungs",
            field=f"lesion of radius {site.radius_mm:g} mm ({position})",
            remedy="plan fewer or smaller lesions",
        )
    score = np.minimum(gaps, SPREAD_MM) + rng.uniform(0.0, 25.0, size=len(points))
    centre: FloatArray = points[int(np.argmax(score))]
    return centre


def _allowed(maps: LungMaps, site: Site) -> NDArray[np.bool_]:
    """The voxels that the centre may be in."""
    r = site.radius_mm
    size = [max(round(1.6 * r / h), 1) for h in maps.grid.spacing_mm[::-1]]
    mean_hu = uniform_filter(maps.hu, size)
    allowed = maps.lungs & (np.abs(maps.lateral) > 0.25) & (maps.height > 0.12) & (maps.height < 0.93)
    allowed &= maps.trunk_mm > r + 5.0  # outside the hilum
    allowed &= mean_hu > -940.0  # lung, not an airway or a bulla
    if site.side is not None:
        allowed &= maps.lateral > 0 if site.side == "left" else maps.lateral < 0
    if site.place == "pleura":
        allowed &= (maps.depth_mm > 0.2 * r) & (maps.depth_mm < 0.5 * r) & (maps.vessel_mm > min(0.6 * r, 3.0))
        allowed &= (maps.height > 0.3) & (maps.height < 0.85)  # enough lung beside it, not its thin rim
        return allowed & (np.abs(maps.lateral) > 0.55) & _faces_the_side(maps)
    allowed &= (maps.depth_mm > r + 4.0) & (mean_hu < -780.0)
    if site.place == "vessel":
        return allowed & (maps.vessel_mm > 0.4 * r) & (maps.vessel_mm < 0.8 * r)
    return allowed & (maps.vessel_mm > min(0.9 * r, 5.0))


def _faces_the_side(maps: LungMaps) -> NDArray[np.bool_]:
    """Voxels whose nearest surface is the lateral chest wall, not the diaphragm or the apex."""
    inward = np.stack(np.gradient(maps.depth_mm, *maps.grid.spacing_mm[::-1]), axis=-1)[..., ::-1]  # array's (x, y, z)
    vertical = inward @ np.asarray(maps.grid.direction)[2].astype(np.float32)
    return np.asarray(np.abs(vertical) < 0.4 * np.linalg.norm(inward, axis=-1))
