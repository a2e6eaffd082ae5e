"""Variational registration: minimise Eq. (1) of Kohlbrandt et al. 2024 from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.core.hu import REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.deformable.bspline import (
    ControlGrid,
    expand,
    refine_coefficients,
)
from ChangeMapJointLib.registration.deformable.change_weight import change_weight
from ChangeMapJointLib.registration.deformable.closed_form import fastest_terms
from ChangeMapJointLib.registration.deformable.lbfgs import minimise_lbfgs
from ChangeMapJointLib.registration.deformable.objective import Keypoints, KeypointTerm, Objective, Weights
from ChangeMapJointLib.registration.deformable.similarity import edge_parameter
from ChangeMapJointLib.registration.deformable.start import initial_coefficients, smooth_start
from ChangeMapJointLib.registration.deformable.surface_term import (
    DISTANCE_MM,
    OUTLIER_MM,
    SurfaceDistance,
    SurfaceTerm,
    lung_surface,
)
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid, working_spacing
from ChangeMapJointLib.scan.pair import ScanPair

FIRST_STEP_MM = 1.0  # largest change of a coefficient in the first iteration on a level
SHARP_MM = 2.5  # largest voxels with which the surface of the lungs counts in full
ENOUGH_KEYPOINTS = 500  # fewer count less: scans of 5 mm show few keypoints, and those poorly


@dataclass(frozen=True)
class RegistrationOptions:
    """Options of :func:`register_deformable`. The defaults were chosen on known motion and on real 4D CT.

    Attributes:
        iterations: L-BFGS iterations per level, coarsest first; their number is the number of levels.
        working_mm: voxel size of the finest level; the scan's own voxel size where that is coarser.
        control_mm: distance between control points on the finest level, at least two voxels; it doubles with every
            coarser level. It is wider than most nodules, so that their growth cannot be registered away.
        window_hu: intensities are clipped to this range before gradients are computed.
        edge_factor: factor on the NGF edge parameter that the 80 % quantile rule gives.
        change_hu: residual at which the weight of NGF falls to one half, from the second level on: tissue that changed
            has no match, see :mod:`~ChangeMapJointLib.registration.deformable.change_weight`. 0 switches it off.
        compiled: use the compiled kernels: Numba on the CPU, Triton on a GPU, where they are installed.
        margin_mm: margin around the lungs to which the scans are cropped.
        weights: the weights of the terms of Eq. (1).
        tolerance: a level ends when three iterations together lower Eq. (1) by less than this fraction.
    """

    iterations: tuple[int, ...] = (60, 40, 20)
    working_mm: float = 1.5
    control_mm: float = 12.0
    window_hu: tuple[float, float] = REGISTRATION_WINDOW_HU
    edge_factor: float = 0.25
    change_hu: float = 100.0
    compiled: bool = True
    margin_mm: float = MARGIN_MM
    weights: Weights = dataclass_field(default_factory=Weights)
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        low, high = self.window_hu
        require(
            self,
            iterations=(
                within(len(self.iterations), 1, 6) and all(within(n, 1, 10_000) for n in self.iterations),
                "1 to 6 numbers from 1 to 10000, one per level",
            ),
            working_mm=(within(self.working_mm, 0.3, 20.0), "0.3 to 20"),
            control_mm=(within(self.control_mm, 0.5, 200.0), "0.5 to 200"),
            window_hu=(within(low, -1100, high - 10) and within(high, low + 10, 4000), "low < high in HU"),
            edge_factor=(within(self.edge_factor, 1e-3, 100.0), "0.001 to 100"),
            change_hu=(within(self.change_hu, 0.0, 1e6), "0 to 1e6"),
            margin_mm=(within(self.margin_mm, 0.0, 200.0), "0 to 200"),
            tolerance=(within(self.tolerance, 0.0, 0.5), "0 to 0.5"),
        )


@dataclass(frozen=True)
class LevelReport:
    """What the optimisation did on one level.

    Attributes:
        spacing_mm: voxel size (x, y, z).
        evaluations: how often the objective was evaluated.
        terms_before: the terms of Eq. (1), not weighted, at the start of the level.
        terms_after: the same at its end.
    """

    spacing_mm: tuple[float, float, float]
    evaluations: int
    terms_before: dict[str, float]
    terms_after: dict[str, float]


@dataclass(frozen=True)
class Registration:
    """Result of :func:`register_deformable`.

    Attributes:
        field: u in mm on a grid that covers the whole reference; it includes the rigid part.
        rigid: 4x4, reference to template: the alignment that the optimisation started from.
        levels: one report per level, coarsest first.
        folding_percent: percentage of the reference's lung voxels with det grad y <= 0.
        status: one sentence; it says what to do when something did not go well.
    """

    field: DisplacementField
    rigid: FloatArray
    levels: tuple[LevelReport, ...]
    folding_percent: float
    status: str


def register_deformable(
    pair: ScanPair,
    *,
    start: DisplacementField | None = None,
    keypoints: Keypoints | None = None,
    options: RegistrationOptions = RegistrationOptions(),
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Registration:
    """Find y so that ``T(y(x))`` matches ``R(x)``, by minimising Eq. (1) from coarse to fine.

    Args:
        pair: R (current) and T (prior), both with lungs, and the rigid alignment to start from. y is defined on R's
            grid.
        start: a deformation that is close in the lungs already, such as the network's; the first level then starts
            from it instead of the rigid alignment.
        keypoints: correspondences for D_key; used when ``options.weights.keypoints`` > 0.
        options: levels, grids and weights.
        device: torch device; results on different devices agree to rounding.
        progress: called with the fraction done; raise from it to stop.

    Returns:
        The deformation and its figures. Where y folds in the lung, the finest level is optimised again with a larger
        weight of the volume term; ``folding_percent`` and ``status`` describe the final result.
    """
    rigid, lungs, grid = pair.rigid, pair.reference.mask, pair.reference.grid
    if start is not None:
        start = smooth_start(start, lungs, grid, rigid)
    levels = _levels(pair, options, device)
    surface = _LungSurfaces.of(levels, pair) if options.weights.surface else None
    ticks = _Ticks(
        progress,
        [
            float(np.prod(reference.grid.shape)) * n
            for (reference, _), n in zip(levels, options.iterations, strict=True)
        ],
    )
    reports: list[LevelReport] = []
    coefficients: Tensor | None = None
    previous: ControlGrid | None = None
    for number, ((reference, template), iterations) in enumerate(zip(levels, options.iterations, strict=True)):
        control = control_grid(reference.grid, options.control_mm * 2 ** (len(levels) - 1 - number))
        if coefficients is None or previous is None:
            coefficients = initial_coefficients(start, control, rigid, like=reference.image)
        else:
            coefficients = refine_coefficients(coefficients, previous, control)
        # on the first level without a start, every residual is motion
        change_hu = options.change_hu if number or start else 0.0
        unchanged = change_weight(reference, template, coefficients, control, rigid, change_hu=change_hu)
        weights = _level_weights(options.weights, keypoints, number, levels[-1])
        objective = _objective(reference, template, control, rigid, options, weights, keypoints, unchanged)
        if surface is not None:
            objective.surface = surface.term(control, rigid, outlier_mm=OUTLIER_MM * 2 ** (len(levels) - 1 - number))
        if objective.keypoints is not None and number:
            objective.keypoints.downweight_outliers(coefficients)
        coefficients, report = minimise(
            objective, coefficients, iterations, ticks.level(len(reports)), tolerance=options.tolerance
        )
        reports.append(report)
        previous = control
    assert coefficients is not None
    field, folding, more = _without_folding(pair, objective, coefficients, options, ticks.level(len(levels)))
    progress(1.0)
    return Registration(field, rigid, (*reports, *more), folding, _status(folding))


def _without_folding(
    pair: ScanPair, objective: Objective, coefficients: Tensor, options: RegistrationOptions, progress: Progress
) -> tuple[DisplacementField, float, list[LevelReport]]:
    """The deformation and its folding in percent; where it folds, optimise again with a larger volume weight."""
    lungs, grid, rigid, control = pair.reference.mask, pair.reference.grid, pair.rigid, objective.control
    reports: list[LevelReport] = []
    field = cover_reference(coefficients, control, rigid, grid, control.grid)
    folding = folding_percent(field, lungs, grid)
    for factor in (10.0, 100.0):
        if folding == 0.0:
            break
        weights = replace(objective.weights, volume=options.weights.volume * factor)
        # the keypoint term keeps the weights of its outliers
        objective = Objective(objective.data, control, weights, objective.keypoints, objective.surface, rigid=rigid)
        coefficients, report = minimise(
            objective, coefficients, options.iterations[-1], progress, tolerance=options.tolerance
        )
        reports.append(report)
        field = cover_reference(coefficients, control, rigid, grid, control.grid)
        folding = folding_percent(field, lungs, grid)
    return field, folding, reports


@dataclass(frozen=True)
class _LungSurfaces:
    """Points on the surface of R's lungs, and the distance to that of T's."""

    points_mm: FloatArray
    distance: SurfaceDistance

    @classmethod
    def of(cls, levels: list[tuple[ScanView, ScanView]], pair: ScanPair) -> _LungSurfaces | None:
        """Both from the coarsest level that is fine enough.

        Both from one level, so that equal scans have equal surfaces. None where a scan shows no surface, only lung.
        """
        fine = [views for views in levels if max(max(view.grid.spacing_mm) for view in views) <= DISTANCE_MM]
        reference, template = (lung_surface(view) for view in [*fine, levels[-1]][0])
        if not len(reference.voxels) or not len(template.voxels):
            return None
        usable = reference.measured(pair.reference.volume)
        usable &= template.facing_measured(apply_affine(pair.rigid, reference.points_mm), pair.template.volume)
        return cls(reference.clear_points(usable=usable), SurfaceDistance(template))

    def term(self, control: ControlGrid, rigid: FloatArray, *, outlier_mm: float) -> SurfaceTerm:
        return SurfaceTerm(self.points_mm, self.distance, control, rigid, outlier_mm=outlier_mm)


def _level_weights(
    weights: Weights, keypoints: Keypoints | None, level: int, finest: tuple[ScanView, ScanView]
) -> Weights:
    """The weights on a level (0 is the coarsest): matches are equally accurate on all, but images grow sharper.

    The surface of the lungs is known to a part of a voxel; in thick slices it counts little.
    """
    share = 4.0**-level * (min(len(keypoints.weight) / ENOUGH_KEYPOINTS, 1.0) if keypoints else 0.0)
    voxel_mm = max(max(view.grid.spacing_mm) for view in finest)
    sharp = min(1.0, SHARP_MM / voxel_mm) ** 2
    return replace(weights, keypoints=weights.keypoints * share, surface=weights.surface * sharp)


def _status(folding: float) -> str:
    if folding == 0.0:
        return "The deformation does not fold in the lung."
    return f"The deformation folds in {folding:.3f} % of the lung: raise weights.volume or weights.curvature."


def _levels(
    pair: ScanPair, options: RegistrationOptions, device: torch.device | str
) -> list[tuple[ScanView, ScanView]]:
    """Views of the reference and the template, one pair per level, coarsest first, at the same voxel sizes."""
    working = working_spacing(pair.reference.grid, pair.template.grid, options.working_mm)
    pyramids = [
        scan_pyramid(
            scan,
            margin_mm=options.margin_mm,
            working_mm=working,
            levels=len(options.iterations),
            window_hu=options.window_hu,
            device=device,
        )
        for scan in (pair.reference, pair.template)
    ]
    return list(zip(*pyramids, strict=True))


def _objective(
    reference: ScanView,
    template: ScanView,
    control: ControlGrid,
    rigid: FloatArray,
    options: RegistrationOptions,
    weights: Weights,
    keypoints: Keypoints | None,
    unchanged: Tensor,
) -> Objective:
    lungs = [view.mask > 0.5 for view in (reference, template)]
    edges = [
        options.edge_factor * edge_parameter(view.image, view.grid.spacing_mm, inside)
        for view, inside in zip((reference, template), lungs, strict=True)
    ]
    # only in the lungs: they slide along the ribs, which would hold them back
    weight = lungs[0].to(reference.image)
    terms = fastest_terms(reference.image.device, compiled=options.compiled)
    data = terms(
        reference, template, control, rigid, edges=(edges[0], edges[1]), weight=weight, change_weight=unchanged
    )
    keypoint_term = None
    if keypoints is not None and weights.keypoints > 0:
        keypoint_term = KeypointTerm(keypoints, control, rigid)
    return Objective(data, control, weights, keypoint_term, rigid=rigid)


def control_grid(grid: Grid, distance_mm: float) -> ControlGrid:
    """Control points over ``grid``, ``distance_mm`` apart but at least two voxels."""
    x, y, z = (max(distance_mm / h, 2.0) for h in grid.spacing_mm)
    return ControlGrid(grid, (x, y, z))


def minimise(
    objective: Objective, start: Tensor, iterations: int, progress: Progress = silent, *, tolerance: float = 0.0
) -> tuple[Tensor, LevelReport]:
    """Minimise ``objective`` by L-BFGS.

    Args:
        objective: value and gradient.
        start: coefficients ``[cz, cy, cx, 3]`` in mm.
        iterations: maximum number of iterations.
        progress: called with the fraction done.
        tolerance: stop when three iterations together lower the value by less than this fraction of it.

    Returns:
        The coefficients and a report. Where ``start`` is a minimum already, ``start`` itself.
    """
    history: list[dict[str, float]] = []
    lowest: tuple[float, dict[str, float]] | None = None

    def evaluate(x: Tensor) -> tuple[float, Tensor]:
        nonlocal lowest
        progress(min(len(history) / iterations, 1.0))
        value, gradient, terms = objective.evaluate(x)
        history.append(terms)
        if lowest is None or value <= lowest[0]:
            lowest = (value, terms)
        return value, gradient

    best = minimise_lbfgs(
        evaluate, start.detach(), iterations=iterations, first_step=FIRST_STEP_MM, tolerance=tolerance
    )
    assert lowest is not None
    return best, LevelReport(objective.control.grid.spacing_mm, len(history), history[0], lowest[1])


def cover_reference(
    coefficients: Tensor, control: ControlGrid, rigid: FloatArray, whole: Grid, finest: Grid
) -> DisplacementField:
    """The displacement field over the whole reference, including the rigid part.

    Args:
        coefficients: ``[cz, cy, cx, 3]`` in mm.
        control: their control grid, over the box around the lungs.
        rigid: 4x4 matrix A, added as ``(A - 1) x``.
        whole: the reference's own grid.
        finest: the grid of the finest level, which gives the voxel size of the result.

    Returns:
        u on ``whole`` where the voxel sizes agree, otherwise on a coarser grid that covers it. Beyond the box around
        the lungs, the displacement at its border is repeated.
    """
    same = np.allclose(finest.spacing_mm, whole.spacing_mm, rtol=1e-3)
    target = whole if same else whole.with_spacing(finest.spacing_mm)
    u = expand(coefficients, control.matrices(coefficients)).contiguous().cpu().numpy()
    return DisplacementField(u, control.grid).on(target, rigid)


def folding_percent(field: DisplacementField, lungs: NDArray[np.bool_], grid: Grid) -> float:
    """Percentage of the lung voxels (``lungs`` on ``grid``) with det grad y <= 0."""
    determinant = field.jacobian_determinant()
    inside = lungs if field.grid.same_as(grid) else resample(lungs, grid, field.grid) > 0.5
    return 100.0 * float((determinant[inside] <= 0).mean()) if inside.any() else 0.0


class _Ticks:
    """Progress over all levels, each weighted by its number of voxels times iterations."""

    def __init__(self, progress: Progress, work: list[float]) -> None:
        self.progress, self.ends = progress, np.concatenate([[0.0], np.cumsum(work) / np.sum(work)])

    def level(self, number: int) -> Progress:
        """The progress callback of one level; levels beyond the planned ones stay at the end."""
        low, high = (float(self.ends[min(n, len(self.ends) - 1)]) for n in (number, number + 1))

        def report(fraction: float, message: str = "") -> None:
            self.progress(low + fraction * (high - low), message or f"level {number + 1}")

        return report
