"""The command line as a user meets it: a whole run on the sample pair, and every bad input in one line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from job_samples import QUICK, sample_request
from phantoms import chest_phantom, write_dicom

from ChangeMapJointLib.change.findings import FindingOptions
from ChangeMapJointLib.change.maps import lungs_of_both
from ChangeMapJointLib.cli.main import main
from ChangeMapJointLib.comparison.config import RunConfig, read_config
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.io.run_files import ALWAYS, WITH_MAP
from ChangeMapJointLib.io.write import read_displacement, read_rigid, write_nrrd
from ChangeMapJointLib.lungs.segment import LungOptions
from ChangeMapJointLib.registration.pyramid import resample_to_spacing
from ChangeMapJointLib.synthesis.truth import read_truth

pytestmark = pytest.mark.usefixtures("aligned_once")
THRESHOLD = 0.35  # at 3.5 mm voxels hardly any lesion reaches 0.68


def changemap(*arguments: object) -> int:
    """Run the command in this process; its exit code."""
    before = sys.argv
    sys.argv = ["changemap", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sample pair at 3.5 mm, in a folder with a space and umlauts."""
    folder = tmp_path_factory.mktemp("Prüfung 1 ä")
    paths = []
    for name in ("reference", "template"):
        volume = read_volume(resource("SamplePair", f"{name}.nrrd"))
        small, grid = resample_to_spacing(volume.array, volume.grid, (3.5, 3.5, 3.5))
        paths.append(folder / f"{name} größe.nrrd")
        write_nrrd(paths[-1], np.rint(small).astype(np.int16), grid)
    return paths[0], paths[1]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A chest of closed form, which takes a few seconds to compare."""
    folder, request = tmp_path_factory.mktemp("small"), sample_request()
    (folder / "quick.json").write_text(json.dumps(QUICK))
    paths = folder / "now.nrrd", folder / "before.nrrd"
    for path, scan in zip(paths, (request.reference, request.template), strict=True):
        write_nrrd(path, scan.volume.array, scan.volume.grid)
    return paths


@pytest.fixture(scope="session")
def finished(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sequential run on ``pair``."""
    out = tmp_path_factory.mktemp("runs") / "result"
    config = out.parent / "config.json"
    config.write_text(json.dumps({"findings": {"threshold": THRESHOLD}, "lungs": {"spacing_mm": 3.0}}))
    inputs = ["--reference", pair[0], "--template", pair[1]]
    assert changemap("run", *inputs, "--out", out, "--config", config, "--progress", "none") == 0
    return out


def test_a_run_keeps_the_output_contract(finished: Path, pair: tuple[Path, Path]) -> None:
    assert {p.name for p in finished.iterdir()} == WITH_MAP
    reference, template = (read_volume(path) for path in pair)
    arrays = {name: read_array(finished / name) for name in WITH_MAP if name.endswith(".nrrd")}
    for name, kind in (("change_map", "f4"), ("signed_change", "i2"), ("warped_template", "i2")):
        array, grid = arrays[f"{name}.nrrd"]
        assert array.dtype.str[1:] == kind
        assert grid.same_as(reference.grid)
    cm, signed = arrays["change_map.nrrd"][0], arrays["signed_change.nrrd"][0]
    assert cm.min() == 0.0
    assert 0.68 < cm.max() <= 1.0
    warped = arrays["warped_template.nrrd"][0]
    lungs = (arrays["lungs_reference.nrrd"][0] > 0) & (warped > -1024)  # where the template reaches
    assert np.abs(signed - (reference.array.astype(int) - warped))[lungs].max() <= 1
    assert arrays["lungs_template.nrrd"][1].same_as(template.grid)
    assert set(np.unique(arrays["lungs_reference.nrrd"][0])) == {0, 1, 2}
    field = read_displacement(finished / "deformation.nrrd")
    found, expected = arrays["jacobian.nrrd"][0], field.jacobian_determinant()
    in_lungs = arrays["lungs_reference.nrrd"][0] > 0
    assert np.allclose(found[in_lungs], expected[in_lungs], atol=0.02)  # every second vector was kept
    assert np.abs(found - expected).mean() < 0.004
    trust = arrays["trust.nrrd"][0]
    assert trust.min() >= 0
    assert trust.max() <= 1
    assert read_rigid(finished / "rigid.tfm").shape == (4, 4)


