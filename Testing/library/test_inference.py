"""The network's answer on the scan's own grid, instance optimisation from it, and what happens without memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_solver import FAST, PERMUTED, SHAPE, lung_like, moved_pair

from ChangeMapJointLib.core.blur import sampled_variance_mm2
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.joint import inference
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.joint.inference import JointOptions, run_network, trained_shape, update_learned_change
from ChangeMapJointLib.joint.network import JointNetwork, JointOutput, NetworkOptions
from ChangeMapJointLib.joint.scans import from_network, network_scans, to_network
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, expand, interpolation_coefficients
from ChangeMapJointLib.registration.deformable.register import register_deformable
from ChangeMapJointLib.registration.deformable.start import initial_coefficients, smooth_start
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.volume import Volume

CARD = {"training": {"shape": [16, 16, 32]}}
GRID = Grid(SHAPE, (2.0, 2.0, 2.0), (-50.0, 40.0, 900.0))


class Told(JointNetwork):
    """Answers u = (1, -2, 3) mm everywhere, and the reference's brightness as change; runs out of memory on demand."""

    def __init__(self, fails: int = 0, error: Exception | None = None) -> None:
        super().__init__(NetworkOptions(factors=(2, 1), channels=(1, 1), reach=(0, 0), depth=1))
        self.fails, self.error, self.seen = fails, error, list[tuple[int, ...]]()

    def coarse(self, *given: object) -> tuple[JointOutput, ...]:
        return ()

    def finest(self, r: torch.Tensor, t: torch.Tensor, h: object, before: JointOutput | None) -> JointOutput:
        """The start's displacement along x, in mm, as logit of the change."""
        if self.error is not None:
            raise self.error
        assert before is not None
        u = before.displacement_mm
        return JointOutput(u, torch.cat([torch.zeros_like(u[:, :1]), u[:, :1]], 1))

    def forward(self, reference: torch.Tensor, template: torch.Tensor, spacing_mm: object) -> JointOutput:
        self.seen.append(tuple(reference.shape[2:]))
        if len(self.seen) <= self.fails:
            raise self.error or torch.OutOfMemoryError("too much")
        u = torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1, 1).expand(1, 3, *reference.shape[2:])
        changed = torch.where(reference > -100, 5.0, -5.0)
        return JointOutput(u, torch.cat([torch.zeros_like(changed), changed], 1))


def rigid() -> FloatArray:
    """A turn by 5 degrees about z and a shift."""
    angle = np.deg2rad(5.0)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = [4.0, -3.0, 2.0]
    return matrix


@pytest.mark.parametrize("grid", [GRID, Grid(SHAPE, (2.0, 2.0, 2.0), (10.0, 5.0, -300.0), PERMUTED)])
def test_y_is_the_rigid_map_after_u_on_a_grid_that_covers_the_reference(grid: Grid) -> None:
    volume, lungs = lung_like(grid)
    answer = run_network(Checkpoint(Told(), CARD, ""), ScanPair.of(volume, volume, lungs, lungs, rigid=rigid()))
    assert answer.scans.grid.shape == (16, 16, 32)
    assert answer.notes == ()
    points = grid.to_physical(np.random.default_rng(0).uniform(0, 1, (50, 3)) * (np.array(grid.size) - 1))
    expected = apply_affine(rigid(), points + np.array([1.0, -2.0, 3.0]))
    assert answer.field.apply(points) == pytest.approx(expected, abs=0.01)
    assert answer.learned.shape == grid.shape
    # CM_learn is where the reference is bright, in the reference's own voxels
    inside = lungs & (np.abs(volume.array + 100) > 350)
    agree = (answer.learned > 0.5) == (volume.array > -100)
    assert agree[inside].mean() > 0.8


