"""Synthesis of a pair with known motion and known change from one real scan.

The template (prior) is the scan itself with the lesions in their earlier sizes. The reference (current) is the same
scan deformed by a known motion, with lung density scaled to the local volume, the lesions in their later sizes, and new
noise. A lesion lies at x in the reference and at y(x) in the template. The tissue around it moves rigidly, as around a
real nodule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, label

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.core.hu import LOWEST_HU, VESSEL_HU
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.acquisition import (
    SimulatedScan,
    apply_kernel,
    denoise,
    measured_noise_hu,
    move_scan,
    reference_grid,
    resample_scan,
    scan_noise,
)
from ChangeMapJointLib.synthesis.breathing import BreathingMotion, as_vector
from ChangeMapJointLib.synthesis.lesions import CutTexture, SyntheticLesion, Texture, paint_lesion
from ChangeMapJointLib.synthesis.motion import MotionOptions, draw_motion
from ChangeMapJointLib.synthesis.shapes import LesionShape, draw_shape
from ChangeMapJointLib.synthesis.sites import Place, Side, Site, closed_lungs, find_sites, lung_maps
from ChangeMapJointLib.synthesis.sliding import sliding_field
from ChangeMapJointLib.synthesis.truth import ChangeKind, Correspondences, TrueChange, check_kind

STIFF_MARGIN_MM = 2.0  # width of the tissue around a lesion that moves with it
PLEURAL_RIM = 1  # voxels of partial volume at the lungs' surface that a pleural lesion also fills


@dataclass(frozen=True)
class LesionPlan:
    """Specification of one lesion.

    Attributes:
        kind: new, grown, shrunk, resolved or stable.
        diameter_reference_mm: diameter of the sphere with its volume in the current scan; 0: absent.
        diameter_template_mm: the same in the prior scan.
        texture: solid, part-solid or ground-glass.
        place: free in the lung, beside a vessel, or on the pleura.
        side: left or right lung; None: either.
        spiculated: with spicules.
        shape: such as that of a real nodule; None: random.
        eroded: make the smaller size by erosion of the larger; otherwise the outline is scaled.
        cut: tissue of a lesion cut from a CT, whose outline is ``shape``; None: paint ``texture``.
    """

    kind: ChangeKind
    diameter_reference_mm: float
    diameter_template_mm: float
    texture: Texture = "solid"
    place: Place = "free"
    side: Side | None = None
    spiculated: bool = False
    shape: LesionShape | None = None
    eroded: bool = False
    cut: CutTexture | None = None

    def __post_init__(self) -> None:
        check_kind(self.kind, self.diameter_reference_mm, self.diameter_template_mm)

    @property
    def largest_mm(self) -> float:
        """The larger of the two diameters."""
        return max(self.diameter_reference_mm, self.diameter_template_mm)

    @property
    def ratio(self) -> float:
        """Ratio of the larger to the smaller diameter; 1 where the lesion is absent from one scan."""
        smaller = min(self.diameter_reference_mm, self.diameter_template_mm)
        return self.largest_mm / smaller if smaller > 0 else 1.0


@dataclass(frozen=True)
class PairOptions:
    """Properties of one synthetic pair.

    Attributes:
        motion: size of the motion from reference to template.
        sliding: how far the lungs slide along the ribs, from 0 (not at all) to 1 (fully); see
            :func:`~ChangeMapJointLib.synthesis.sliding.sliding_field`.
        lesions: the lesions to insert.
        reference_spacing_mm: of the reference (x, y, z); None: the scan's own.
        template_spacing_mm: of the template; None: the scan's own voxels, without interpolation.
        reference_margin_mm: margin of the field of view around the lungs (x, y, z), on either side.
        template_margin_mm: the same; None: the whole scan.
        density: scale lung density to the local volume.
        denoise: remove the scan's own noise before the reference gets new noise.
        reference_noise_hu: standard deviation of the reference's noise.
        template_noise_hu: noise added to the template's own.
        noise_width_mm: correlation length of the noise, as the standard deviation of a Gaussian.
        reference_kernel: reconstruction kernel: above 0 the strength of sharpening, below 0 minus the standard
            deviation of smoothing in mm; see :func:`~ChangeMapJointLib.synthesis.acquisition.apply_kernel`.
        template_kernel: the same for the template.
        ground_glass_hu: range of the increase in HU of aerated lung by ground glass; the lowest of pale ground glass is
            about 100.
        points: number of true correspondences, one third of them on vessels.
    """

    motion: MotionOptions = field(default_factory=MotionOptions)
    sliding: float = 0.0
    lesions: tuple[LesionPlan, ...] = ()
    reference_spacing_mm: Vector3 | None = None
    template_spacing_mm: Vector3 | None = None
    reference_margin_mm: Vector3 = (18.0, 18.0, 18.0)
    template_margin_mm: Vector3 | None = None
    density: bool = True
    denoise: bool = True
    reference_noise_hu: float = 18.0
    template_noise_hu: float = 0.0
    noise_width_mm: float = 0.9
    reference_kernel: float = 0.0
    template_kernel: float = 0.0
    ground_glass_hu: tuple[float, float] = (280.0, 380.0)
    points: int = 600


@dataclass(frozen=True)
class KnownPair:
    """A synthetic pair with its truth.

    Attributes:
        reference: the current scan, int16 HU.
        template: the prior scan, int16 HU.
        motion: y, from reference to template; with sliding it holds inside the lungs only.
        sliding: how far the lungs slide along the ribs.
        changes: all lesions, stable ones included.
        points: true correspondences in the lungs.
        lungs_reference: bool ``[z, y, x]`` on the reference's grid.
        lungs_template: the same on the template's.
        lesions_reference: L^R, uint16 ``[z, y, x]``, the change's id in each voxel.
        lesions_template: L^T on the template's grid.
    """

    reference: Volume
    template: Volume
    motion: BreathingMotion
    sliding: float
    changes: tuple[TrueChange, ...]
    points: Correspondences
    lungs_reference: NDArray[np.bool_]
    lungs_template: NDArray[np.bool_]
    lesions_reference: NDArray[np.uint16]
    lesions_template: NDArray[np.uint16]

    def field(self, grid: Grid | None = None) -> DisplacementField:
        """The true u on ``grid``, the reference's own by default."""
        grid = grid or self.reference.grid
        return sliding_field(self.motion, grid, self.lungs_template, self.template.grid, fraction=self.sliding)