def test_the_map_is_the_formula(finished: Path, pair: tuple[Path, Path]) -> None:
    """CM = min(|clip(R) - clip(T(y))| / 1050, 1) inside the lungs, 0 outside."""
    r = np.clip(read_volume(pair[0]).array.astype(float), -1000, 50)
    t = np.clip(read_array(finished / "warped_template.nrrd")[0].astype(float), -1000, 50)
    cm = read_array(finished / "change_map.nrrd")[0]
    lungs = read_array(finished / "lungs_reference.nrrd")[0] > 0
    field = read_displacement(finished / "deformation.nrrd")
    prior_lungs, prior_grid = read_array(finished / "lungs_template.nrrd")
    moved = warp(prior_lungs > 0, prior_grid, field.grid, field) >= 0.5
    both = lungs_of_both(lungs, moved, field.grid)
    assert both.sum() < (lungs | moved).sum()  # a rim is there, and is not looked at
    assert (cm[~both] == 0).all()
    inside = lungs & (cm > 0)
    assert inside.mean() > 0.9 * lungs.mean()
    assert np.abs(cm - np.minimum(np.abs(r - t) / 1050, 1))[inside].max() < 1e-3  # T(y) is rounded to 1 HU


def test_registration_brings_known_points_together(finished: Path) -> None:
    truth = json.loads(resource("SamplePair", "truth.json").read_text())
    points = np.array(truth["points"])
    field = read_displacement(finished / "deformation.nrrd")
    error = np.linalg.norm(field.apply(points[:, :3]) - points[:, 3:6], axis=1)
    assert np.linalg.norm(points[:, :3] - points[:, 3:6], axis=1).mean() > 20
    assert error.mean() < 1.0  # at 3.5 mm voxels


def test_findings_are_the_true_changes(finished: Path, pair: tuple[Path, Path]) -> None:
    """Table, JSON and report agree, and most of what changed is found even at 3.5 mm voxels."""
    items = json.loads((finished / "findings.json").read_text())["findings"]
    rows = list(csv.DictReader((finished / "findings.csv").open(newline="")))
    assert [int(row["id"]) for row in rows] == [item["id"] for item in items] == list(range(1, len(items) + 1))
    assert (finished / "report.html").read_text().count("Finding ") >= len(items)
    truth = read_truth(resource("SamplePair", "truth.json"))
    solid = [c for c in truth.changes if c.is_change and c.solid]
    centres = np.array([[float(row[f"centre_{axis}_mm"]) for axis in "xyz"] for row in rows])
    near = [np.linalg.norm(centres - c.centre_reference_mm, axis=1).min() < 10 for c in solid]
    assert sum(near) >= 6
    kinds = {row["kind"] for row in rows}
    assert {"new", "resolved", "grown", "shrunk"} <= kinds


def test_run_json_says_where_the_result_comes_from(finished: Path, pair: tuple[Path, Path]) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert len(record["reference"]["sha256"]) == 64
    assert record["reference"]["bytes"] == pair[0].stat().st_size
    assert record["notices"] == []  # only the sample pair has one
    assert record["reference"]["name"] == f"scan {record['reference']['sha256'][:12]}"  # names may be a patient's
    for path in (finished / "run.json", finished / "report.html"):
        assert pair[0].name not in path.read_text("utf-8")
    assert [s["name"] for s in record["stages"]][:3] == ["read", "lungs", "rigid"]
    assert record["configuration"]["method"] == "sequential"
    assert record["versions"]["torch"]
    assert str(pair[0].parent) not in (finished / "run.json").read_text()  # no folder names


def test_the_configuration_of_a_run_is_a_config_file(finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads((finished / "run.json").read_text())["configuration"]))
    assert read_config(config) == replace(
        RunConfig(), findings=FindingOptions(threshold=THRESHOLD), lungs=LungOptions(spacing_mm=3.0)
    )


