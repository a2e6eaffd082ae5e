"""The variational registration of Eq. (1), coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ChangeMapJointLib.core.choices import DEFAULT_PRESET, WORKING_MM
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.core.hu import REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import index_points, resample, sample
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, expand, interpolating, refine
from ChangeMapJointLib.registration.deformable.change_weight import change_weight
from ChangeMapJointLib.registration.deformable.closed_form import fastest_terms
from ChangeMapJointLib.registration.deformable.lbfgs import minimise_lbfgs
from ChangeMapJointLib.registration.deformable.objective import Keypoints, KeypointTerm, Objective, Weights
from ChangeMapJointLib.registration.deformable.similarity import edge_parameter
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid, working_spacing
from ChangeMapJointLib.scan.pair import ScanPair

FIRST_STEP_MM = 1.0  # of the first iteration on a level
START_MM = 12.0  # standard deviation of the smoothing of a given start: control points lie further apart at first
FAR = 0.02  # weight of the rigid map beside the lungs' share of a point's surroundings
ENOUGH_KEYPOINTS = 500  # fewer count less: scans of 5 mm show few, and those not well


@dataclass(frozen=True)
class RegistrationOptions:
    """Options of :func:`register`; the defaults were chosen on known motion and on real 4D CT.

    Attributes:
        iterations: L-BFGS iterations per level, coarsest first; its length is the number of levels.
        working_mm: voxel size of the finest level; the scan's own where that is coarser.
        control_mm: distance of control points on the finest level, at least two voxels; doubled per coarser level.
            Wider than most nodules, so that their growth cannot be registered away.
        window_hu: intensities are clipped to it before gradients are taken.
        edge_factor: the NGF edge parameter is this times the 80 % quantile rule.
        change_hu: residual at which NGF counts half, from the second level on: what changed has no partner, see
            :mod:`~ChangeMapJointLib.registration.deformable.change_weight`. 0 switches it off.
        compiled: use the compiled kernels, on the CPU where Numba is installed, on a GPU where Triton is.
        margin_mm: kept round the lungs when the scans are cut out.
        weights: the betas of Eq. (1).
        tolerance: a level ends when three iterations together lowered Eq. (1) by less than this part of it.
    """

    iterations: tuple[int, ...] = (60, 40, 20)
    working_mm: float = WORKING_MM[DEFAULT_PRESET]
    control_mm: float = 12.0
    window_hu: tuple[float, float] = REGISTRATION_WINDOW_HU
    edge_factor: float = 0.25
    change_hu: float = 100.0
    compiled: bool = True
    margin_mm: float = MARGIN_MM
    weights: Weights = field(default_factory=Weights)
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        low, high = self.window_hu
        require(
            self,
            iterations=(
                within(len(self.iterations), 1, 6) and all(within(n, 1, 10_000) for n in self.iterations),
                "1 to 6 numbers from 1 to 10000, one a level",
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
    """What happened on one level: voxel size, effort, and the unweighted terms before and after."""

    spacing_mm: tuple[float, float, float]
    evaluations: int
    terms_before: dict[str, float]
    terms_after: dict[str, float]


@dataclass(frozen=True)
class Registration:
    """Result of :func:`register`.

    Attributes:
        field: u in mm on a grid that covers the whole reference; the rigid part is included.
        rigid: 4x4, reference to template: what the optimisation started from.
        levels: one report a level, coarsest first.
        folding_percent: share of the reference's lung voxels with det grad y <= 0.
        status: a sentence; says what to do when something did not go well.
    """

    field: DisplacementField
    rigid: FloatArray
    levels: tuple[LevelReport, ...]
    folding_percent: float
    status: str


def register(
    pair: ScanPair,
    *,
    start: DisplacementField | None = None,
    keypoints: Keypoints | None = None,
    options: RegistrationOptions = RegistrationOptions(),
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Registration:
    """Find y so that ``T(y(x))`` is like ``R(x)``, by minimising Eq. (1) from coarse to fine.

    Args:
        pair: R (current), whose grid is where y lives, and T (prior), both with lungs, and the rigid motion to start
            from.
        start: a y that is near already in the lungs, such as the network's; the first level starts from it instead.
        keypoints: correspondences for D_key; they count when ``options.weights.keypoints`` > 0.
        options: levels, grids and weights.
        device: torch device; the result is the same within rounding.
        progress: told the fraction done; raise from it to stop.

    Returns:
        The displacement with its figures. Where y folds in the lung, the finest level is solved again
        with a heavier volume term; ``folding_percent`` and ``status`` say how it ended.
    """
    affine, lungs, whole = pair.rigid, pair.reference.mask, pair.reference.grid
    if start is not None:
        start = smooth_start(start, lungs, whole, affine)
    levels = _levels(pair, options, device)
    ticks = _Ticks(
        progress, [float(np.prod(r.grid.shape)) * n for (r, _), n in zip(levels, options.iterations, strict=True)]
    )
    reports: list[LevelReport] = []
    coefficients: Tensor | None = None
    previous: ControlGrid | None = None
    for number, ((r, t), iterations) in enumerate(zip(levels, options.iterations, strict=True)):
        control = control_grid(r.grid, options.control_mm * 2 ** (len(levels) - 1 - number))
        if coefficients is None or previous is None:
            coefficients = starting_from(start, control, affine, like=r.image)
        else:
            coefficients = refine(coefficients, previous, control)
        change_hu = options.change_hu if number or start else 0.0  # without a start every residual is motion at first
        partner = change_weight(r, t, coefficients, control, affine, change_hu=change_hu)
        # what a match is worth stays the same in mm, what the images say becomes finer
        believed = 4.0**-number * (min(len(keypoints.weight) / ENOUGH_KEYPOINTS, 1.0) if keypoints else 0.0)
        weights = replace(options.weights, keypoints=options.weights.keypoints * believed)
        objective = _objective(r, t, control, affine, options, weights, keypoints, partner)
        if objective.keypoints is not None and number:
            objective.keypoints.downweight_outliers(coefficients)
        coefficients, report = minimise(
            objective, coefficients, iterations, ticks.level(len(reports)), tolerance=options.tolerance
        )
        reports.append(report)
        previous = control
    assert coefficients is not None
    u = cover_reference(coefficients, control, affine, whole, levels[-1][0].grid)
    folding = folding_percent(u, lungs, whole)
    for factor in (10.0, 100.0):
        if folding == 0.0:
            break
        weights = replace(weights, volume=options.weights.volume * factor)
        # the same terms: what was doubted of the keypoints stays doubted
        objective = Objective(objective.data, control, weights, objective.keypoints, rigid=affine)
        coefficients, report = minimise(
            objective, coefficients, options.iterations[-1], ticks.level(len(levels)), tolerance=options.tolerance
        )
        reports.append(report)
        u = cover_reference(coefficients, control, affine, whole, r.grid)
        folding = folding_percent(u, lungs, whole)
    progress(1.0)
    return Registration(u, affine, tuple(reports), folding, _status(folding))


def _status(folding: float) -> str:
    if folding == 0.0:
        return "The deformation does not fold in the lung."
    return f"The deformation folds in {folding:.3f} % of the lung: raise weights.volume or weights.curvature."


def _levels(
    pair: ScanPair, options: RegistrationOptions, device: torch.device | str
) -> list[tuple[ScanView, ScanView]]:
    """Both pyramids, coarsest first, at the same voxel sizes."""
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
    r: ScanView,
    t: ScanView,
    control: ControlGrid,
    rigid: FloatArray,
    options: RegistrationOptions,
    weights: Weights,
    keypoints: Keypoints | None,
    partner: Tensor,
) -> Objective:
    lungs = [p.mask > 0.5 for p in (r, t)]
    edge_r, edge_t = (
        options.edge_factor * edge_parameter(p.image, p.grid.spacing_mm, inside)
        for p, inside in zip((r, t), lungs, strict=True)
    )
    # in the lungs alone: the ribs, on which they slide, would hold them back
    weight = lungs[0].to(r.image)
    terms = fastest_terms(r.image.device, compiled=options.compiled)
    data = terms(r, t, control, rigid, edges=(edge_r, edge_t), weight=weight, partner=partner)
    pull = None
    if keypoints is not None and weights.keypoints > 0:
        pull = KeypointTerm(keypoints, control, rigid)
    return Objective(data, control, weights, pull, rigid=rigid)


def smooth_start(
    field: DisplacementField, lungs: NDArray[np.bool_], grid: Grid, rigid: FloatArray
) -> DisplacementField:
    """What ``field`` says in the lungs, smoothed, and carried on beyond them; far away ``rigid``.

    The data terms count in the lungs alone: what a network says of the ribs would stay, and T's lungs would lie where
    they do not belong.

    Args:
        field: y, rigid part included.
        lungs: bool ``[z, y, x]``, where it is believed.
        grid: of the lungs.
        rigid: 4x4, reference to template.
    """
    coarse = grid.with_spacing((START_MM / 2,) * 3)
    believed = resample(gaussian_filter(lungs.astype(np.float32), _sigma(START_MM / 4, grid)), grid, coarse)
    points = coarse.to_physical(np.indices(coarse.shape)[::-1].reshape(3, -1).T.astype(float))
    added = (field.apply(points) - apply_affine(rigid, points)).reshape(*coarse.shape, 3)
    sigma = _sigma(START_MM, coarse)
    weight = gaussian_filter(believed, sigma)
    smooth = [gaussian_filter(added[..., c] * believed, sigma) / (weight + FAR) for c in range(3)]
    moved = apply_affine(rigid, points) - points
    return DisplacementField((np.stack(smooth, -1) + moved.reshape(*coarse.shape, 3)).astype(np.float32), coarse)


def _sigma(mm: float, grid: Grid) -> list[float]:
    return [mm / h for h in grid.spacing_mm[::-1]]


def starting_from(field: DisplacementField | None, control: ControlGrid, rigid: FloatArray, *, like: Tensor) -> Tensor:
    """Coefficients of the displacement that ``field`` adds to ``rigid``, exact at the control points.

    Args:
        field: y, rigid part included; None: ``rigid`` alone.
        control: where coefficients are wanted.
        rigid: 4x4, reference to template.
        like: gives precision and device.

    Returns:
        ``[cz, cy, cx, 3]`` in mm.
    """
    if field is None:
        return like.new_zeros((*control.shape, 3))
    grid = control.positions()
    index = field.grid.to_index(index_points(grid, grid.affine).numpy().reshape(-1, 3))
    points = field.grid.to_physical(np.clip(index, 0, np.array(field.grid.size) - 1))  # beyond it, its border
    values = field.apply(points) - apply_affine(rigid, points)
    return interpolating(torch.as_tensor(values).reshape(*control.shape, 3)).to(like)


def control_grid(grid: Grid, distance_mm: float) -> ControlGrid:
    """Control points over ``grid`` every ``distance_mm``, but not closer than two voxels."""
    x, y, z = (max(distance_mm / h, 2.0) for h in grid.spacing_mm)
    return ControlGrid(grid, (x, y, z))


def minimise(
    objective: Objective, start: Tensor, iterations: int, progress: Progress = silent, *, tolerance: float = 0.0
) -> tuple[Tensor, LevelReport]:
    """L-BFGS from ``start``; it ends early where the last iterations gained next to nothing.

    Returns:
        The coefficients and what happened. An objective that is already minimal returns ``start``.
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
    """The displacement of the whole reference, rigid part included.

    Args:
        coefficients: ``[cz, cy, cx, 3]`` in mm.
        control: their control grid, over the box round the lungs.
        rigid: 4x4, added as ``(A - 1) x``.
        whole: the reference's own grid.
        finest: the grid of the finest level; its voxel size is that of the result, unless it is the
            reference's own.

    Returns:
        u on ``whole`` where the voxel sizes agree, otherwise on a coarser grid that covers it. Beyond
        the box round the lungs the border displacement is repeated.
    """
    same = np.allclose(finest.spacing_mm, whole.spacing_mm, rtol=1e-3)
    target = whole if same else whole.with_spacing(finest.spacing_mm)
    u = expand(coefficients, control.matrices(coefficients)).movedim(-1, 0)
    result = np.empty((*target.shape, 3), dtype=np.float32)
    for z in range(0, target.shape[0], 16):
        slab = slice(z, z + 16)
        points = index_points(target, target.affine, slab, like=u)
        moved = sample(u, points, control.grid).movedim(0, -1)
        moved += index_points(target, (rigid - np.eye(4)) @ target.affine, slab, like=u)
        result[slab] = moved.cpu().numpy()
    return DisplacementField(result, target)


def folding_percent(u: DisplacementField, lungs: NDArray[np.bool_], grid: Grid) -> float:
    """Share of the lung voxels (``lungs`` on ``grid``) at which det grad y <= 0, in percent."""
    determinant = u.jacobian_determinant()
    inside = lungs if u.grid.same_as(grid) else resample(lungs, grid, u.grid) > 0.5
    return 100.0 * float((determinant[inside] <= 0).mean()) if inside.any() else 0.0


class _Ticks:
    """Progress of the levels, each weighted by its voxels times its iterations."""

    def __init__(self, progress: Progress, work: list[float]) -> None:
        self.progress, self.ends = progress, np.concatenate([[0.0], np.cumsum(work) / np.sum(work)])

    def level(self, number: int) -> Progress:
        """A progress for one level; levels beyond the plan stay at the end."""
        low, high = (float(self.ends[min(n, len(self.ends) - 1)]) for n in (number, number + 1))

        def report(fraction: float, message: str = "") -> None:
            self.progress(low + fraction * (high - low), message or f"level {number + 1}")

        return report
