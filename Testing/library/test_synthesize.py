"""Pairs as folders: what is drawn, what is written, and going on after a stop."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_samples import phantom
from scipy.spatial import cKDTree

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.cli.synthesize import Synthesis, draw_options, run_synthesis
from ChangeMapJointLib.core.errors import Cancelled, InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.io.write import read_displacement, write_nrrd
from ChangeMapJointLib.joint.warping import displacement_at, warp_tensor
from ChangeMapJointLib.synthesis.acquisition import apply_kernel
from ChangeMapJointLib.synthesis.draw import NULL_PAIRS, SMOOTH_PAIRS, DrawOptions, draw_pair
from ChangeMapJointLib.synthesis.synthesize import SourceScan, synthesize
from ChangeMapJointLib.synthesis.truth import read_truth
from ChangeMapJointLib.training.samples import PairDataset, lesion_masks

pytestmark = pytest.mark.usefixtures("aligned_once")
COARSE = DrawOptions(lesions=(2, 2), in_plane_mm=(3.0, 3.0), slice_mm=(3.0, 5.0), diaphragm_mm=(10.0, 15.0))
SMOOTH = replace(COARSE, real_share=0.0, sliding_share=0.0)  # a real motion takes as long as the rest of a pair
FILES = {
    "reference",
    "template",
    "deformation",
    "lungs_reference",
    "lungs_template",
    "lesions_reference",
    "lesions_template",
}


# -- what is drawn -------------------------------------------------------------------------------
def test_a_seed_always_draws_the_same_and_another_another() -> None:
    assert draw_pair(5) == draw_pair(5)
    assert draw_pair(5) != draw_pair(6)


def test_many_draws_cover_what_was_asked_for() -> None:
    drawn = [draw_pair(seed, SMOOTH_PAIRS) for seed in range(400)]
    lesions = [plan for pair in drawn for plan in pair.lesions]
    share = {kind: n / len(lesions) for kind, n in Counter(plan.kind for plan in lesions).items()}
    assert share == pytest.approx({"new": 0.2, "grown": 0.2, "shrunk": 0.15, "resolved": 0.2, "stable": 0.25}, abs=0.04)
    assert {len(pair.lesions) for pair in drawn} == {3, 4, 5, 6, 7}
    depth = np.array([pair.motion.diaphragm_mm for pair in drawn])
    assert 4 <= np.abs(depth).min() < 7
    assert 29 < np.abs(depth).max() <= 32
    assert 0.4 < (depth > 0).mean() < 0.6  # either scan may be the deeper breath
    assert 0.4 < np.mean([pair.sliding > 0 for pair in drawn]) < 0.6
    assert np.median([plan.largest_mm for plan in lesions]) == pytest.approx(8.65, rel=0.05)
    thick = [h for pair in drawn for h in (pair.reference_spacing_mm[2], pair.template_spacing_mm[2])]  # type: ignore[index]
    assert 1.0 <= min(thick) < 1.3
    assert 4.8 < max(thick) <= 5.0


def test_null_pairs_have_stable_lesions_alone() -> None:
    drawn = [draw_pair(seed, NULL_PAIRS) for seed in range(50)]
    assert {plan.kind for pair in drawn for plan in pair.lesions} == {"stable"}
    kernels = np.array([(pair.reference_kernel, pair.template_kernel) for pair in drawn])
    slices = np.array([(pair.reference_spacing_mm[2], pair.template_spacing_mm[2]) for pair in drawn])  # type: ignore[index]
    assert np.abs(np.diff(kernels)).min() >= 0.4
    assert (slices.max(1) / slices.min(1)).min() >= 1.5
    assert 0.2 < (kernels[:, 0] > kernels[:, 1]).mean() < 0.8  # either may be the sharper, or the thicker
    assert 0.2 < (slices[:, 0] > slices[:, 1]).mean() < 0.8


@pytest.mark.parametrize(
    "wrong",
    [
        {"lesions": (5, 3)},
        {"kinds": (1.0, 1.0)},
        {"kinds": (0.0, 0.0, 0.0, 0.0, 0.0)},
        {"growth": (0.9, 1.5)},
        {"noise_hu": (30.0, 10.0)},
        {"sliding_share": 1.5},
        {"in_plane_mm": (0.0, 0.0)},
        {"in_plane_mm": (0.0, 0.0), "slice_mm": (0.0, 0.0)},
        {"margin_mm": (-500.0, 10.0)},
        {"growth": (5000.0, 10000.0)},
        {"kernels_apart": 0.8},  # of -0.8 to 0.6: hardly any two are
        {"slices_apart": 2.5},
        {"slices_apart": 1.1, "slice_mm": (2.0, 2.0)},
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DrawOptions(**wrong)  # type: ignore[arg-type]


def test_kernels_sharpen_and_smooth_edges_in_the_axial_plane() -> None:
    edge = np.zeros((3, 9, 40), np.float32)
    edge[:, :, 20:] = 100.0
    grid = Grid(edge.shape, (1.0, 1.0, 3.0))
    sharp, soft = (apply_kernel(edge, grid, kernel)[1, 4] for kernel in (0.5, -1.0))
    assert apply_kernel(edge, grid, 0.0) is edge
    assert sharp.max() > 110
    assert np.diff(sharp).max() > 100 > np.diff(soft).max()
    assert soft[20] == pytest.approx(100 - 100 * 0.3, abs=5)  # half a voxel behind an edge of 1 mm
    assert sharp[[0, -1]] == pytest.approx([0, 100], abs=0.1)
    along_z = np.zeros((9, 5, 5), np.float32)
    along_z[4:] = 100.0
    assert apply_kernel(along_z, Grid(along_z.shape), -1.0) == pytest.approx(along_z)


# -- what is written -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def source() -> SourceScan:
    volume, lungs, own = phantom()
    return SourceScan("phantom", volume, lungs, own)


@pytest.fixture(scope="module")
def coarse() -> SourceScan:
    """The same chest in voxels of 4 mm: a quarter of them, where it does not matter how a pair looks."""
    volume, lungs, own = phantom(edge_mm=4.0)
    return SourceScan("phantom", volume, lungs, own)


@pytest.fixture(scope="module")
def folder(source: SourceScan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize([source], tmp_path_factory.mktemp("pairs"), pairs=1, seed=3, options=COARSE)[0]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_pair_carries_all_that_is_known(folder: Path) -> None:
    assert folder.name == "00003_phantom"
    expected = {f"{name}.nrrd" for name in FILES} | {"keypoints.csv", "lesions.csv", "truth.json"}
    assert {path.name for path in folder.iterdir()} == expected
    truth = read_truth(folder / "truth.json")
    table = rows(folder / "lesions.csv")
    assert [(row["kind"], int(row["id"])) for row in table] == [(c.kind, c.id) for c in truth.changes]
    assert len(table) == 3  # the patient's own, and two
    assert truth.about["seed"] == 3
    for side in ("reference", "template"):
        labels, grid = read_array(folder / f"lesions_{side}.nrrd")
        for row in table:
            volume = float((labels == int(row["id"])).sum()) * grid.voxel_volume_ml
            assert volume == pytest.approx(float(row[f"volume_{side}_ml"]), abs=0.001)
        assert read_array(folder / f"{side}.nrrd")[0].dtype == np.int16
        assert 0 < read_array(folder / f"lungs_{side}.nrrd")[0].mean() < 1


def test_keypoints_lie_where_the_deformation_says(folder: Path) -> None:
    table, field = rows(folder / "keypoints.csv"), read_displacement(folder / "deformation.nrrd")
    r, t = (np.array([[float(row[f"{side}{axis}"]) for axis in "xyz"] for row in table]) for side in "rt")
    where = np.array([row["where"] for row in table])
    apart = np.linalg.norm(field.apply(r) - t, axis=1)
    assert Counter(where)["vessel"] == 500
    assert Counter(where)["lung"] == 1000
    assert (where == "foerstner").sum() > 50
    assert np.median(apart) < 0.2
    assert apart[where == "foerstner"].max() < 0.01
    lungs, grid = read_array(folder / "lungs_reference.nrrd")
    assert sample_array(lungs.astype(np.float32), grid, r[where == "foerstner"]).min() > 0.5


def test_a_stopped_run_goes_on_and_nothing_is_made_twice(coarse: SourceScan, tmp_path: Path) -> None:
    options = replace(SMOOTH, lesions=(0, 0))

    def stop(fraction: float, message: str = "") -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        synthesize([coarse], tmp_path, pairs=2, options=options, progress=stop)
    (first,) = tmp_path.iterdir()
    (tmp_path / ".00001_phantom.1.partial").mkdir()  # a killed run's
    before = (first / "truth.json").stat().st_mtime_ns
    made = synthesize([coarse], tmp_path, pairs=2, options=options)
    assert [path.name for path in made] == ["00000_phantom", "00001_phantom"]
    assert (first / "truth.json").stat().st_mtime_ns == before
    alone = synthesize([coarse], tmp_path / "again", pairs=1, seed=1, options=options)[0]
    assert (alone / "reference.nrrd").read_bytes() == (made[1] / "reference.nrrd").read_bytes()


def test_pairs_made_in_another_way_are_not_mixed_up(source: SourceScan, folder: Path) -> None:
    for other, options in ((source, replace(COARSE, noise_hu=(1.0, 2.0))), (replace(source, own_lesions=None), COARSE)):
        with pytest.raises(InputError, match="other options; give another out"):
            synthesize([other], folder.parent, pairs=1, seed=3, options=options)
    assert synthesize([source], folder.parent, pairs=1, seed=3, options=COARSE) == [folder]


def test_lesions_are_cut_and_inserted_in_every_scan(coarse: SourceScan, tmp_path: Path) -> None:
    plain = replace(coarse, name="plain", own_lesions=None)
    options = replace(SMOOTH, cut_share=1.0, lesions=(1, 1))
    made = synthesize([plain, coarse], tmp_path, pairs=2, options=options)
    for folder, own in zip(made, (0, 1), strict=True):
        assert read_truth(folder / "truth.json").about["cut_from"] == ["phantom"]
        table = rows(folder / "lesions.csv")
        assert [row["cut"] for row in table] == ["False"] * own + ["True"]
        for change in read_truth(folder / "truth.json").changes[own:]:
            assert change.shape is not None
            assert max(change.diameter_reference_mm, change.diameter_template_mm) <= change.shape.full_mm
    assert all(
        row["cut"] == "False"
        for row in rows(synthesize([plain], tmp_path / "b", pairs=1, options=options)[0] / "lesions.csv")
    )
    with pytest.raises(InputError, match="other options"):  # what is cut is another patient's
        synthesize([plain], tmp_path, pairs=1, options=options)


# -- as the network sees them ---------------------------------------------------------------------
def test_samples_are_in_one_frame_and_their_keypoints_fit_the_deformation(folder: Path, tmp_path: Path) -> None:
    pairs = PairDataset([folder], (32, 32, 48), tmp_path / "cache")
    sample = pairs[0]
    (kept,) = (tmp_path / "cache").iterdir()
    before = kept.stat().st_mtime_ns
    again = pairs[0]
    assert kept.stat().st_mtime_ns == before
    assert torch.equal(sample.reference.half(), again.reference.half())
    kept.write_bytes(b"damaged")
    assert torch.equal(pairs[0].lesions_template, again.lesions_template)
    assert sample.reference.shape == (32, 32, 48)
    # keypoints lie in R's lungs, and their partners in T's
    size = torch.tensor([47.0, 31.0, 31.0])
    assert ((sample.keypoints_vox > 0) & (sample.keypoints_vox < size)).all()
    moved = sample.keypoints_vox + sample.partners_mm / torch.tensor(sample.spacing_mm)
    for mask, index in ((sample.mask_reference, sample.keypoints_vox), (sample.mask_template, moved)):
        x, y, z = index.round().long().T
        assert (mask[z.clamp(0, 31), y.clamp(0, 31), x.clamp(0, 47)] > 0.3).float().mean() > 0.95
    assert sample.true_mm is not None
    assert sample.true_mm.shape == (3, 32, 32, 48)
    assert (
        float((displacement_at(sample.true_mm, sample.keypoints_vox) - sample.partners_mm).norm(dim=1).median()) < 0.1
    )
    breathing = sample.partners_mm.norm(dim=1)
    assert 1.0 < float(breathing.mean()) < 15.0  # the rigid part is gone, breathing is left
    # warped by a field through the keypoints, T is more like R
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (48, 32, 32)), indexing="ij"), -1)
    nearest = cKDTree(sample.keypoints_vox).query(index.permute(2, 1, 0, 3).reshape(-1, 3), k=4)[1]
    u = sample.partners_mm[torch.as_tensor(nearest)].mean(dim=1).reshape(32, 32, 48, 3).permute(3, 0, 1, 2)
    inside = sample.mask_reference > 0.5
    apart = [
        float((sample.reference - image)[inside].abs().mean())
        for image in (sample.template, warp_tensor(sample.template[None, None], u[None], sample.spacing_mm)[0, 0])
    ]
    assert apart[1] < 0.8 * apart[0]
    other = PairDataset([folder], (32, 32, 32), tmp_path / "cache")
    assert other.digest() != pairs.digest()
    matched = PairDataset([folder], (32, 32, 48), tmp_path / "cache", match_resolution=True)
    assert matched.digest() != pairs.digest()
    sides = ("reference", "template")
    slices = {name: read_volume(folder / f"{name}.nrrd").grid.spacing_mm[2] for name in sides}
    assert max(slices.values()) > 1.2 * min(slices.values())
    for name in sides:  # the one of thinner slices is blurred, the other is as it was
        same = torch.equal(getattr(matched[0], name).half(), getattr(sample, name).half())
        assert same == (slices[name] == max(slices.values()))
    assert sample.registered_mm is None
    registered = PairDataset([folder], (32, 32, 48), tmp_path / "cache", with_registration=True)
    assert registered.digest() != pairs.digest()
    found = registered[0]
    assert found.registered_mm is not None
    error = displacement_at(found.registered_mm, found.keypoints_vox) - found.partners_mm
    assert float(error.norm(dim=1).mean()) < 0.3 * float(breathing.mean())
    assert not torch.equal(found.registered_mm, found.true_mm)
    with pytest.raises(InputError, match="not a pair"):
        PairDataset([tmp_path], (32, 32, 32), tmp_path / "cache")[0]


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (1.5, 1.5, 5.0)])
def test_lesions_keep_their_volume_on_any_grid(spacing: tuple[float, float, float]) -> None:
    nx, ny, nz = (round(60 / h) for h in spacing)
    source = Grid((nz, ny, nx), spacing)
    points = source.to_physical(np.indices(source.shape)[::-1].transpose(1, 2, 3, 0).astype(float))
    labels = np.zeros(source.shape, np.uint16)
    for number, (centre, radius) in enumerate((((15.3, 16.1, 14.2), 3.0), ((40.2, 41.7, 38.9), 8.0)), start=1):
        labels[np.linalg.norm(points - centre, axis=-1) < radius] = number
    for h in (2.4, 4.8):
        target = Grid((round(60 / h),) * 3, (h, h, h))
        found, changed = lesion_masks(labels, [2], source, target, np.eye(4))
        assert np.array_equal(changed > 0, (found > 0) & (np.arange(len(found)) >= round(26 / h))[:, None, None])
        small, large = found[: round(26 / h)].sum(), found[round(26 / h) :].sum()
        for count, number in ((small, 1), (large, 2)):
            volume_ml = (labels == number).sum() * source.voxel_volume_ml
            assert count == max(round(volume_ml / target.voxel_volume_ml), 1)


# -- the command ---------------------------------------------------------------------------------
def test_the_command_makes_pairs_from_files(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    volume, _, lesion = phantom(radii_mm=(52.0, 60.0, 105.0), edge_mm=4.0)
    scan, own, config = tmp_path / "chest.nrrd", tmp_path / "own.nrrd", tmp_path / "draw.json"
    write_nrrd(scan, volume.array, volume.grid)
    write_nrrd(own, lesion.astype(np.uint8), volume.grid)
    config.write_text(json.dumps({"lesions": [0, 0], "in_plane_mm": [4, 4], "slice_mm": [4, 4]}))
    words = ["--scan", scan, "--lesions", own, "--config", config, "--pairs", 1, "--out", tmp_path / "out"]
    found = CliRunner().invoke(app, ["synthesize", *map(str, words)])
    assert found.exit_code == 0, found.output
    assert "1 pairs in" in found.output
    assert (tmp_path / "out" / "00000_chest" / "truth.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", r"found \[1\], expected an object"),
        ("{", "not JSON"),
        ('{"lesion": 3}', "unknown option 'lesion'"),
        ('{"growth": [0.5, 1]}', "growth"),
    ],
)
def test_options_that_make_no_sense_are_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "draw.json"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        draw_options(path)


def test_files_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 1 lesion files for 2 scans"):
        run_synthesis(
            Synthesis((tmp_path / "a.nrrd", tmp_path / "b.nrrd"), tmp_path / "out", lesions=(tmp_path / "c",))
        )
    with pytest.raises(InputError, match=r"a\.nrrd"):
        run_synthesis(Synthesis((tmp_path / "a.nrrd",), tmp_path / "out"))
    with pytest.raises(InputError, match="no scan"):
        synthesize([], tmp_path, pairs=1)
    assert not list(tmp_path.iterdir())