@dataclass(frozen=True)
class _Planted:
    """A lesion with its specification and its position in the template."""

    id: int
    plan: LesionPlan
    lesion: SyntheticLesion | None  # None: one of the patient's own lesions, not painted
    centre_mm: FloatArray
    radius_mm: float


def make_pair(
    volume: Volume,
    lungs_mask: NDArray[np.bool_],
    *,
    seed: int,
    options: PairOptions | None = None,
    own_lesions: NDArray[np.bool_] | None = None,
) -> KnownPair:
    """Make a pair with known truth from one scan.

    Args:
        volume: a chest CT, at the finest resolution available.
        lungs_mask: its lungs, bool ``[z, y, x]``; a threshold mask is enough.
        seed: of all random choices.
        options: properties of the pair.
        own_lesions: the patient's own lesions, bool ``[z, y, x]``; they become stable ones.

    Raises:
        InputError: a mask does not fit the scan, or a lesion fits nowhere.
    """
    options = options or PairOptions()
    for name, mask in (("lungs_mask", lungs_mask), ("own_lesions", own_lesions)):
        if mask is not None and mask.shape != volume.array.shape:
            raise InputError(f"found shape {mask.shape}", field=name, expected=f"the scan's {volume.array.shape}")
    site_rng, paint_rng, noise_rng, point_rng = np.random.default_rng(seed).spawn(4)
    own_labels, _ = label(
        np.zeros(volume.array.shape, bool) if own_lesions is None else own_lesions, np.ones((3, 3, 3))
    )
    source = SimulatedScan(
        volume.array.astype(np.float32), closed_lungs(lungs_mask, volume.grid), own_labels.astype(np.int32), volume.grid
    )

    own = _own_lesions(source)
    planted = _plant(source, own, options, site_rng)
    motion = draw_motion(source.lungs, source.grid, seed=seed, options=options.motion)
    if planted:
        centres, radii = np.array([p.centre_mm for p in planted]), np.array([p.radius_mm for p in planted])
        motion = motion.stiffened(centres, radii + STIFF_MARGIN_MM, options.motion.minimum_det)

    template = _make_template(source, planted, options, paint_rng, noise_rng)
    reference = _make_reference(source, planted, motion, options, paint_rng, noise_rng)
    return KnownPair(
        reference=_volume(reference, volume),
        template=_volume(template, volume),
        motion=motion,
        sliding=options.sliding,
        changes=tuple(_true_change(p, motion, reference, template) for p in planted),
        points=_correspondences(source, motion, options.points, point_rng),
        lungs_reference=reference.lungs,
        lungs_template=template.lungs,
        lesions_reference=reference.lesions.astype(np.uint16),
        lesions_template=template.lesions.astype(np.uint16),
    )