def test_a_second_look_starts_where_a_better_y_has_put_the_template() -> None:
    volume, lungs = lung_like(GRID)
    model = Checkpoint(Told(), CARD, "")
    first = run_network(model, ScanPair.of(volume, volume, lungs, lungs, rigid=rigid()))
    points = index_points(GRID, GRID.affine).numpy().astype(float)
    y = apply_affine(rigid(), (points + np.array([-2.0, 1.0, 0.5])).reshape(-1, 3)).reshape(points.shape)
    again = update_learned_change(model, first, DisplacementField((y - points).astype(np.float32), GRID), GRID)
    inner = again.learned[8:-8, 8:-8, 8:-8]
    assert inner == pytest.approx(np.full_like(inner, 1 / (1 + np.exp(2.0))), abs=1e-3)  # softmax of (0, -2)
    assert again.field is first.field
    assert not np.allclose(first.learned[8:-8, 8:-8, 8:-8], inner, atol=0.01)


def test_without_memory_the_first_look_stays_and_that_is_told() -> None:
    volume, lungs = lung_like(GRID)
    network = Told()
    first = run_network(Checkpoint(network, CARD, ""), ScanPair.of(volume, volume, lungs, lungs))
    network.error = MemoryError()
    again = update_learned_change(Checkpoint(network, CARD, ""), first, first.field, GRID)
    assert again.learned is first.learned
    assert again.notes == (
        "There was not enough memory to run the network a second time: CM_learn belongs to the network's own "
        "deformation, not to the optimised one.",
    )
    network.error = RuntimeError("a fault")
    with pytest.raises(RuntimeError, match="a fault"):
        update_learned_change(Checkpoint(network, CARD, ""), first, first.field, GRID)


def test_bfloat16_gives_about_what_float32_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, lungs = lung_like(GRID)
    torch.manual_seed(2)
    network = JointNetwork(NetworkOptions(factors=(2, 1), channels=(4, 4), reach=(1, 0), depth=1))
    answers = []
    for fast in (True, False):
        monkeypatch.setattr(inference, "bfloat16_is_fast", lambda fast=fast: fast)
        model = Checkpoint(network, CARD, "")
        answers.append(run_network(model, ScanPair.of(volume, volume, lungs, lungs)))
    assert answers[0].learned == pytest.approx(answers[1].learned, abs=0.03)
    assert not np.array_equal(answers[0].learned, answers[1].learned)
    assert answers[0].field.vectors_mm == pytest.approx(answers[1].field.vectors_mm, abs=0.1)


def test_the_network_sees_both_lungs_in_one_frame() -> None:
    """T is R moved by the rigid map: on the network's grid both look alike."""
    volume, lungs = lung_like(GRID)
    shift = np.eye(4)
    shift[:3, 3] = [20.0, -10.0, 6.0]
    x, y, z = (float(v) for v in np.array(GRID.origin_mm) + shift[:3, 3])
    moved = Volume(volume.array, Grid(SHAPE, GRID.spacing_mm, (x, y, z)))
    seen = network_scans(ScanPair.of(volume, moved, lungs, lungs, rigid=shift), (24, 24, 32))
    assert np.abs(seen.reference - seen.template)[seen.lungs_reference > 0.9].max() < 1.0
    assert np.corrcoef(seen.lungs_reference.ravel(), seen.lungs_template.ravel())[0, 1] > 0.999
    low, high = seen.grid.to_physical(np.array([[0, 0, 0], np.array(seen.grid.size) - 1]))
    points = GRID.to_physical(np.argwhere(lungs)[:, ::-1])
    assert (low <= points.min(0) - 14.9).all()
    assert (high >= points.max(0) + 14.9).all()


