"""Trust: what each piece of evidence says in closed form, and that a spoilt registration is not believed."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.registration import trust
from ChangeMapJointLib.registration.deformable.objective import Keypoints
from ChangeMapJointLib.registration.trust import (
    Evidence,
    TrustOptions,
    gather_evidence,
    inside_template,
    inverse_consistency,
    predicted_error,
    trust_map,
)
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.volume import Volume

ROOT = Path(__file__).resolve().parents[2]
GRID = Grid((30, 32, 34), (3.0, 3.0, 3.0), (5.0, -6.0, 7.0))


def shift(grid: Grid, x_mm: float) -> DisplacementField:
    u = np.zeros((*grid.shape, 3), np.float32)
    u[..., 0] = x_mm
    return DisplacementField(u, grid)


def chest(grid: Grid = GRID) -> tuple[Volume, np.ndarray]:
    """Vessels as scans of 3 mm show them, some 100 HU over the lung, in an ellipsoid."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid.shape], indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.8) ** 2 + (z / 0.8) ** 2 < 1
    blobs = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=grid.shape), 1.2)
    hu = np.where(inside, -850.0 + 120.0 * np.maximum(blobs / blobs.std(), 0.0), 40.0)
    return Volume(ndimage.gaussian_filter(hu, 0.7).astype(np.float32), grid), inside


def evidence(**values: float) -> Evidence:
    """Without any doubt, unless ``values`` say otherwise."""
    flat = {"inverse_mm": 0.0, "misfit": 0.0, "border": 0.0, "keypoint_mm": 0.0, "keypoint_share": 0.0, **values}
    maps = {name: np.full(GRID.shape, value, np.float32) for name, value in flat.items()}
    return Evidence(GRID, shift(GRID, 0.0), **maps)


def test_forward_and_backward_that_undo_each_other_have_no_error() -> None:
    grid, far = Grid((5, 6, 7)), Grid((5, 6, 7), origin_mm=(20.0, 0.0, 0.0))
    assert inverse_consistency(shift(grid, 20.0), shift(far, -20.0)).max() == pytest.approx(0, abs=1e-5)
    error = inverse_consistency(shift(grid, 20.0), shift(far, -17.0))
    assert error == pytest.approx(np.full(grid.shape, 3.0), abs=1e-5)


def test_inside_template_is_where_y_lands() -> None:
    grid = Grid((3, 3, 10))
    inside = inside_template(shift(grid, 5.0), grid)
    assert inside[0, 0].tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize("name", ["inverse_mm", "misfit", "border"])
def test_more_doubt_means_a_larger_error_and_less_trust(name: str) -> None:
    errors = [predicted_error(evidence(**{name: value})).max() for value in (0.0, 0.2, 0.5, 1.0)]
    assert errors == sorted(errors)
    assert errors[-1] > 1.2 * errors[0]


def test_keypoints_that_do_not_fit_mean_a_larger_error() -> None:
    near = [predicted_error(evidence(keypoint_mm=d, keypoint_share=1.0)).max() for d in (0.3, 2.0, 10.0)]
    assert near == sorted(near)
    assert near[-1] > 2 * near[0]
    far = [predicted_error(evidence(keypoint_mm=d, keypoint_share=0.0)).max() for d in (0.3, 10.0)]
    assert far[0] == far[1]  # there are none near


def test_trust_is_one_half_at_the_half_error() -> None:
    given = evidence(inverse_mm=2.0, misfit=0.5)
    half = float(predicted_error(given).max())
    trusted = trust_map(given, shift(GRID, 0.0), GRID, options=TrustOptions(half_error_mm=half))
    assert trusted == pytest.approx(np.full(GRID.shape, 0.5), abs=1e-3)


def test_trust_ends_where_the_template_ends() -> None:
    moved = shift(GRID, 30.0)
    trusted = trust_map(replace(evidence(), field=moved), moved, GRID)
    assert (trusted[..., 24:] == 0).all()
    assert trusted[15, 15, 5] > 0.9


def test_trust_falls_where_volume_changes_beyond_breathing() -> None:
    matrix = np.eye(4)
    matrix[0, 0] = 0.25  # to a quarter: the lower bar
    centre = np.asarray(GRID.centre_mm)
    matrix[0, 3] = 0.75 * centre[0]
    squeezed = DisplacementField.from_affine(matrix, GRID)
    whole = trust_map(evidence(), shift(GRID, 0.0), GRID)
    trusted = trust_map(replace(evidence(), field=squeezed), squeezed, GRID)
    assert trusted == pytest.approx(0.5 * whole, abs=1e-3)


