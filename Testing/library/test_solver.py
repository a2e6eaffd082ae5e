"""Registration recovers known motion in mm; equal scans stay where they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from autograd_terms import AutogradData
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.errors import Cancelled
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.registration.deformable import register as solver
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid
from ChangeMapJointLib.registration.deformable.objective import Keypoints, KeypointTerm, Objective, Weights
from ChangeMapJointLib.registration.deformable.register import (
    RegistrationOptions,
    folding_percent,
    minimise,
    register_deformable,
)
from ChangeMapJointLib.registration.pyramid import scan_pyramid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

FAST = RegistrationOptions(iterations=(40, 25, 12), working_mm=2.0, margin_mm=8.0)
SHAPE = (44, 48, 52)
PERMUTED = ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))


def lung_like(grid: Grid, seed: int = 0) -> tuple[Volume, np.ndarray]:
    """An ellipsoid of lung with vessels-like blobs in soft tissue; the picture is smooth over 2 voxels."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid.shape], indexing="ij")
    inside = (x / 0.75) ** 2 + (y / 0.75) ** 2 + (z / 0.75) ** 2 < 1
    blobs = ndimage.gaussian_filter(rng.normal(size=grid.shape), 1.5)
    hu = np.where(inside, np.where(blobs > 1.3 * blobs.std(), 0.0, -850.0), 40.0)
    hu = ndimage.gaussian_filter(hu, 0.8) + rng.normal(0, 10, grid.shape)
    return Volume(hu.astype(np.float32), grid), inside


def bump(grid: Grid, size_mm: float) -> DisplacementField:
    """A smooth motion of up to ``size_mm`` along a skew direction, largest in the middle."""
    points = index_points(grid, grid.affine).numpy() - np.asarray(grid.centre_mm)
    weight = np.exp(-((points / 35.0) ** 2).sum(-1))
    return DisplacementField((weight[..., None] * np.array([0.4, -0.5, 0.77]) * size_mm).astype(np.float32), grid)


def moved_pair(grid: Grid, size_mm: float) -> tuple[Volume, Volume, np.ndarray, np.ndarray, DisplacementField]:
    """R = T(y) for a known y; and both masks."""
    template, lungs = lung_like(grid)
    y = bump(grid, size_mm)
    reference = Volume(warp(template.array, grid, grid, y, outside=40.0), grid)
    return reference, template, warp(lungs, grid, grid, y) > 0.5, lungs, y


@pytest.mark.parametrize(
    "grid",
    [
        Grid(SHAPE, (2.0, 2.0, 2.0), (-50.0, 40.0, 900.0)),
        Grid(SHAPE, (2.0, 2.0, 2.0), (10.0, 5.0, -300.0), PERMUTED),
        Grid((24, 48, 52), (2.0, 2.0, 4.0)),
    ],
    ids=["straight", "permuted axes", "thick slices"],
)
def test_known_motion_is_recovered(grid: Grid) -> None:
    reference, template, lungs_r, lungs_t, y = moved_pair(grid, 9.0)
    result = register_deformable(ScanPair.of(reference, template, lungs_r, lungs_t), options=FAST)
    inner = ndimage.binary_erosion(lungs_r, iterations=2)
    error = np.linalg.norm(result.field.vectors_mm - y.vectors_mm, axis=-1)[inner]
    before = np.linalg.norm(y.vectors_mm, axis=-1)[inner]
    assert before.mean() > 4.0
    assert error.mean() < 0.5
    assert np.percentile(error, 95) < 1.2
    assert result.folding_percent == 0.0
    assert result.field.grid.same_as(grid)
    assert all(np.diff([level.spacing_mm[0] for level in result.levels]) < 0)


def test_torch_and_the_compiled_kernels_agree() -> None:
    grid = Grid(SHAPE, (2.0, 2.0, 2.0))
    reference, template, lungs_r, lungs_t, _ = moved_pair(grid, 6.0)
    fields = [
        register_deformable(
            ScanPair.of(reference, template, lungs_r, lungs_t), options=replace(FAST, compiled=compiled)
        ).field.vectors_mm
        for compiled in (True, False)
    ]
    assert np.linalg.norm(fields[0] - fields[1], axis=-1)[lungs_r].mean() < 0.02


def test_equal_scans_are_not_moved() -> None:
    volume, lungs = lung_like(Grid(SHAPE, (2.0, 2.0, 2.0)))
    result = register_deformable(ScanPair.of(volume, volume, lungs, lungs), options=FAST)
    assert np.abs(result.field.vectors_mm).max() < 0.01


