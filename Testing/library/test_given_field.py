"""Deformations of other programs on a pair of scans: how they may be read, what they swallow, whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from job_samples import QUICK
from pair_samples import phantom
from phantoms import Sphere, chest_phantom, rotation, voxel_points
from test_cli import changemap

import ChangeMapJointLib as cmj
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison import steps
from ChangeMapJointLib.comparison.assess import make_maps, warp_template
from ChangeMapJointLib.comparison.config import config_from
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.given import (
    FieldSource,
    GivenReport,
    PlacedDeformation,
    how_computed,
    place_given,
    read_given,
)
from ChangeMapJointLib.comparison.given_check import look_for_a_better_reading
from ChangeMapJointLib.comparison.methods import register_given
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.comparison.swallowed import find_swallowed, sentence
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.io.mappings import Chain, Dense, Linear
from ChangeMapJointLib.io.write import read_rigid, write_nrrd
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions
from ChangeMapJointLib.registration.quality import Figures, assess_quality, dice
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.rigid.any_size import align_any_size
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair

# -- on a pair of scans ---------------------------------------------------------------------------
pytestmark = pytest.mark.usefixtures("aligned_once")
SHIFT_MM = np.array([9.0, -8.0, 6.0])
GOOD = Figures(20, 60, 0, 0.7, 1.3, 0.1, 0.99, 0.9, 0.5, 1.0, 0.5, 900, 100, 1.0, 99.0)


def stretched(points: FloatArray) -> FloatArray:
    """Y of the current scan."""
    return points + SHIFT_MM + 0.03 * points * (0, 0, 1)


@pytest.fixture(scope="module")
def scans() -> tuple[cmj.Scan, cmj.Scan]:
    """A chest with nodules that moved, and its lungs."""

    def back(points: FloatArray) -> FloatArray:
        return (points - SHIFT_MM) / (1, 1, 1.03)

    nodules = [Sphere((x, y, z), 6.0) for x in (-80, -45, 45, 85) for y in (-30, 25) for z in (-60, -25, 40, 60)]
    volumes = [
        chest_phantom(edge_mm=5.0, lesions=nodules, noise_hu=8.0),
        chest_phantom(edge_mm=5.0, lesions=nodules, noise_hu=8.0, seed=1, moved=back),
    ]
    lungs = chest_phantom(table=False).array < -600
    lungs &= np.abs(voxel_points(volumes[0].grid)[..., 0]) < 125  # not the air round the body
    there = warp_back(lungs, volumes[0].grid)
    return cmj.Scan.of(volumes[0], lungs), cmj.Scan.of(volumes[1], there)


def warp_back(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """A mask of the current scan, moved to where the prior shows it."""
    at = voxel_points(grid)
    return (
        warp(mask, grid, grid, DisplacementField(((at - SHIFT_MM) / (1, 1, 1.03) - at).astype(np.float32), grid)) >= 0.5
    )


@pytest.fixture(scope="module")
def pair(scans: tuple[cmj.Scan, cmj.Scan]) -> cmj.ScanPair:
    return cmj.ScanPair(*scans)


@pytest.fixture(scope="module")
def rigid(scans: tuple[cmj.Scan, cmj.Scan]) -> RigidAlignment:
    return align_any_size(*scans, options=RigidOptions(starts=1))


@pytest.fixture
def aligned(rigid: RigidAlignment, monkeypatch: pytest.MonkeyPatch) -> RigidAlignment:
    """The rigid stage has its result already: it takes longest, and is tested elsewhere."""
    monkeypatch.setattr(steps, "align_any_size", lambda *scans, **options: rigid)
    return rigid


def true_field(
    scans: tuple[cmj.Scan, cmj.Scan], y: Callable[[FloatArray], FloatArray] = stretched
) -> DisplacementField:
    at = voxel_points(scans[0].grid)
    return DisplacementField((y(at) - at).astype(np.float32), scans[0].grid)


def test_the_right_reading_is_taken_in_silence(pair: cmj.ScanPair, scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    assert look_for_a_better_reading(Dense(true_field(scans)), pair) == ""
    assert look_for_a_better_reading(Linear(np.eye(4)), pair) == ""  # nothing is better than no registration


def test_wrong_readings_are_named(pair: cmj.ScanPair, scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    field = true_field(scans)
    there, spacing = voxel_points(field.grid), np.asarray(field.grid.spacing_mm)
    backward = voxel_points(scans[1].grid)
    inverse = (backward - SHIFT_MM) / (1, 1, 1.03) - backward
    wrong = {
        "mapping of the prior to the current": DisplacementField(inverse.astype(np.float32), scans[1].grid),
        "looks like RAS": replace(field, vectors_mm=field.vectors_mm * np.float32([-1, -1, 1])),
        "looks like voxels": replace(field, vectors_mm=(field.vectors_mm / spacing).astype(np.float32)),
        "looks like positions;": replace(field, vectors_mm=(field.vectors_mm + there).astype(np.float32)),
        "positions in RAS": replace(field, vectors_mm=((field.vectors_mm + there) * (-1, -1, 1)).astype(np.float32)),
    }
    for words, given in wrong.items():
        assert words in look_for_a_better_reading(Dense(given), pair)


def test_wrong_readings_of_a_warp_and_a_matrix_are_named(pair: cmj.ScanPair, scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    """The pair's motion as a rotation with shift, and the warp that leads there."""
    matrix, there = np.eye(4), voxel_points(scans[0].grid)
    matrix[:3, :3], matrix[:3, 3] = rotation(10.0, -5.0, 32.0), SHIFT_MM
    back = np.linalg.inv(matrix)
    first = apply_affine(back, stretched(there)) - there
    warp_, affine = Dense(DisplacementField(first.astype(np.float32), scans[0].grid)), Linear(matrix)
    turned = Dense(replace(warp_.field, vectors_mm=warp_.field.vectors_mm * np.float32([-1, -1, 1])))
    inverse = (apply_affine(matrix, there) - SHIFT_MM) / (1, 1, 1.03) - there
    wrong = {
        "give the files in the reverse order": (affine, warp_),
        "give the inverse matrix": (warp_, Linear(back)),
        "looks like the inverse one": (Dense(DisplacementField(inverse.astype(np.float32), scans[0].grid)), affine),
        "looks like RAS": (turned, affine),
    }
    assert look_for_a_better_reading(Chain((warp_, affine)), pair) == ""
    for words, parts in wrong.items():
        assert words in look_for_a_better_reading(Chain(parts), pair, files=2)
    one = look_for_a_better_reading(Chain((affine, warp_)), pair)
    assert one.endswith("its parts are stored in the other order.")