def test_blur_is_that_of_voxels_low_pass_and_interpolation() -> None:
    fwhm2 = 8 * np.log(2)
    seen = Grid((8, 8, 8), (1.0, 2.0, 3.0))
    thick = Grid((8, 8, 8), (1.0, 1.5, 5.0))
    expected = [1 / fwhm2 + 1 / 6, 4 / fwhm2 + 1.5**2 / 6, 25 / fwhm2 + 25 / 6]
    assert sampled_variance_mm2(thick, seen) == pytest.approx(expected, rel=1e-4)
    turned = Grid((8, 8, 8), (1.5, 5.0, 1.0), direction=PERMUTED)
    along = (5.0, 1.0, 1.5)  # its y axis lies along x, its z axis along y, its x axis along z
    expected = [max(h, g) ** 2 / fwhm2 + h**2 / 6 for h, g in zip(along, seen.spacing_mm, strict=True)]
    assert sampled_variance_mm2(turned, seen) == pytest.approx(expected, rel=1e-4)


def vessel(slice_mm: float, centre_mm: float, *, turned: bool) -> Volume:
    """A vessel without width of its own, across slices that are as broad as thick; ``turned``: they lie along x."""
    count = round(120 / slice_mm)
    z = slice_mm * np.arange(count) - 60.0
    variance = slice_mm**2 / (8 * np.log(2))
    line = np.exp(-((z - centre_mm) ** 2) / 2 / variance) / np.sqrt(2 * np.pi * variance)
    array = np.broadcast_to(-1000 + 2000 * line[:, None, None], (count, 10, 10)).astype(np.float32)
    corner = (-9.0, -9.0, -60.0)
    if turned:  # its axes x, y, z lie along the upright z, x, y
        axes = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
        return Volume(array, Grid(array.shape, (slice_mm, 2.0, 2.0), corner, axes))
    return Volume(array, Grid((count, 10, 10), (2.0, 2.0, slice_mm), corner))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("slices", "shape"), [((2.0, 5.0), (60, 8, 8)), ((5.0, 1.5), (90, 8, 8))])
def test_a_vessel_is_as_broad_in_both_scans_where_resolution_is_matched(
    slices: tuple[float, float], shape: tuple[int, int, int], turned: bool
) -> None:
    variances = {matched: np.zeros(2) for matched in (False, True)}
    centres = np.arange(-5.0, 5.0, 0.5)  # at every distance from the nearest slice
    for centre in centres:
        scans = [vessel(h, centre, turned=turned) for h in slices]
        lungs = [np.ones(scan.grid.shape, bool) for scan in scans]
        for matched, found in variances.items():
            seen = network_scans(ScanPair.of(*scans, *lungs), shape, match_resolution=matched)
            z = seen.grid.origin_mm[2] + seen.grid.spacing_mm[2] * np.arange(shape[0])
            for side, image in enumerate((seen.reference, seen.template)):
                line = np.where(np.abs(z - centre) < 25, image[:, 4, 4] + 1000, 0)
                found[side] += line @ (z - centre) ** 2 / line.sum() / len(centres)
    apart = {matched: max(found) / min(found) for matched, found in variances.items()}
    assert apart[False] > 2.5
    assert apart[True] < 1.05


def test_the_network_sees_matched_scans_where_its_options_say_so() -> None:
    volume, lungs = lung_like(GRID)
    thick = Volume(volume.array[::3], Grid((len(volume.array[::3]), *SHAPE[1:]), (2.0, 2.0, 6.0), GRID.origin_mm))
    network = Told()
    network.options = replace(network.options, match_resolution=True)
    answer = run_network(Checkpoint(network, CARD, ""), ScanPair.of(volume, thick, lungs, lungs[::3]))
    pair, shape = ScanPair.of(volume, thick, lungs, lungs[::3]), (16, 16, 32)
    assert np.array_equal(answer.scans.reference, network_scans(pair, shape, match_resolution=True).reference)
    assert not np.array_equal(answer.scans.reference, network_scans(pair, shape).reference)
    assert np.array_equal(answer.scans.template, network_scans(pair, shape).template)  # the coarser stays as it is