def test_rigid_start_is_part_of_the_field() -> None:
    """The template lies 300 mm away; the rigid part bridges that, and u contains it."""
    grid = Grid(SHAPE, (2.0, 2.0, 2.0))
    volume, lungs = lung_like(grid)
    far = Volume(volume.array, Grid(SHAPE, (2.0, 2.0, 2.0), (300.0, 0.0, 0.0)))
    rigid = np.eye(4)
    rigid[0, 3] = 300.0
    result = register_deformable(ScanPair.of(volume, far, lungs, lungs, rigid=rigid), options=FAST)
    assert result.field.vectors_mm.reshape(-1, 3).mean(0) == pytest.approx([300.0, 0.0, 0.0], abs=0.05)


def test_field_covers_a_finer_reference() -> None:
    """Voxels finer than the working size: the field is coarser and reaches over the whole scan."""
    grid = Grid((66, 72, 78), (1.0, 1.0, 1.0), (5.0, 6.0, 7.0))
    reference, template, lungs_r, lungs_t, y = moved_pair(grid, 5.0)
    result = register_deformable(ScanPair.of(reference, template, lungs_r, lungs_t), options=FAST)
    assert result.field.grid.spacing_mm == (2.0, 2.0, 2.0)
    assert result.field.grid.extent_mm == pytest.approx(grid.extent_mm)
    points = grid.to_physical(np.argwhere(ndimage.binary_erosion(lungs_r, iterations=4))[::50, ::-1])
    assert np.linalg.norm(result.field.at(points) - y.at(points), axis=1).mean() < 0.5