def test_where_a_field_ends(pair: cmj.ScanPair, scans: tuple[cmj.Scan, cmj.Scan], rigid: RigidAlignment) -> None:
    field = true_field(scans)
    aligned = pair.aligned(rigid.matrix)

    def cropped(slices: int) -> DisplacementField:
        grid = field.grid.crop((slices, 0, 0), field.grid.shape)
        return DisplacementField(np.ascontiguousarray(field.vectors_mm[slices:]), grid)

    kept = place_given(read_given(field, field.grid), aligned, rigid)
    assert kept.field is field
    assert kept.notes == ()
    bottom = int(np.flatnonzero(scans[0].mask.any(axis=(1, 2)))[0])
    part = place_given(read_given(cropped(bottom + 4), field.grid), aligned, rigid)
    assert part.field.grid.same_as(field.grid)
    assert "covers 9" in part.notes[0]
    inside = voxel_points(field.grid)[scans[0].mask]
    assert part.field.apply(inside)[:, :2] == pytest.approx(stretched(inside)[:, :2], abs=1e-3)
    with pytest.raises(cmj.InputError, match=r"deformation: covers \d\d% of the current scan's lungs, expected"):
        place_given(read_given(cropped(bottom + 15), field.grid), aligned, rigid)
    away = np.eye(4)
    away[:3, 3] = (500.0, 0.0, 0.0)
    with pytest.raises(cmj.InputError, match="takes 100% of the current scan's lungs out of the prior"):
        place_given(read_given(sitk.TranslationTransform(3, (500.0, 0.0, 0.0)), field.grid), aligned, rigid)