def test_equal_scans_are_believed_and_shifted_ones_are_not() -> None:
    volume, lungs = chest()
    still, moved = shift(GRID, 0.0), shift(GRID, 9.0)
    good = trust_map(gather_evidence(ScanPair.of(volume, volume, lungs, lungs), still, still), still, GRID)
    assert good[lungs].min() > 0.9
    # forward and backward agree that the scan moved by 9 mm, which it did not: the misfit tells
    found = gather_evidence(ScanPair.of(volume, volume, lungs, lungs), moved, shift(GRID, -9.0))
    assert np.median(found.inverse_mm[lungs]) < 0.1
    bad = trust_map(found, moved, GRID)
    inner = ndimage.binary_erosion(lungs, iterations=4)
    assert np.median(bad[inner]) < 0.5 < np.median(good[inner])


def test_a_new_nodule_and_a_denser_lung_are_believed() -> None:
    volume, lungs = chest()
    still = shift(GRID, 0.0)
    denser = volume.array + np.where(lungs, 90.0, 0.0).astype(np.float32)
    denser[13:18, 14:19, 14:19] = 40.0
    trusted = trust_map(
        gather_evidence(ScanPair.of(Volume(denser, GRID), volume, lungs, lungs), still, still), still, GRID
    )
    assert trusted[13:18, 14:19, 14:19].min() > 0.5
    assert np.percentile(trusted[lungs], 1) > 0.5


def test_trust_falls_where_the_lungs_disagree() -> None:
    volume, lungs = chest()
    theirs = lungs.copy()
    theirs[:15] = False
    still = shift(GRID, 0.0)
    trusted = trust_map(gather_evidence(ScanPair.of(volume, volume, lungs, theirs), still, still), still, GRID)
    assert np.median(trusted[6:10][lungs[6:10]]) < np.median(trusted[20:26][lungs[20:26]])
    assert trusted[20:26][lungs[20:26]].min() > 0.9


def test_keypoints_are_gathered_round_every_voxel() -> None:
    """Matches say that the left half is off by 4 mm; one wrong match among many counts little."""
    volume, lungs = chest()
    still = shift(GRID, 0.0)
    points = GRID.to_physical(np.argwhere(lungs)[::40, ::-1].astype(float))
    left = points[:, 0] > GRID.centre_mm[0]
    partners = points + np.where(left[:, None], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    given = Keypoints(points, partners, np.ones(len(points)))
    found = gather_evidence(ScanPair.of(volume, volume, lungs, lungs), still, still, keypoints=given)
    middle = (slice(13, 17), slice(14, 18))
    assert found.keypoint_share[(*middle, slice(6, 28))].min() > 0.9
    assert found.keypoint_mm[(*middle, slice(27, 29))] == pytest.approx(4.0, abs=0.3)
    assert found.keypoint_mm[(*middle, slice(5, 7))] == pytest.approx(0.0, abs=0.3)
    none = Keypoints(points[:0], partners[:0], np.ones(0))
    assert (
        gather_evidence(ScanPair.of(volume, volume, lungs, lungs), still, still, keypoints=none).keypoint_share.max()
        == 0
    )


def test_evidence_on_a_finer_deformation_and_oblique_grids() -> None:
    """The field is finer than the evidence and the scan's axes are permuted: trust comes back on the field's grid."""
    permuted = ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    grid = Grid((40, 44, 48), (2.0, 2.0, 2.0), (5.0, -6.0, 7.0), permuted)
    volume, lungs = chest(grid)
    bump = np.exp(-((np.indices(grid.shape).reshape(3, -1).T - 20.0) ** 2).sum(1) / 200).reshape(grid.shape)
    y = DisplacementField((bump[..., None] * np.array([2.0, -3.0, 4.0])).astype(np.float32), grid)
    reference = Volume(warp(volume.array, grid, grid, y, outside=40.0), grid)
    lungs_r = warp(lungs, grid, grid, y) > 0.5
    back = DisplacementField(-y.vectors_mm, grid)
    trusted = trust_map(gather_evidence(ScanPair.of(reference, volume, lungs_r, lungs), y, back), y, grid)
    assert trusted.shape == grid.shape
    assert np.percentile(trusted[lungs_r], 5) > 0.7


def test_the_calibration_is_that_of_the_benchmark() -> None:
    """The coefficients are those in the benchmark's results, and none makes a place more trustworthy by a doubt."""
    document = json.loads((ROOT / "Testing/benchmarks/results/trust_calibration.json").read_text("utf-8"))
    for name, calibration in (("alone", trust.ALONE), ("with_keypoints", trust.WITH_KEYPOINTS)):
        measured = [c for c in document["calibration"][name] if not isinstance(c, str)]
        found = [getattr(calibration, f.name) for f in fields(calibration)][: len(measured)]
        assert found == pytest.approx(measured, abs=1e-3)
        assert min(found[1:]) >= 0
