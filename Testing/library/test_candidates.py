"""Faint candidates: what the change map at its threshold does not show, and that noise is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judge_samples import evidence, evidence_of
from lung_shapes import LUNG_HU, cube, scan
from phantoms import Sphere
from scipy import ndimage

from ChangeMapJointLib.change.candidates import CandidateOptions, faint_candidates
from ChangeMapJointLib.change.evidence import SCALES_MM
from ChangeMapJointLib.change.features import measure_features
from ChangeMapJointLib.change.judged import measure_candidates

NOWHERE = np.zeros(cube().shape, dtype=bool)


@pytest.mark.parametrize(
    ("radius_mm", "contrast_hu", "sign"),
    [(4.0, 150.0, 1), (4.0, 150.0, -1), (1.5, 850.0, 1), (8.0, 120.0, 1)],
    ids=["ground glass", "ground glass that is gone", "3 mm", "large and faint"],
)
def test_what_the_map_does_not_show_is_a_candidate(radius_mm: float, contrast_hu: float, sign: int) -> None:
    lesion = [Sphere((-8.0, 2.0, 1.0), radius_mm, LUNG_HU + contrast_hu)]
    found = evidence(lesion, []) if sign > 0 else evidence([], lesion)
    region = faint_candidates(found, NOWHERE)[0]
    assert region.sign == sign
    middle = region.points_mm(found.grid).mean(axis=0)
    assert np.linalg.norm(middle - [-8.0, 2.0, 1.0]) < 2.0
    assert found.lungs[tuple(region.voxels.T)].all()


def test_noise_alone_gives_none_and_so_do_equal_scans() -> None:
    assert faint_candidates(evidence([], [], noise_hu=40.0), NOWHERE) == []
    volume = scan(cube(), Sphere((0, 5, 0), 4.0), noise_hu=15.0)
    assert faint_candidates(evidence_of(volume, volume), NOWHERE) == []


def test_candidates_share_no_voxel_with_each_other_or_with_what_is_known() -> None:
    lesions = [Sphere((x, y, 0.0), 3.5, -600.0) for x in (-12.0, 12.0) for y in (-12.0, 12.0)]
    found = evidence(lesions, [])
    regions = faint_candidates(found, NOWHERE)
    assert len(regions) == 4
    voxels = np.concatenate([region.voxels for region in regions])
    assert len(np.unique(voxels, axis=0)) == len(voxels)
    taken = np.zeros(found.grid.shape, dtype=bool)
    taken[tuple(regions[0].voxels.T)] = True
    assert len(faint_candidates(found, taken)) == 3
    assert len(faint_candidates(found, NOWHERE, options=CandidateOptions(most=2))) == 2


def test_fine_voxels_are_averaged_and_the_region_lies_on_the_fine_grid() -> None:
    grid = cube((0.7, 0.7, 1.0), edge_mm=36.0)
    found = evidence([Sphere((-6.0, 1.0, 2.0), 4.0, LUNG_HU + 200.0)], [], grid)
    assert found.block == (1, 2, 2)
    region = faint_candidates(found, np.zeros(grid.shape, dtype=bool))[0]
    assert np.linalg.norm(region.points_mm(grid).mean(axis=0) - [-6.0, 1.0, 2.0]) < 1.5
    assert len(region.voxels) * grid.voxel_volume_ml == pytest.approx(0.27, rel=0.5)


def test_without_lungs_there_is_nothing_to_look_at() -> None:
    volume = scan(cube(), Sphere((0, 5, 0), 4.0))
    found = evidence_of(volume, scan(cube()), lungs=np.zeros(cube().shape, np.uint8))
    assert found.responses == ()
    assert faint_candidates(found, NOWHERE) == []


def test_the_features_of_a_new_nodule_are_finite_and_say_what_it_is() -> None:
    found = evidence([Sphere((-8.0, 2.0, 1.0), 4.0)], [])
    assert len(found.responses) == len(SCALES_MM)
    measured = measure_candidates(found, lowest=0.4)
    (features,) = measured.features
    assert (features.appeared, features.changed, features.nameless) == (1.0, 0.0, 0.0)
    assert features.size == pytest.approx(np.log(8.0 / 6.0), abs=0.1)
    assert features.contrast == pytest.approx(0.89, abs=0.05)
    assert features.distrust == pytest.approx(0.1)
    assert features.covered > 0.9
    assert (features.rim, features.gap, features.opposite) == pytest.approx((0.0, 0.0, 0.0), abs=0.02)
    assert all(np.isfinite(value) for value in vars(features).values())
    again = measure_features(measured.changes[0], found, displaced=True)
    assert again.displaced == 1.0


def test_the_trough_around_a_strong_change_is_no_change_of_its_own() -> None:
    found = evidence([Sphere((-8.0, 2.0, 1.0), 5.0)], [], noise_hu=5.0)
    assert {region.sign for region in faint_candidates(found, NOWHERE)} == {1}
    assert all(float(response.hu.min()) > -40.0 for response in found.responses)


def test_what_stands_out_from_quiet_surroundings_comes_before_stronger_unrest() -> None:
    rng = np.random.default_rng(3)
    grid = cube()
    now = scan(grid, Sphere((-12, 0, 0), 3.5, -650.0), noise_hu=10.0, seed=1)
    before = scan(grid, noise_hu=10.0, seed=2)
    array = now.array.astype(np.float32)
    half = array[..., grid.shape[2] // 2 :]
    half += 6.0 * ndimage.gaussian_filter(rng.normal(0.0, 400.0, half.shape), 1.2)  # as a badly registered part
    regions = faint_candidates(evidence_of(replace(now, array=array.astype(np.int16)), before), NOWHERE)
    assert len(regions) > 5
    assert np.linalg.norm(regions[0].points_mm(grid).mean(axis=0) - [-12, 0, 0]) < 2.0