@pytest.fixture(scope="module")
def known() -> KnownPair:
    """A chest that breathed out, in which a lesion grew: its motion is known."""
    volume, lungs, _ = phantom((52.0, 66.0, 100.0))
    options = PairOptions(
        motion=MotionOptions(diaphragm_mm=12.0, ventral_mm=3.0, bump_mm=2.0),
        lesions=(LesionPlan("grown", 22.0, 13.0),),
        reference_spacing_mm=(2.5,) * 3,
        template_spacing_mm=(2.5,) * 3,
    )
    return make_pair(volume, lungs, seed=4, options=options)


def with_growth_deformed_away(pair: KnownPair) -> DisplacementField:
    """The true motion, but the lesion of now is mapped onto that of before."""
    true, change = pair.field(), pair.changes[0]
    now, before = 11.0, 6.5
    away = voxel_points(true.grid) - np.array(change.centre_reference_mm)
    distance = np.linalg.norm(away, axis=-1, keepdims=True)
    far = 2.2 * now
    radius = np.where(distance > far, distance, np.interp(distance, (0.0, now, far), (0.0, before, far)))
    points = np.array(change.centre_reference_mm) + away * radius / np.maximum(distance, 1e-6)
    there = true.apply(points.reshape(-1, 3)).reshape(points.shape)
    return DisplacementField((there - voxel_points(true.grid)).astype(np.float32), true.grid)


def test_growth_that_a_field_deforms_away_comes_back(known: KnownPair) -> None:
    """It is gone from the map with the field as given, which the verdict says, and back once it is refined."""
    lungs = known.lungs_reference, known.lungs_template
    pair = cmj.ScanPair.of(known.reference, known.template, *lungs)
    field = with_growth_deformed_away(known)
    options = RegistrationOptions(iterations=(12, 8, 5), working_mm=2.5, compiled=False)
    config, device = replace(config_from(QUICK), registration=options), DeviceFallback(torch.device("cpu"))
    placed = PlacedDeformation(field, (FieldSource("warp.nii.gz"),), (), "")
    lesion, grids = known.lesions_template > 0, (known.template.grid, known.reference.grid)
    true = float(warp(lesion, *grids, known.field()).sum())
    grown = (known.lesions_reference > 0) & (warp(lesion, *grids, known.field()) < 0.5)
    shares, maps = {}, {}
    for refine in (False, True):
        stages = Stages(METHODS["sequential"].shares)
        output = register_given(pair, placed, config, device, stages, refine=refine)
        y = output.registration.field
        shares[refine] = float(warp(lesion, *grids, y).sum()) / true
        trust = np.ones(y.grid.shape, np.float32)
        maps[refine] = float(make_maps(warp_template(pair, output, device), output, trust).change_map[grown].mean())
        assert output.given is not None
        assert len(output.given.swallowed) == 1
        place = output.given.swallowed[0]
        assert place.centre_mm == pytest.approx(known.changes[0].centre_reference_mm, abs=3.0)
        assert place.factor < 0.5
        judged = output.given.on_verdict(assess_quality(GOOD))
        assert judged.verdict == ("good" if refine else "look closely")
        assert ("hides it from the map" in judged.reasons[0]) is not refine
    assert shares[False] > 2.5
    assert shares[True] < 1.3
    assert maps[True] > 2 * maps[False]


def test_breathing_swallows_nothing(known: KnownPair) -> None:
    assert find_swallowed(known.field(), known.lungs_reference, known.reference.grid) == ()
    assert sentence((), refined=False) == ""