def _make_template(
    source: SimulatedScan,
    planted: Sequence[_Planted],
    options: PairOptions,
    paint_rng: np.random.Generator,
    noise_rng: np.random.Generator,
) -> SimulatedScan:
    template = resample_scan(source, spacing_mm=options.template_spacing_mm, margin_mm=options.template_margin_mm)
    width = options.noise_width_mm
    template.hu[...] += scan_noise(noise_rng, template.grid, sigma_hu=options.template_noise_hu, width_mm=width)
    painted = _painted(template, planted, paint_rng, noise_hu=measured_noise_hu(template.hu))
    return replace(painted, hu=apply_kernel(painted.hu, painted.grid, options.template_kernel))


def _make_reference(
    source: SimulatedScan,
    planted: Sequence[_Planted],
    motion: BreathingMotion,
    options: PairOptions,
    paint_rng: np.random.Generator,
    noise_rng: np.random.Generator,
) -> SimulatedScan:
    clean = replace(source, hu=denoise(source.hu, source.grid)) if options.denoise else source
    spacing, margin = options.reference_spacing_mm, options.reference_margin_mm
    grid = reference_grid(source, motion, spacing_mm=spacing, margin_mm=margin)
    moved = move_scan(clean, motion, grid, density=options.density, sliding=options.sliding)
    reference = _painted(moved, planted, paint_rng, motion=motion)
    width = options.noise_width_mm
    reference.hu[...] += scan_noise(noise_rng, grid, sigma_hu=options.reference_noise_hu, width_mm=width)
    return replace(reference, hu=apply_kernel(reference.hu, grid, options.reference_kernel))


def _own_lesions(source: SimulatedScan) -> list[_Planted]:
    """The patient's own lesions, labelled in ``source.lesions``, as stable lesions."""
    own = []
    for number in range(1, int(source.lesions.max()) + 1):
        points = source.grid.to_physical(np.argwhere(source.lesions == number)[:, ::-1])
        centre = points.mean(0)
        radius = float(np.linalg.norm(points - centre, axis=1).max())
        volume_mm3 = len(points) * source.grid.voxel_volume_ml * 1000
        diameter = round(float((6 * volume_mm3 / np.pi) ** (1 / 3)), 2)
        side: Side = (
            "left" if centre[0] > source.grid.to_physical(np.argwhere(source.lungs)[:, ::-1])[:, 0].mean() else "right"
        )
        own.append(_Planted(number, LesionPlan("stable", diameter, diameter, side=side), None, centre, radius))
    return own


def _plant(
    source: SimulatedScan, own: Sequence[_Planted], options: PairOptions, rng: np.random.Generator
) -> list[_Planted]:
    """The patient's own lesions and the new ones, each with its position in the template."""
    drawn = []
    palest, densest = options.ground_glass_hu
    for plan in options.lesions:
        shape = plan.shape or draw_shape(rng, spiculated=plan.spiculated)
        solid, glass, softness = (float(v) for v in rng.uniform((25.0, palest, 0.9), (60.0, densest, 1.35)))
        if plan.eroded and not shape.full_mm:
            shape = replace(shape, full_mm=plan.largest_mm)
        drawn.append(SyntheticLesion(shape, plan.texture, solid, glass, softness=softness, cut=plan.cut))
    radii = [lesion.shape.radius_mm(plan.largest_mm) for plan, lesion in zip(options.lesions, drawn, strict=True)]
    sites = [Site(plan.largest_mm / 2, plan.place, plan.side) for plan in options.lesions]
    occupied = [(p.centre_mm, p.radius_mm) for p in own]
    maps = lung_maps(source.hu, source.lungs, source.grid)
    centres = find_sites(maps, sites, rng=rng, occupied=occupied) if sites else []
    return [
        *own,
        *(
            _Planted(len(own) + 1 + n, plan, lesion, centre, radius)
            for n, (plan, lesion, centre, radius) in enumerate(zip(options.lesions, drawn, centres, radii, strict=True))
        ),
    ]


