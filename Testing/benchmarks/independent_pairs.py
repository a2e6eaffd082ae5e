"""Synthetic pairs by other assumptions than ``changemap synthesize``, for validation only: train and tune on nothing of it.

    python Testing/benchmarks/independent_pairs.py DATA OUT [--pairs 8] [--seed 0] [--scans native/QIN-LSC-0003_full_ct ...]

| | here | ``changemap synthesize`` |
|---|---|---|
| which scan is moved | either | the reference |
| motion | the five real motions that are for judging alone | five others, and a smooth model |
| around a lesion | tissue moves freely | moves with the lesion |
| outline | level set of superposed blobs and noise; growth adds blobs on one side | star-shaped, scaled or eroded |
| ground glass | fills air between vessels, patchy | painted with a soft rim |
| sizes | log-uniform, 2 to 15 mm | as LIDC-IDRI, 5 to 25 mm |
| interpolation, noise | linear; band-pass in the plane, stronger behind dense tissue | cubic; Gaussian, uniform |

Every folder holds ``reference.nrrd``, ``template.nrrd``, ``lesions_*.nrrd`` (a lesion's id in each voxel) and ``truth.json``:
per lesion kind, centres (LPS, mm), diameters (of the sphere with its volume, mm), volumes (ml, what
lies in aerated lung), density and site.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import real_motion_pairs
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.synthesis.breathing import BreathingMotion
from ChangeMapJointLib.synthesis.draw import sizes_mm
from ChangeMapJointLib.synthesis.motion import MotionOptions, draw_motion
from ChangeMapJointLib.synthesis.sliding import sliding_field

SCANS = (
    "native/QIN-LSC-0003_full_ct",
    "native/QIN-LSC-0049_full_ct",
    "native/QIN-LUNG-01-0007_full_ct",
    "ct15/LIDC-IDRI-0001_ct",
)
KINDS = {"new": 0.25, "grown": 0.25, "shrunk": 0.15, "resolved": 0.15, "stable": 0.2}
DENSITIES = {"solid": 0.55, "part-solid": 0.2, "ground-glass": 0.25}
SITES = {"parenchyma": 0.45, "pleura": 0.3, "vessel": 0.25}
SMALLEST_MM, LARGEST_MM = 2.0, 15.0
LESIONS = (7, 11)  # of one pair
FIELD_MM, FINE_MM, MARGIN_MM, APART_MM = 2.5, 0.5, 25.0, 22.0
VESSEL_HU, AERATED_HU, AIR_HU = -500.0, -600.0, -850.0


@dataclass(frozen=True)
class Plan:
    """One lesion before it is placed; 0 mm: absent."""

    kind: str
    reference_mm: float
    template_mm: float
    density: str
    site: str


@dataclass
class Side:
    """One scan of the pair under construction, arrays ``[z, y, x]``."""

    hu: NDArray[np.float32]
    labels: NDArray[np.uint8]
    grid: Grid


@dataclass(frozen=True)
class Body:
    """The outline of one lesion at any size: a level set on a cube of :data:`FINE_MM` around its centre.

    Attributes:
        level: larger inside.
        later: added on one side where the lesion has grown.
        patches: texture, mean 0 and standard deviation 1.
        tissue_hu: of solid parts.
        glass_hu: of ground glass.
        core: diameter of the solid part of a part-solid lesion, relative to the whole.
    """

    level: NDArray[np.float32]
    later: NDArray[np.float32]
    patches: NDArray[np.float32]
    tissue_hu: float
    glass_hu: float
    core: float

    @classmethod
    def draw(cls, rng: np.random.Generator, largest_mm: float) -> Body:
        """Three to eight blobs about the centre, and noise that roughens the outline."""
        radius = largest_mm / 2
        count = int(np.ceil(2.2 * radius / FINE_MM)) + 3
        axes = np.arange(-count, count + 1) * FINE_MM
        points = np.stack(np.meshgrid(axes, axes, axes, indexing="ij"), axis=-1)
        level = np.zeros(points.shape[:3])
        for _ in range(int(rng.integers(3, 9))):
            level += _blob(points, rng.normal(0, 0.45 * radius, 3), rng.uniform(0.3, 0.6) * radius)
        side = rng.normal(size=3)
        later = _blob(points, 0.7 * radius * side / np.linalg.norm(side), 0.5 * radius)
        rough, patches = (
            ndimage.gaussian_filter(rng.standard_normal(level.shape), s / FINE_MM) for s in (0.25 * radius, 1.0)
        )
        # noise far from the centre must not make islands
        level = level * (1 + 0.4 * rough / rough.std()) + 1.5 * _blob(points, np.zeros(3), 0.7 * radius)
        arrays = (part.astype(np.float32) for part in (level, later, patches / patches.std()))
        return cls(*arrays, *(float(rng.uniform(*limits)) for limits in ((0, 80), (-700, -480), (0.4, 0.65))))

    def inside(self, diameter_mm: float, *, grown: bool) -> NDArray[np.bool_]:
        """The part around the centre with the volume of a sphere of ``diameter_mm``."""
        level = self.level + (self.later if grown else 0.0)
        voxels = max(round(np.pi / 6 * diameter_mm**3 / FINE_MM**3), 1)
        mask = level >= np.partition(level.ravel(), -voxels)[-voxels]
        parts, _ = ndimage.label(mask)
        return np.asarray(parts == parts[np.unravel_index(int(np.argmax(level)), level.shape)])


def _blob(points: FloatArray, centre: FloatArray, width: float) -> FloatArray:
    blob: FloatArray = np.exp(-((points - centre) ** 2).sum(-1) / (2 * width**2))
    return blob


def draw_plan(rng: np.random.Generator) -> Plan:
    """Kind, sizes, density and site of one lesion."""
    kind, density, site = (str(rng.choice(list(w), p=list(w.values()))) for w in (KINDS, DENSITIES, SITES))
    smallest = (SMALLEST_MM if kind in ("new", "resolved", "stable") else 3.0) if density == "solid" else 5.0
    large = float(np.exp(rng.uniform(np.log(smallest), np.log(LARGEST_MM))))
    small = max(large - float(rng.uniform(1.0, 6.0)), 0.5 * large, SMALLEST_MM)
    sizes = sizes_mm(kind, large, small)
    return Plan(kind, round(sizes[0], 2), round(sizes[1], 2), density, site)


def find_place(
    rng: np.random.Generator, plan: Plan, maps: tuple[FloatArray, ...], grid: Grid, taken: list[FloatArray]
) -> FloatArray | None:
    """A centre in mm, LPS, far from ``taken``; ``maps`` are those of :func:`lung_maps`."""
    depth, vessel, trunk, air = maps
    radius = max(plan.reference_mm, plan.template_mm) / 2
    fits = (
        (trunk > radius + 6)
        & (air > 0.55)
        & {
            "parenchyma": (depth > radius + 5) & (vessel > radius + 1.5),
            "pleura": (depth > 0.3 * radius) & (depth < 0.9 * radius + 0.5 * max(grid.spacing_mm)) & (vessel > radius),
            "vessel": (depth > radius + 8) & (vessel > 0.5) & (vessel < radius + 0.5),
        }[plan.site]
    )
    index = np.argwhere(fits)
    for _ in range(200 if len(index) else 0):
        centre = grid.to_physical(index[int(rng.integers(len(index)))][::-1].astype(float))
        if all(np.linalg.norm(centre - other) > APART_MM for other in taken):
            return np.asarray(centre)
    return None


def lung_maps(hu: NDArray[np.float32], lungs: NDArray[np.bool_], grid: Grid) -> tuple[FloatArray, ...]:
    """Distances in mm to the lungs' surface, to vessels and to thick vessels, and the share of air within some 3 mm."""
    spacing = grid.spacing_mm[::-1]
    depth = ndimage.distance_transform_edt(lungs, sampling=spacing)
    dense = lungs & (hu > VESSEL_HU) & (depth > 4)
    thick = ndimage.distance_transform_edt(dense, sampling=spacing) > 4
    to = (ndimage.distance_transform_edt(~m, sampling=spacing) if m.any() else depth + 99 for m in (dense, thick))
    air = ndimage.gaussian_filter((lungs & (hu < AERATED_HU)).astype(np.float32), [3.0 / h for h in spacing])
    return depth, *to, air