@pytest.mark.usefixtures("aligned")
def test_a_field_given_the_wrong_way_round_must_not_be_used(scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    at = voxel_points(scans[0].grid)
    inverse = ((at - SHIFT_MM) / (1, 1, 1.03) - at).astype(np.float32)
    result = cmj.compare(*scans, config=QUICK, device="cpu", deformation=inverse)
    assert result.quality.verdict == "do not use"
    assert "give its inverse" in result.quality.reasons[0]
    assert result.findings is not None
    assert not result.findings.items


# -- the command ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(scans: tuple[cmj.Scan, cmj.Scan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    (folder / "quick.json").write_text(json.dumps(QUICK))
    for name, scan in zip(("now", "before"), scans, strict=True):
        write_nrrd(folder / f"{name}.nrrd", scan.array, scan.grid)
    sitk.WriteImage(scans[0].grid.to_image(true_field(scans).vectors_mm), str(folder / "1Warp.nii.gz"))
    return folder


def run(files: Path, out: Path, *more: object) -> int:
    inputs = ["--reference", files / "now.nrrd", "--template", files / "before.nrrd", "--out", out]
    return changemap("run", *inputs, "--config", files / "quick.json", "--progress", "none", *more)


@pytest.mark.usefixtures("aligned")
def test_run_with_a_field(files: Path, scans: tuple[cmj.Scan, cmj.Scan], tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(files, out, "--field", files / "1Warp.nii.gz") == 0
    printed = capsys.readouterr().out
    assert "The deformation was given (1Warp.nii.gz) and used as it is." in printed
    saved = cmj.load_result(out)
    source = saved.record["deformation"]["sources"][0]
    assert len(source["sha256"]) == 64
    assert source["name"] == f"file {source['sha256'][:12]}"  # a file's name may be a patient's
    texts = [path for path in out.iterdir() if path.suffix in (".json", ".html", ".csv")]
    assert not [path.name for path in texts if "1Warp" in path.read_text("utf-8")]
    assert saved.record["deformation"]["refined"] is False
    assert saved.record["registration"]["levels"] == []
    assert saved.deformation.field.vectors_mm == pytest.approx(true_field(scans).vectors_mm, abs=0.005)
    report = (out / "report.html").read_text("utf-8")
    assert f"The deformation of another program was given ({source['name']})" in report
    assert source["sha256"] in report
    assert "variational registration" not in report
    warped = saved.deformation.warp(scans[1].mask, labels=True)
    assert dice(warped, scans[0].mask) > 0.9  # the prior shows 92 % of the lungs
    given = read_given(files / "1Warp.nii.gz", scans[0].grid)
    assert given.sources[0].sha256 == source["sha256"]
    assert read_rigid(out / "rigid.tfm")[:3, 3] == pytest.approx(SHIFT_MM, abs=3.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--refine"], "--refine: there is nothing to refine; give --field"),
        (["--field", "1Warp.nii.gz", "--method", "joint"], "--method joint: expected sequential"),
        (["--field", "1Warp.nii.gz", "--method", "rigid"], "--method rigid: expected sequential"),
        (["--field", "now.nrrd"], "now.nrrd: 1 component(s) per voxel"),
        (["--field", "none.nrrd"], "none.nrrd: no such file"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], words: str, files: Path, tmp_path: Path, capsys) -> None:
    given = [files / word if word.startswith(("1", "n")) else word for word in options]
    assert run(files, tmp_path / "out", *given) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_result_may_not_replace_the_given_field(files: Path, tmp_path: Path, capsys) -> None:
    assert run(files, files, "--field", files / "1Warp.nii.gz", "--overwrite") == 2
    assert "contains the input" in capsys.readouterr().err


def test_the_report_says_how_the_map_is_computed(scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    given = read_given(sitk.Euler3DTransform(), scans[0].grid)
    assert given.sources[0].name == "SimpleITK transform"
    deformation = cmj.Deformation(true_field(scans), scans[0].grid, scans[1].grid)
    assert read_given(deformation, scans[0].grid).sources[0].sha256 is None
    text = how_computed(GivenReport(given.sources, refined=True, keypoint_error_mm=None, folding_percent=0.0))
    assert "continued from it. The map is the difference" in text
    assert text.endswith(".")
    assert "pipeline" not in text