def _painted(
    scan: SimulatedScan,
    planted: Sequence[_Planted],
    rng: np.random.Generator,
    *,
    noise_hu: float = 0.0,
    motion: BreathingMotion | None = None,
) -> SimulatedScan:
    """Paint the lesions into ``scan``: the reference if ``motion`` is given, otherwise the template."""
    inside = binary_dilation(scan.lungs, iterations=PLEURAL_RIM)
    lesions = scan.lesions.copy()
    for p in planted:
        if p.lesion is None:
            continue
        lesion, centre, diameter = p.lesion, p.centre_mm, p.plan.diameter_template_mm
        if motion is not None:
            back = np.asarray(motion.rotation).T
            lesion, centre = lesion.turned(back), motion.inverse(centre)
            diameter = p.plan.diameter_reference_mm
        support = paint_lesion(
            scan.hu, scan.grid, lesion, centre_mm=centre, diameter_mm=diameter, lungs=inside, rng=rng, noise_hu=noise_hu
        )
        lesions[support] = p.id
    return replace(scan, lesions=lesions)


def _true_change(p: _Planted, motion: BreathingMotion, reference: SimulatedScan, template: SimulatedScan) -> TrueChange:
    shape = None if p.lesion is None else p.lesion.shape.turned(np.asarray(motion.rotation).T)
    return TrueChange(
        id=p.id,
        kind=p.plan.kind,
        centre_reference_mm=as_vector(np.round(motion.inverse(p.centre_mm), 3)),
        centre_template_mm=as_vector(np.round(p.centre_mm, 3)),
        diameter_reference_mm=p.plan.diameter_reference_mm,
        diameter_template_mm=p.plan.diameter_template_mm,
        volume_reference_ml=round(float((reference.lesions == p.id).sum()) * reference.grid.voxel_volume_ml, 4),
        volume_template_ml=round(float((template.lesions == p.id).sum()) * template.grid.voxel_volume_ml, 4),
        texture=p.plan.texture,
        place="" if p.lesion is None else p.plan.place,
        side=p.plan.side or "",
        inserted=p.lesion is not None,
        cut=p.plan.cut is not None,
        shape=shape,
    )


def _correspondences(
    source: SimulatedScan, motion: BreathingMotion, count: int, rng: np.random.Generator
) -> Correspondences:
    """Random points inside the template's lungs, a third of them on vessels, with their reference positions."""
    inner = binary_erosion(source.lungs, iterations=2)
    vessels = np.argwhere(inner & (source.hu > VESSEL_HU) & (source.lesions == 0))
    anywhere = np.argwhere(inner)
    if len(anywhere) == 0:
        raise InputError(
            "found no lung tissue two voxels below the surface",
            field="lungs_mask",
            expected="the lungs",
            remedy="check the mask",
        )
    on_vessels = count // 3 if len(vessels) else 0
    parts = [vessels[rng.integers(len(vessels), size=on_vessels)]] if on_vessels else []
    parts.append(anywhere[rng.integers(len(anywhere), size=count - on_vessels)])
    index = np.concatenate(parts)[:, ::-1] + rng.uniform(-0.5, 0.5, size=(count, 3))
    template = np.round(source.grid.to_physical(index), 3)
    return Correspondences(np.round(motion.inverse(template), 3), template, np.arange(count) < on_vessels)


def _volume(scan: SimulatedScan, source: Volume) -> Volume:
    array = np.clip(np.rint(scan.hu), LOWEST_HU, 32767).astype(np.int16)
    return Volume(array, scan.grid, source.source, source.acquisition)