NO_MEMORY = "[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: can't allocate memory: you tried to get 9"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA: full"), MemoryError(), RuntimeError(NO_MEMORY)])
def test_without_memory_a_smaller_grid_is_taken_and_told(error: Exception) -> None:
    volume, lungs = lung_like(GRID)
    network = Told(fails=1, error=error)
    answer = run_network(Checkpoint(network, CARD, ""), ScanPair.of(volume, volume, lungs, lungs))
    assert network.seen == [(16, 16, 32), (8, 8, 16)]
    assert answer.scans.grid.shape == (8, 8, 16)
    assert answer.notes == (
        "There was not enough memory: the network ran on 16 x 8 x 8 voxels instead of 32 x 16 x 16.",
    )
    with pytest.raises(InputError, match="not enough memory for the network; use method='sequential'"):
        run_network(Checkpoint(Told(fails=9), CARD, ""), ScanPair.of(volume, volume, lungs, lungs))


def test_a_gpu_without_memory_hands_over_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, lungs = lung_like(GRID)
    places = []

    def forward(network: JointNetwork, *rest: object) -> tuple[torch.Tensor, np.ndarray]:
        places.append(rest[-1].type)  # type: ignore[attr-defined]
        if places[-1] == "cuda":
            raise torch.OutOfMemoryError
        return torch.zeros(3, 16, 16, 32), np.zeros((16, 16, 32), np.float32)

    monkeypatch.setattr(inference, "_forward", forward)
    found = run_network(Checkpoint(Told(), CARD, ""), ScanPair.of(volume, volume, lungs, lungs), device="cuda")
    assert places == ["cuda", "cuda", "cpu"]
    assert found.device.type == "cpu"
    assert found.scans.grid.shape == (16, 16, 32)
    assert found.notes == ("The GPU did not have enough memory for the network, so it ran on the CPU.",)


def test_other_faults_are_no_lack_of_memory() -> None:
    volume, lungs = lung_like(GRID)
    model = Checkpoint(Told(fails=1, error=RuntimeError("a fault")), CARD, "")
    with pytest.raises(RuntimeError, match="a fault"):
        run_network(model, ScanPair.of(volume, volume, lungs, lungs))