def test_rigid_makes_no_map_and_json_progress_ends_with_finished(small, tmp_path, capsys) -> None:
    arguments = ["--reference", small[0], "--template", small[1], "--out", tmp_path / "a" / "b", "--method", "rigid"]
    assert changemap("run", *arguments, "--config", small[0].with_name("quick.json"), "--progress", "json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == ALWAYS
    assert events[-1]["event"] == "finished"
    fractions = [e["fraction"] for e in events if e["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {"stage", "elapsed_s", "remaining_s"} <= set(events[5])


@pytest.mark.parametrize("finer", ["reference", "template"])
def test_finer_reference_and_coarser_template(finer, small, tmp_path) -> None:
    """Reference and template at very different resolutions must work, either way round."""
    fine = chest_phantom((80, 104, 144), (2.5, 2.5, 2.5), edge_mm=5.0)
    write_nrrd(tmp_path / "fine.nrrd", fine.array, fine.grid)
    scans = {"reference": small[1], "template": small[1], finer: tmp_path / "fine.nrrd"}
    inputs = [word for side, path in scans.items() for word in (f"--{side}", path)]
    config = small[0].with_name("quick.json")
    assert changemap("run", *inputs, "--out", tmp_path / "out", "--method", "rigid", "--config", config) == 0


# -- bad input -------------------------------------------------------------------------
def image(path: Path, array: np.ndarray, spacing=(3.0, 3.0, 3.0), vector=False) -> Path:
    picture = sitk.GetImageFromArray(array, isVector=vector)
    picture.SetSpacing(spacing[: picture.GetDimension()])
    sitk.WriteImage(picture, str(path))
    return path


def bad_missing(folder: Path) -> Path:
    return folder / "nowhere.nrrd"


def bad_text(folder: Path) -> Path:
    path = folder / "words.nrrd"
    path.write_text("not an image")
    return path


def bad_empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def bad_one_slice(folder: Path) -> Path:
    return image(folder / "one.nrrd", np.zeros((1, 40, 40), np.int16))


def bad_flat(folder: Path) -> Path:
    return image(folder / "flat.nrrd", np.zeros((40, 40), np.int16))


def bad_vectors(folder: Path) -> Path:
    return image(folder / "vectors.nrrd", np.zeros((20, 20, 20, 3), np.float32), vector=True)


def bad_nan(folder: Path) -> Path:
    array = np.full((30, 30, 30), -800.0, np.float32)
    array[3, 3, 3] = np.nan
    return image(folder / "nan.nrrd", array)


def bad_labels(folder: Path) -> Path:
    return image(folder / "labels.nrrd", np.random.default_rng(0).integers(0, 3, (40, 40, 40)).astype(np.uint8))


def bad_hu(folder: Path) -> Path:
    return image(folder / "hu.nrrd", np.random.default_rng(0).normal(30000, 500, (40, 40, 40)).astype(np.int16))


def bad_no_lungs(folder: Path) -> Path:
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 100, 100)], indexing="ij")
    hu = np.where((x / 0.8) ** 2 + (y / 0.7) ** 2 < 1, 40, -1000) + np.random.default_rng(0).normal(0, 15, z.shape)
    return image(folder / "abdomen.nrrd", hu.astype(np.int16))


def bad_spacing(folder: Path) -> Path:
    path = folder / "spacing.mhd"
    (folder / "spacing.raw").write_bytes(np.zeros((20, 20, 20), np.int16).tobytes())
    path.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 20 20 20\nElementSpacing = 1 0 1\n"
        "ElementType = MET_SHORT\nElementDataFile = spacing.raw\n"
    )
    return path


def bad_two_series(folder: Path) -> Path:
    for number in (1, 2):
        write_dicom(folder / "series" / str(number), chest_phantom(), SeriesNumber=number)
    return folder / "series"


def bad_name(folder: Path) -> Path:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/gr\xf6\xdfe.nrrd"))
    path.write_bytes(b"NRRD0004")
    return path


BAD = [v for k, v in sorted(globals().items()) if k.startswith("bad_")]