def paint(side: Side, number: int, body: Body, plan: Plan, now_mm: float, centre: FloatArray, *, grown: bool) -> float:
    """Put one lesion into a scan; returns the volume in ml that it takes from aerated lung."""
    mask = body.inside(now_mm, grown=grown)
    reach = mask.shape[0] // 2 * FINE_MM
    middle = np.asarray(side.grid.to_index(centre))
    spacing = np.array(side.grid.spacing_mm)
    low = np.clip(np.floor(middle - reach / spacing), 0, None).astype(int)
    high = np.clip(np.ceil(middle + reach / spacing) + 1, None, side.grid.size).astype(int)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    crop = side.grid.crop(low[::-1], high[::-1])
    index = np.stack(np.indices(crop.shape)[::-1], axis=-1).astype(float)
    offsets = ((crop.to_physical(index) - centre) / FINE_MM + mask.shape[0] // 2)[..., ::-1]

    def seen(values: NDArray[np.generic]) -> FloatArray:
        blur = np.maximum(0.45 * spacing[::-1], 0.5) / FINE_MM  # of voxel and focus
        fine = ndimage.gaussian_filter(values.astype(np.float32), blur)
        return np.asarray(ndimage.map_coordinates(fine, np.moveaxis(offsets, -1, 0), order=1))

    share, patches = seen(mask), seen(body.patches * mask)
    before = side.hu[box].copy()
    if plan.density == "solid":
        after = before * (1 - share) + share * body.tissue_hu + 12 * patches
    else:
        fill = np.clip((0.0 - before) / (0.0 - AIR_HU), 0.0, 1.0)  # vessels are left as they are
        after = before + fill * (share * (body.glass_hu - AIR_HU) + 70 * patches)
        if plan.density == "part-solid":
            core = seen(body.inside(body.core * now_mm, grown=False) & mask)
            after = after * (1 - core) + core * body.tissue_hu
    side.hu[box] = after if plan.density == "solid" else np.maximum(after, before)
    side.labels[box][share > 0.5] = number
    return float((share * (before < AERATED_HU)).sum()) * side.grid.voxel_volume_ml


def scanner_noise(
    rng: np.random.Generator, hu: NDArray[np.float32], grid: Grid, sigma_hu: float
) -> NDArray[np.float32]:
    """Noise as filtered back projection leaves it: few low frequencies in the plane, more where the body is dense."""
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    fy, fx = (np.fft.fftfreq(n, h) for n, h in zip(hu.shape[1:], grid.spacing_mm[1::-1], strict=True))
    radial = np.hypot(fy[:, None], fx[None])
    response = radial * np.exp(-((radial / float(rng.uniform(0.18, 0.35))) ** 2))
    for k, section in enumerate(noise):
        noise[k] = np.fft.ifft2(np.fft.fft2(section) * response).real
    noise = ndimage.gaussian_filter1d(noise, 0.4, axis=0)
    sigma = [30.0 / h for h in grid.spacing_mm[::-1]]
    dense = ndimage.gaussian_filter((hu > -300).astype(np.float32), sigma)
    return np.asarray(sigma_hu * noise / noise.std() * (0.6 + 0.9 * dense), dtype=np.float32)


def moved(
    hu: NDArray[np.float32], lungs: NDArray[np.bool_], grid: Grid, motion: BreathingMotion, rng: np.random.Generator
) -> Side:
    """The scan at ``motion``, less noisy, its lungs as dense as their volume says, more or less."""
    surface = grid.to_physical(np.argwhere(lungs & ~ndimage.binary_erosion(lungs))[::11, ::-1].astype(float))
    corners = motion.inverse(surface)
    low, high = corners.min(0) - MARGIN_MM, corners.max(0) + MARGIN_MM
    spacing = grid.spacing_mm
    size = np.ceil((high - low) / spacing).astype(int) + 1
    target = Grid((int(size[2]), int(size[1]), int(size[0])), spacing, tuple(np.round(low, 2).tolist()))
    coarse = target.with_spacing((FIELD_MM,) * 3)
    smooth = motion.field(coarse)
    det = smooth.jacobian_determinant()
    field = sliding_field(motion, coarse, lungs, grid) if rng.random() < 0.5 else smooth
    values = warp(ndimage.median_filter(hu, size=(1, 3, 3)), grid, target, field, outside=-1000.0)
    inside = ndimage.gaussian_filter(warp(lungs, grid, target, field), 0.7)
    still = DisplacementField(np.zeros((*target.shape, 3), np.float32), target)
    volume = warp(det, coarse, target, still, outside=1.0)
    air = np.clip((-100.0 - values) / 400.0, 0.0, 1.0) * inside
    values = -1000 + (values + 1000) * (1 + air * (volume ** float(rng.uniform(0.6, 1.0)) - 1))
    return Side(values.astype(np.float32), np.zeros(target.shape, np.uint8), target)


def make(data: Path, scan: str, out: Path, seed: int) -> None:
    """Write pair ``seed`` of one scan into ``out``; the folder appears when it is complete."""
    rng = np.random.default_rng([seed, 2211])
    volume = read_volume(data / f"{scan}.nii.gz")
    hu, grid = volume.array.astype(np.float32), volume.grid
    lungs = ndimage.binary_closing(segment_lungs(volume).mask, iterations=3)
    case = int(rng.choice([n for n in range(1, 11) if n not in real_motion_pairs.SHIPPED]))
    options = MotionOptions(
        diaphragm_mm=float(rng.normal(0, 5)),
        bumps=0,
        rotation_deg=float(abs(rng.normal(0, 2.5))),
        translation_mm=float(rng.uniform(0, 15)),
        minimum_det=0.3,
        real=real_motion_pairs.motion_of(data, case, backward=bool(rng.random() < 0.5)),
        real_mm=float(np.clip(np.exp(rng.normal(np.log(7.0), 0.5)), 2.0, 18.0)),
    )
    motion = draw_motion(lungs, grid, seed=seed, options=options)
    still = Side(hu.copy(), np.zeros(hu.shape, np.uint8), grid)
    other = moved(hu, lungs, grid, motion, rng)
    swapped = bool(rng.random() < 0.5)  # then the template is what moved
    reference, template = (still, other) if swapped else (other, still)
    maps, taken, rows = lung_maps(hu, lungs, grid), [], []
    for _ in range(int(rng.integers(LESIONS[0], LESIONS[1] + 1))):
        plan = draw_plan(rng)
        centre = find_place(rng, plan, maps, grid, taken)
        if centre is None:
            continue
        taken.append(centre)
        there = motion.inverse(centre)
        centres = (centre, there) if swapped else (there, centre)
        body, number = Body.draw(rng, max(plan.reference_mm, plan.template_mm)), len(rows) + 1
        grown_from = min(plan.reference_mm, plan.template_mm)
        volumes = [
            paint(side, number, body, plan, size, at, grown=0 < grown_from < size) if size else 0.0
            for side, size, at in zip(
                (reference, template), (plan.reference_mm, plan.template_mm), centres, strict=True
            )
        ]
        rows.append(_row(number, plan, centres, volumes))
    noise = [float(rng.uniform(6, 30)) for _ in range(2)]
    for side, sigma in zip((reference, template), noise, strict=True):
        extra = sigma if side is other else 0.3 * sigma  # the scan itself is noisy
        side.hu += scanner_noise(rng, side.hu, side.grid, extra)
    about = {
        "scan": scan,
        "seed": seed,
        "motion_case": case,
        "moved": "template" if swapped else "reference",
        "noise_hu": noise,
    }
    _write(out, reference, template, {"format": "independent-pair-1", **about, "lesions": rows})


def _row(number: int, plan: Plan, centres: tuple[FloatArray, ...], volumes: list[float]) -> dict[str, object]:
    told = {"id": number, **asdict(plan)}
    for name, centre, volume in zip(("reference", "template"), centres, volumes, strict=True):
        size = told.pop(f"{name}_mm")
        told[f"centre_{name}_mm"] = np.round(centre, 2).tolist()
        told[f"diameter_{name}_mm"] = size
        told[f"volume_{name}_ml"] = round(volume, 4)
    return told


def _write(out: Path, reference: Side, template: Side, truth: dict[str, object]) -> None:
    part = out.with_name(f".{out.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, side in (("reference", reference), ("template", template)):
        write_nrrd(part / f"{name}.nrrd", np.clip(np.rint(side.hu), -1024, 3071).astype(np.int16), side.grid)
        write_nrrd(part / f"lesions_{name}.nrrd", side.labels, side.grid)
    (part / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    part.rename(out)


def main() -> None:
    """Make the pairs that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scans", nargs="+", default=list(SCANS))
    arguments = parser.parse_args()
    for number in range(arguments.seed, arguments.seed + arguments.pairs):
        scan = arguments.scans[number % len(arguments.scans)]
        folder = arguments.out / f"{number:03d}_{scan.split('/')[-1].removesuffix('_ct').removesuffix('_full')}"
        if not (folder / "truth.json").exists():
            make(arguments.data, scan, folder, number)
        print(folder, flush=True)


if __name__ == "__main__":
    main()