def test_gradient_of_the_whole_objective() -> None:
    """Eq. (1) with all its terms, in float64, against differences."""
    grid = Grid((9, 10, 11), (2.0, 1.5, 3.0), (4.0, 5.0, 6.0), PERMUTED)
    reference, template, lungs_r, lungs_t, _ = moved_pair(grid, 4.0)
    pictures = []
    for volume, lungs in ((reference, lungs_r), (template, lungs_t)):
        (picture,) = scan_pyramid(
            Scan.of(volume, lungs), margin_mm=99.0, working_mm=1.0, levels=1, window_hu=(-1000.0, 400.0)
        )
        pictures.append(type(picture)(picture.image.double(), picture.mask.double(), picture.grid))
    key = grid.to_physical([[3.3, 4.1, 5.7], [5.2, 5.9, 3.4]])
    control = ControlGrid(grid, (4.0, 4.0, 4.0))
    weights = Weights(ngf=1.0, keypoints=0.3, mask=0.5, curvature=10.0, volume=0.2)
    everywhere = torch.ones(grid.shape, dtype=torch.float64)
    pull = KeypointTerm(Keypoints(key, key + 1.0, np.ones(2)), control, np.eye(4))
    data = AutogradData(*pictures, control, np.eye(4), edges=(40.0, 50.0), weight=everywhere)
    objective = Objective(data, control, weights, pull)
    generator = torch.Generator().manual_seed(4)
    c = torch.randn(*control.shape, 3, generator=generator, dtype=torch.float64).mul_(0.5)
    value, gradient, terms = objective.evaluate(c)
    assert set(terms) == {"ngf", "mask", "curvature", "volume", "keypoints"}
    assert value == pytest.approx(sum(getattr(weights, name) * term for name, term in terms.items()))
    # trilinear interpolation has kinks: a step far below a voxel keeps clear of them
    for seed in range(5):
        step = 1e-6 * torch.randn(c.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        difference = objective.evaluate(c + step)[0] - objective.evaluate(c - step)[0]
        assert difference == pytest.approx(2 * float((gradient * step).sum()), rel=1e-4, abs=1e-11)


def test_keypoints_pull_where_the_picture_says_nothing() -> None:
    grid = Grid((20, 20, 20), (2.0, 2.0, 2.0))
    flat, lungs = Volume(np.full(grid.shape, -850.0, np.float32), grid), np.ones(grid.shape, bool)
    here = grid.to_physical([[10.0, 10.0, 10.0]])
    keypoints = Keypoints(here, here + np.array([3.0, 0.0, 0.0]), np.ones(1))
    options = RegistrationOptions(iterations=(20, 20), working_mm=2.0, weights=Weights(mask=0, keypoints=1.0))
    result = register_deformable(ScanPair.of(flat, flat, lungs, lungs), keypoints=keypoints, options=options)
    assert result.field.at(here)[0] == pytest.approx([3.0, 0.0, 0.0], abs=0.2)


def test_keypoints_give_the_same_bytes_every_time_on_both_cores() -> None:
    grid = Grid(SHAPE, (2.0, 2.0, 2.0))
    reference, template, lungs_r, lungs_t, y = moved_pair(grid, 6.0)
    points = grid.to_physical(np.argwhere(lungs_r)[::37, ::-1].astype(float))
    assert len(points) > 500
    keypoints = Keypoints(points, y.apply(points), np.ones(len(points)))
    options = replace(FAST, iterations=(20, 12, 6))  # any of them could differ
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = [
            register_deformable(
                ScanPair.of(reference, template, lungs_r, lungs_t), keypoints=keypoints, options=options
            ).field.vectors_mm
            for _ in range(3)
        ]
    finally:
        torch.set_num_threads(threads)
    assert made[0].tobytes() == made[1].tobytes() == made[2].tobytes()


def test_doubted_keypoints_stay_doubted_while_a_fold_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounds that unfold use the terms of the last level, whose wrong matches have lost their weight."""
    grid = Grid(SHAPE, (2.0, 2.0, 2.0))
    reference, template, lungs_r, lungs_t, y = moved_pair(grid, 6.0)
    points = grid.to_physical(np.argwhere(lungs_r)[::97, ::-1].astype(float))
    partners = y.apply(points)
    partners[::10] += 25.0
    folding = iter([0.5, 0.0])
    monkeypatch.setattr(solver, "folding_percent", lambda *_: next(folding))
    seen: list[np.ndarray] = []

    def watched(objective: Objective, *arguments: object, **named: object) -> object:
        assert objective.keypoints is not None
        seen.append(objective.keypoints.weight.copy())
        return minimise(objective, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(solver, "minimise", watched)
    given = Keypoints(points, partners, np.ones(len(points)))
    register_deformable(ScanPair.of(reference, template, lungs_r, lungs_t), keypoints=given, options=FAST)
    assert len(seen) == 4
    assert seen[2][::10].max() < 0.1
    assert seen[3].tolist() == seen[2].tolist()


def test_the_keypoint_term_is_its_formula_with_its_gradient() -> None:
    grid = Grid((9, 10, 11), (2.0, 1.5, 3.0), (4.0, 5.0, 6.0), PERMUTED)
    control = ControlGrid(grid, (4.0, 4.0, 4.0))
    rng = np.random.default_rng(4)
    points = grid.to_physical(rng.uniform(0, 8, (7, 3)))
    given = Keypoints(points, points + rng.normal(size=(7, 3)), rng.uniform(0.1, 1, 7))
    term = KeypointTerm(given, control, np.eye(4))
    c = torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = c.clone().requires_grad_(True)
    nodes, values = control.at_points(grid.to_index(points))
    moved = torch.as_tensor(points) + (leaf.reshape(-1, 3)[nodes] * values[..., None]).sum(1)
    apart, weight = moved - torch.as_tensor(given.template_mm), torch.as_tensor(given.weight)
    expected = (weight * apart.square().sum(-1)).sum() / weight.sum()
    expected.backward()
    value, gradient = term.evaluate(c)
    assert value == pytest.approx(float(expected.detach()), rel=1e-12)
    assert torch.allclose(gradient, leaf.grad)  # type: ignore[arg-type]
    nothing = KeypointTerm(Keypoints(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)), control, np.eye(4))
    assert nothing.evaluate(c)[0] == 0
    assert not nothing.evaluate(c)[1].any()


def test_progress_never_goes_back_and_ends_at_one() -> None:
    ticks = solver._Ticks(lambda fraction, message="": told.append(fraction), [1.0, 8.0])
    told: list[float] = []
    for number in range(4):  # two of them beyond the plan
        for fraction in (0.0, 0.5, 1.0):
            ticks.level(number)(fraction)
    assert told == sorted(told)
    assert told[-6:] == [1.0] * 6


def test_matches_that_lie_far_off_count_less() -> None:
    """Nine good matches and one that is 30 mm off: after a look at the deformation it counts next to nothing."""
    grid = Grid((20, 20, 20), (2.0, 2.0, 2.0))
    points = grid.to_physical(np.random.default_rng(0).uniform(4, 16, (10, 3)))
    wrong = np.zeros((10, 3))
    wrong[0] = 30.0
    control = ControlGrid(grid, (4.0, 4.0, 4.0))
    term = KeypointTerm(Keypoints(points, points + wrong, np.ones(10)), control, np.eye(4))
    still = torch.zeros(*control.shape, 3)
    assert term.evaluate(still)[0] == pytest.approx(2700 / 10, rel=1e-5)
    term.downweight_outliers(still)
    assert term.weight[1:].tolist() == pytest.approx([1.0] * 9)
    # |d| = 52 mm at a scale of 3 mm: 1 / (1 + 300)^2
    assert float(term.weight[0]) == pytest.approx(1 / 301**2, rel=1e-3)
    assert term.evaluate(still)[0] < 0.01


def test_an_objective_at_its_minimum_is_left_alone() -> None:
    class Bowl:
        control = ControlGrid(Grid((2, 2, 2)), (4.0, 4.0, 4.0))

        def evaluate(self, c):
            value = float((c.detach() - 3).square().sum())
            return value, 2 * (c - 3).detach(), {"ngf": value}

    start = torch.full((2, 2, 2, 3), 3.0)
    best, report = minimise(Bowl(), start, 10)
    assert torch.equal(best, start)
    best, report = minimise(Bowl(), torch.zeros(2, 2, 2, 3), 10)
    assert torch.allclose(best, start)
    assert report.terms_before["ngf"] == pytest.approx(24 * 9)
    assert report.terms_after["ngf"] == pytest.approx(0, abs=1e-6)


def test_folding_is_measured_where_the_lungs_are() -> None:
    grid = Grid((4, 4, 8))
    x = np.arange(8, dtype=np.float32)
    u = np.zeros((4, 4, 8, 3), np.float32)
    u[..., 0] = np.where(x < 4, 0, -2 * (x - 4))  # det is 0 at x = 4 and -1 beyond
    field = DisplacementField(u, grid)
    lungs = np.zeros(grid.shape, bool)
    lungs[..., :3] = True
    assert folding_percent(field, lungs, grid) == 0.0
    lungs[:] = True
    assert folding_percent(field, lungs, grid) == pytest.approx(100 * 4 / 8)


def test_progress_rises_and_can_stop_the_work() -> None:
    volume, lungs = lung_like(Grid((24, 24, 24), (3.0, 3.0, 3.0)))
    shifted = Volume(np.roll(volume.array, 1, 2), volume.grid)
    seen: list[float] = []
    register_deformable(
        ScanPair.of(volume, shifted, lungs, lungs), options=FAST, progress=lambda f, m="": seen.append(f)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def stop(fraction: float, message: str = "") -> None:
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        register_deformable(ScanPair.of(volume, shifted, lungs, lungs), options=FAST, progress=stop)


def ball(grid: Grid, centre_vox: tuple[int, int, int], radius_mm: float) -> np.ndarray:
    """True within ``radius_mm`` of the voxel (x, y, z)."""
    points = index_points(grid, grid.affine).numpy() - grid.to_physical(np.array(centre_vox, float))
    return (points**2).sum(-1) < radius_mm**2


def test_a_grown_nodule_keeps_its_growth() -> None:
    """A nodule of 8 mm in T and 14 mm in R: without the estimate of change more of it is registered away."""
    grid = Grid(SHAPE, (2.0, 2.0, 2.0))
    template, lungs = lung_like(grid)
    small, large = (ball(grid, (26, 24, 22), radius) for radius in (4.0, 7.0))
    reference = Volume(np.where(large, np.float32(30), template.array), grid)
    before = Volume(np.where(small, np.float32(30), template.array), grid)
    soft = replace(FAST, control_mm=6.0, weights=Weights(curvature=1.0))
    kept = []
    for change_hu in (0.0, 150.0):
        field = register_deformable(
            ScanPair.of(reference, before, lungs, lungs), options=replace(soft, change_hu=change_hu)
        ).field
        kept.append(float(warp(small, grid, grid, field).sum() / small.sum()))
    assert kept[0] > 1.3  # the case is one in which growth is explained away
    assert kept[1] - 1 < 0.5 * (kept[0] - 1)


def test_lungs_slide_along_the_ribs() -> None:
    """The lungs move by 8 mm, the wall does not: the registration follows the lungs right up to the wall."""
    grid = Grid(SHAPE, (2.0, 2.0, 2.0))
    template, lungs = lung_like(grid)
    rng = np.random.default_rng(3)
    ribs = ndimage.gaussian_filter(rng.normal(size=grid.shape), 1.5)
    wall = np.where(ribs > 1.0 * ribs.std(), 500.0, 40.0).astype(np.float32)
    moved = np.roll(template.array, 4, axis=0)
    inside = np.roll(lungs, 4, axis=0)
    reference = Volume(np.where(inside, moved, wall), grid)
    before = Volume(np.where(lungs, template.array, wall), grid)
    field = register_deformable(ScanPair.of(reference, before, inside, lungs), options=FAST).field
    error = np.linalg.norm(field.vectors_mm - [0.0, 0.0, -8.0], axis=-1)[inside]
    assert error.mean() < 0.4
    assert np.percentile(error, 95) < 1.2