@pytest.mark.parametrize("make", BAD, ids=[f.__name__[4:] for f in BAD])
@pytest.mark.parametrize("side", ["reference", "template"])
def test_bad_input_gets_one_line_and_nothing_is_written(make, side, small, tmp_path, capsys) -> None:
    inputs = {"reference": small[0], "template": small[1], side: make(tmp_path)}
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    code = changemap("run", "--reference", inputs["reference"], "--template", inputs["template"], "--out", out,
                     "--progress", "none")  # fmt: skip
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert len(said.splitlines()) == 1
    assert os.fsencode(inputs[side].name).decode("utf-8", "backslashreplace") in said.replace("\\udc", "\\x")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--threshold", "1.5"], "threshold"),
        (["--device", "cuda"], "--device cpu"),
        (["--method", "joint", "--config", "WEIGHTS"], "none.json: cannot be read"),
        (["--config", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_options_get_one_line(arguments, word, small, tmp_path, capsys) -> None:
    if arguments[1] == "cuda" and __import__("torch").cuda.is_available():
        pytest.skip("CUDA works here")
    out, weights = tmp_path / "out", tmp_path / "weights.json"
    weights.write_text(json.dumps({"joint": {"model": str(tmp_path / "none.safetensors")}}))
    arguments = [str(weights) if one == "WEIGHTS" else one for one in arguments]
    assert changemap("run", "--reference", small[0], "--template", small[1], "--out", out, *arguments) == 2
    said = capsys.readouterr().err.strip()
    assert word in said.splitlines()[-1]
    assert not out.exists()


def test_out_that_exists_is_kept(small, tmp_path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("x")
    for extra in ([], ["--overwrite"]):
        out = tmp_path / "out"
        assert changemap("run", "--reference", small[0], "--template", small[1], "--out", out, *extra) == 2
    assert (tmp_path / "out" / "precious.txt").read_text() == "x"


def test_sigterm_leaves_nothing(small, tmp_path) -> None:
    """Stopped in the middle of the registration by the signal that schedulers send."""
    command = [sys.executable, "-m", "ChangeMapJointLib", "run", "--progress", "json", "--out", str(tmp_path / "out")]
    command += ["--reference", str(small[0]), "--template", str(small[1])]
    command += ["--config", str(small[0].with_name("quick.json"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line).get("stage") == "register":
                os.kill(child.pid, signal.SIGTERM)
                break
        rest = child.stdout.read()
        assert child.stderr is not None
        said = child.stderr.read()
    assert child.returncode == 130
    assert json.loads(rest.splitlines()[-1])["event"] == "cancelled"
    assert "nothing was written" in said
    assert list(tmp_path.iterdir()) == []


def test_a_fault_keeps_its_log(small, tmp_path, monkeypatch, capsys) -> None:
    def break_down(*args, **kwargs):
        raise ZeroDivisionError("made to fail")

    monkeypatch.setattr("ChangeMapJointLib.comparison.steps.align_any_size", break_down)
    out = tmp_path / "out"
    assert changemap("run", "--reference", small[0], "--template", small[1], "--out", out) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out.fault.log"]
    assert "made to fail" in (tmp_path / "out.fault.log").read_text()


def test_disk_full_while_writing_is_one_line_and_leaves_nothing(small, tmp_path, monkeypatch, capsys) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ChangeMapJointLib.io.write._write_data", full)
    out = tmp_path / "out"
    inputs = ["--reference", small[0], "--template", small[1], "--config", small[0].with_name("quick.json")]
    assert changemap("run", *inputs, "--out", out, "--method", "rigid") == 2
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_grid_of_the_template_may_have_another_frame(pair) -> None:
    """The pair is no toy: the scans share neither origin nor spacing."""
    a, b = (Grid.of_image(sitk.ReadImage(str(resource("SamplePair", f"{n}.nrrd")))) for n in ("reference", "template"))
    assert not np.allclose(a.spacing_mm, b.spacing_mm)
    assert np.linalg.norm(np.subtract(a.origin_mm, b.origin_mm)) > 20