def test_shapes_that_cannot_be_taken_are_refused() -> None:
    volume, lungs = lung_like(GRID)
    with pytest.raises(InputError, match=r"found \[16, 18, 32\], expected multiples of 4"):
        run_network(Checkpoint(Told(), CARD, ""), ScanPair.of(volume, volume, lungs, lungs), shape=(16, 18, 32))
    for card in ({}, {"training": []}, {"training": {"shape": [1, 2]}}, {"training": {"shape": [1, 2, 1e9]}}):
        with pytest.raises(InputError, match=r"training\.shape"):
            trained_shape(Checkpoint(Told(), card, ""))
    for wrong in ({"shape": (1, 2)}, {"shape": (4, 64, 64)}, {"instance": (0,)}, {"instance": (1,) * 7}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            JointOptions(**wrong)  # type: ignore[arg-type]


# -- instance optimisation ------------------------------------------------------------------------
def test_coefficients_take_the_values_at_the_control_points() -> None:
    control = ControlGrid(GRID, (6.0, 5.0, 7.0))
    values = torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = control.positions()
    at = ControlGrid(Grid(tuple(n - 2 for n in points.shape)), (1.0, 1.0, 1.0))  # type: ignore[arg-type]
    assert at.shape == control.shape
    found = expand(interpolation_coefficients(values), at.matrices(values))
    assert torch.allclose(found, values[1:-1, 1:-1, 1:-1], atol=1e-12)


def test_a_start_is_taken_over_without_its_rigid_part() -> None:
    control = ControlGrid(GRID, (6.0, 6.0, 6.0))
    points = index_points(GRID, GRID.affine).numpy().astype(float)
    middle = np.asarray(GRID.centre_mm)
    wave = 4.0 * np.sin((points - middle) / 25.0)
    y = apply_affine(rigid(), points.reshape(-1, 3)).reshape(points.shape) + wave
    field = DisplacementField((y - points).astype(np.float32), GRID)
    like = torch.zeros(1, dtype=torch.float64)
    coefficients = initial_coefficients(field, control, rigid(), like=like)
    found = expand(coefficients, control.matrices(like)).numpy()
    inner = (slice(8, -8),) * 3
    assert np.abs(found - wave)[inner].max() < 0.05
    assert initial_coefficients(None, control, rigid(), like=like).abs().max() == 0


def test_from_a_start_that_is_near_few_iterations_do() -> None:
    """A motion so large that a fine level alone does not find it; from a rough start it does."""
    reference, template, lungs_r, lungs_t, y = moved_pair(GRID, 22.0)
    rough = DisplacementField((0.8 * y.vectors_mm).astype(np.float32), GRID)
    fine = replace(FAST, iterations=(10,))
    errors = []
    for start in (None, rough):
        found = register_deformable(ScanPair.of(reference, template, lungs_r, lungs_t), start=start, options=fine)
        errors.append(np.linalg.norm(found.field.vectors_mm - y.vectors_mm, axis=-1)[lungs_r].mean())
    assert errors[1] < 0.5 < 1.0 < errors[0]


def test_a_start_is_believed_in_the_lungs_and_carried_on_beyond_them() -> None:
    """y = A (x + u) with a smooth u; outside the lungs a network may say anything."""
    points = index_points(GRID, GRID.affine).numpy().astype(float)
    lungs = np.zeros(SHAPE, bool)
    lungs[8:-8, 8:-8, 8:-8] = True
    u = np.stack([6 + 0.05 * (points[..., 2] - 950), np.full(SHAPE, -4.0), 0.04 * points[..., 0]], -1)
    y = apply_affine(rigid(), (points + u).reshape(-1, 3)).reshape(points.shape)
    said = y + 40.0 * ~lungs[..., None] * np.random.default_rng(1).normal(size=points.shape)
    found = smooth_start(DisplacementField((said - points).astype(np.float32), GRID), lungs, GRID, rigid())
    well_inside = points[14:-14, 14:-14, 14:-14].reshape(-1, 3)
    error = np.linalg.norm(found.apply(well_inside) - y[14:-14, 14:-14, 14:-14].reshape(-1, 3), axis=1)
    assert error.max() < 2.0
    border = np.concatenate([points[4, 8:-8, 8:-8].reshape(-1, 3), points[8:-8, 8:-8, 4].reshape(-1, 3)])
    wanted = apply_affine(rigid(), border + np.array([6.0, -4.0, 0.0]))
    carried_on = np.linalg.norm(found.apply(border) - wanted, axis=1)
    assert carried_on.max() < 6.0  # of 40


def test_u_covers_what_the_network_did_not_see() -> None:
    grid = Grid((8, 8, 8), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    whole = Grid((20, 20, 20), (3.0, 3.0, 3.0), (-18.0, -18.0, -18.0))
    u = torch.zeros(3, 8, 8, 8)
    u[0] = torch.arange(8.0)  # along x
    found = from_network(u, grid, np.eye(4), whole)
    assert found.grid.same_as(whole)
    assert to_network(found, grid, np.eye(4)) == pytest.approx(u.numpy(), abs=1e-4)
    turned = from_network(u, grid, rigid(), whole)
    assert to_network(turned, grid, rigid()) == pytest.approx(u.numpy(), abs=1e-3)
    beyond = Grid((8, 8, 8), (3.0, 3.0, 3.0), (60.0, 0.0, 0.0))  # the field ends at 39 mm, where u is 7
    assert to_network(turned, beyond, rigid())[0] == pytest.approx(np.full((8, 8, 8), 7.0), abs=1e-3)
    assert found.at(np.array([[-18.0, 0, 0], [9.0, 3, 3], [39.0, 0, 0]]))[:, 0] == pytest.approx([0.0, 3.0, 7.0])
