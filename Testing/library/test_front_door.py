"""``import ChangeMapJointLib as cmj``: compare two scans from Python, step by step or in one call."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from export_samples import finding, findings, grown
from phantoms import chest_phantom

import ChangeMapJointLib as cmj
from ChangeMapJointLib.change.judged import other_changes
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.export.tables import write_findings_json
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.lungs.segment import LungOptions
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions

pytestmark = pytest.mark.usefixtures("aligned_once")
SHIFT_MM = (6.0, -4.0, 5.0)
QUICK = cmj.RunConfig(method="rigid", lungs=LungOptions(spacing_mm=6.0), rigid=RigidOptions(starts=1))


@pytest.fixture(scope="module")
def scans() -> tuple[cmj.Volume, cmj.Volume]:
    """The current scan, and the prior, whose header lays it elsewhere."""
    current = chest_phantom((36, 42, 60), (5.5, 5.5, 5.5), noise_hu=10.0)
    x, y, z = np.add(current.grid.origin_mm, SHIFT_MM).tolist()
    prior = chest_phantom((36, 42, 60), (5.5, 5.5, 5.5), noise_hu=10.0, seed=1)
    return current, replace(prior, grid=replace(prior.grid, origin_mm=(x, y, z)))


@pytest.fixture(scope="module")
def rigid(scans: tuple[cmj.Volume, cmj.Volume]) -> cmj.Result:
    return cmj.compare(*scans, method="rigid", config=QUICK, device="cpu")


# -- compare ---------------------------------------------------------------------------------
def test_two_volumes_are_aligned(rigid: cmj.Result) -> None:
    point = np.array([[40.0, 10.0, 0.0]])
    assert rigid.deformation.apply(point) - point == pytest.approx(np.array([SHIFT_MM]), abs=0.6)
    assert rigid.change_map is None
    assert rigid.findings is None
    assert rigid.record.config.method == "rigid"


def test_images_files_and_volumes_give_the_same(
    scans: tuple[cmj.Volume, cmj.Volume], rigid: cmj.Result, tmp_path: Path
) -> None:
    write_nrrd(tmp_path / "prior.nrrd", scans[1].array, scans[1].grid)
    image = scans[0].grid.to_image(scans[0].array)
    result = cmj.compare(image, tmp_path / "prior.nrrd", method="rigid", config=QUICK, device="cpu")
    assert np.array_equal(result.rigid.matrix, rigid.rigid.matrix)
    assert np.array_equal(result.warped_template, rigid.warped_template)


def test_what_cannot_be_a_scan_is_told(scans: tuple[cmj.Volume, cmj.Volume], tmp_path: Path) -> None:
    with pytest.raises(cmj.InputError, match=r"missing\.nrrd: no such file"):
        cmj.compare(tmp_path / "missing.nrrd", scans[1], method="rigid")
    with pytest.raises(cmj.InputError, match="prior: found int, expected a path, a SimpleITK image, a Volume or"):
        cmj.compare(scans[0], 3, method="rigid")  # type: ignore[arg-type]
    holes = scans[0].grid.to_image(np.full(scans[0].grid.shape, np.nan, np.float32))
    with pytest.raises(cmj.InputError, match=r"current.*NaN"):
        cmj.compare(holes, scans[1], method="rigid")
    with pytest.raises(cmj.InputError, match="2 dimensions"):
        cmj.read(sitk.Image(4, 4, sitk.sitkInt16))
    with pytest.raises(cmj.InputError, match="method"):
        cmj.compare(*scans, method="magic")  # type: ignore[arg-type]


def test_what_is_made_by_hand_is_checked_at_once(scans: tuple[cmj.Volume, cmj.Volume], rigid: cmj.Result) -> None:
    current, grid = scans[0], scans[0].grid
    lungs, move = rigid.pair.reference.lungs, rigid.deformation
    label_map = sitk.Image([4, 4, 4], sitk.sitkLabelUInt8)  # SimpleITK ends the process when asked for its voxels
    for call, said in (
        (lambda: cmj.Volume(None, grid), r"Volume\.array: found NoneType, expected a numpy array"),
        (lambda: cmj.Volume(current.array[1:], grid), r"Volume\.array: found shape \(35, 42, 60\), expected \(36, 42"),
        (lambda: cmj.Volume(current.array.astype(complex), grid), r"Volume\.array: found complex128, expected real"),
        (lambda: cmj.Volume(current.array, None), r"Volume\.grid: found NoneType, expected a Grid"),
        (lambda: cmj.Grid((4, 4, 4), None), "Grid: found .*expected numbers"),
        (lambda: cmj.Grid((4, 4, 4), (1, 0, 1)), r"Grid\.spacing_mm: found \(1, 0, 1\), expected three positive"),
        (lambda: cmj.Grid((4.5, 4, 4)), r"Grid\.shape: found \(4\.5, 4, 4\)"),
        (lambda: cmj.Scan(current, lungs.mask), r"Scan\.lungs: found ndarray, .*Scan\.of"),
        (lambda: cmj.Scan(None, lungs), r"Scan\.volume: found NoneType"),
        (lambda: cmj.Scan.of(current, [1]), "lungs: found list"),
        (lambda: cmj.read(label_map), "scan: found a SimpleITK label map"),
        (lambda: move.warp(label_map), "image: found a SimpleITK label map"),
        (lambda: move.warp("a.nrrd"), "image: found str"),
        (lambda: move.warp(current.array, labels=True, outside=float("nan")), "outside"),
        (lambda: move.apply([[1, 2]]), r"points_mm: found shape \(1, 2\), expected points \[n, 3\]"),
        (lambda: move.invert(["a"]), "points_mm: found no numbers"),
        (lambda: rigid.save(None), "out: found NoneType, expected a path"),
        (lambda: rigid.save("a\udcff"), "the name is not UTF-8"),  # ITK ends the process at it
        (lambda: rigid.save("a\0b"), "out: found a null character"),
        (lambda: rigid.report(b"x"), "path: found bytes"),
        (lambda: cmj.load_result(3), "folder: found int"),
        (lambda: cmj.load_result("no-such-folder"), "no-such-folder: no such folder"),
        (lambda: cmj.read(""), "scan: found an empty path"),
    ):
        with pytest.raises(cmj.InputError, match=said):
            call()  # type: ignore[no-untyped-call]


def test_a_volume_without_a_name_is_called_by_its_argument(scans: tuple[cmj.Volume, cmj.Volume]) -> None:
    grid, array = scans[0].grid, scans[0].array
    with pytest.raises(cmj.InputError, match=r"^prior: all voxels are NaN"):
        cmj.compare(scans[0], cmj.Volume(np.full(grid.shape, np.nan, np.float32), grid), method="rigid")
    other_order = cmj.read(cmj.Volume(array.astype(">i2"), grid))  # SimpleITK takes this machine's alone
    assert other_order.array.dtype.isnative
    assert np.array_equal(other_order.array, cmj.read(scans[0]).array)


def test_the_folder_of_a_scan_may_be_the_current_one(
    scans: tuple[cmj.Volume, cmj.Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cmj.InputError, match="no DICOM images found"):
        cmj.read(".")


def test_what_a_run_has_lost_is_named(rigid: cmj.Result, tmp_path: Path) -> None:
    loaded = cmj.load_result(rigid.save(tmp_path / "out"))
    for name in ("report.html", "rigid.tfm"):
        (tmp_path / "out" / name).unlink()
    with pytest.raises(cmj.InputError, match=r"out: has no report\.html; run the comparison again"):
        loaded.report(tmp_path / "copy.html")
    with pytest.raises(cmj.InputError, match=r"rigid\.tfm: no such file"):
        assert loaded.rigid is not None


def test_wrong_arguments_are_named(scans: tuple[cmj.Volume, cmj.Volume]) -> None:
    for wrong, said in (
        ({"config": 3}, "config: found int"),
        ({"config": {"colour": "red"}}, "colour"),
        ({"device": "gpu"}, "device"),
        ({"method": "Sequential"}, "method='Sequential'"),
        ({"method": ["rigid"]}, "method="),
        ({"threshold": 2.0}, "^threshold: found 2.0, expected a number in"),
        ({"threshold": "0.5"}, "^threshold: found '0.5', expected a number"),
        ({"device": torch.device("meta")}, "device='meta': does not work here"),
    ):
        with pytest.raises(cmj.InputError, match=said):
            cmj.compare(*scans, **wrong)  # type: ignore[arg-type]
    for call in (
        lambda: cmj.segment_lungs("scan.nrrd"),  # type: ignore[arg-type]
        lambda: cmj.register(*scans),  # type: ignore[arg-type]
        lambda: cmj.find_changes(None),  # type: ignore[arg-type]
    ):
        with pytest.raises(cmj.InputError, match=r"found .*, expected"):
            call()


def test_lungs_that_are_given_are_taken(scans: tuple[cmj.Volume, cmj.Volume], rigid: cmj.Result) -> None:
    pair = rigid.pair
    result = cmj.compare(pair.reference, pair.template, method="rigid", config=QUICK, device="cpu", progress=None)
    assert result.pair.reference.lungs is pair.reference.lungs
    one_side = cmj.compare(pair.reference, scans[1], method="rigid", config=QUICK, device="cpu")
    assert one_side.pair.reference.lungs is pair.reference.lungs
    assert np.array_equal(one_side.pair.template.lungs.labels, pair.template.lungs.labels)
    assert np.array_equal(result.rigid.matrix, rigid.rigid.matrix)


def test_the_method_alone_decides(scans: tuple[cmj.Volume, cmj.Volume]) -> None:
    joint = replace(QUICK, method="joint")
    assert cmj.compare(*scans, method="rigid", config=joint, device="cpu").joint is None


def test_progress_can_stop_it(scans: tuple[cmj.Volume, cmj.Volume]) -> None:
    seen: list[str] = []

    def stop(event: object) -> None:
        seen.append(event.stage)  # type: ignore[attr-defined]
        if seen[-1] == "lungs":
            raise cmj.Cancelled

    with pytest.raises(cmj.Cancelled):
        cmj.compare(*scans, method="rigid", config=QUICK, device="cpu", progress=stop)
    assert set(seen) == {"read", "lungs"}


def test_the_steps_give_what_the_whole_gives(scans: tuple[cmj.Volume, cmj.Volume], rigid: cmj.Result) -> None:
    volumes = [cmj.read(scan) for scan in scans]
    current, prior = (cmj.Scan(volume, cmj.segment_lungs(volume, options=QUICK.lungs)) for volume in volumes)
    registered = cmj.register(current, prior, method="rigid", config=QUICK, device="cpu")
    result = cmj.find_changes(registered)
    assert np.array_equal(result.warped_template, rigid.warped_template)
    assert result.quality == rigid.quality
    assert np.array_equal(registered.deformation.field.vectors_mm, result.deformation.field.vectors_mm)


# -- the deformation -------------------------------------------------------------------------
def test_anything_on_the_priors_grid_is_warped() -> None:
    template, reference = Grid((6, 7, 8), (2.0, 2.0, 2.0), (1.0, 2.0, 3.0)), Grid((5, 6, 7), (2.0, 2.0, 2.0))
    shift = np.eye(4)
    shift[:3, 3] = (3.0, 4.0, 5.0)  # one whole voxel along every axis, and the difference of the origins
    move = cmj.Deformation(DisplacementField.from_affine(shift, reference), reference, template)
    values = np.random.default_rng(0).integers(-900, 100, template.shape).astype(np.int16)
    expected = values[1:6, 1:7, 1:8]
    assert move.warp(values) == pytest.approx(expected, abs=1e-3)
    labels = (values > -400).astype(np.uint8)
    warped = move.warp(labels, labels=True)
    assert warped.dtype == np.uint8
    assert np.array_equal(warped, labels[1:6, 1:7, 1:8])
    volume = move.warp(cmj.Volume(values, template))
    assert isinstance(volume, cmj.Volume)
    assert volume.grid == reference
    assert np.array_equal(volume.array, expected)
    image = move.warp(template.to_image(labels), labels=True)
    assert image.GetPixelID() == sitk.sitkUInt8
    assert image.GetOrigin() == reference.origin_mm
    assert np.array_equal(sitk.GetArrayFromImage(image), labels[1:6, 1:7, 1:8])
    with pytest.raises(ValueError, match="prior's shape"):
        move.warp(values[1:])
    with pytest.raises(ValueError, match="3 dimensions"):
        move.warp(sitk.Image(4, 4, sitk.sitkInt16))


def test_what_the_prior_does_not_show_gets_the_value_that_was_asked_for() -> None:
    grid = Grid((4, 4, 4), (2.0, 2.0, 2.0))
    shift = np.eye(4)
    shift[0, 3] = 4.0
    move = cmj.Deformation(DisplacementField.from_affine(shift, grid), grid, grid)
    ones = np.ones(grid.shape, np.int16)
    assert move.warp(ones)[0, 0].tolist() == [1, 1, 0, 0]
    assert move.warp(ones, labels=True, outside=7)[0, 0].tolist() == [1, 1, 7, 7]
    warped = move.warp(cmj.Volume(ones, grid))
    assert warped.array[0, 0].tolist() == [1, 1, -1024, -1024]
    assert warped.unseen is not None
    assert warped.unseen[0, 0].tolist() == [False, False, True, True]
    mask = move.warp(cmj.Volume(np.zeros(grid.shape, np.int16), grid), labels=True)
    assert not mask.array.any()
    with pytest.raises(ValueError, match=r"outside=300: expected a value that fits labels of uint8"):
        move.warp(ones.astype(np.uint8), labels=True, outside=300)
    shares = move.warp(cmj.Volume(np.full(grid.shape, 0.4, np.float32), grid), outside=0)
    assert shares.array[0, 0].tolist() == pytest.approx([0.4, 0.4, 0, 0])
    padded = np.zeros(grid.shape, bool)
    padded[..., 3] = True
    assert move.warp(cmj.Volume(ones, grid, unseen=padded)).array[0, 0].tolist() == [1, -1024, -1024, -1024]


# -- saving and loading ------------------------------------------------------------------------
def test_a_result_is_saved_as_a_run_and_loaded_again(rigid: cmj.Result, tmp_path: Path) -> None:
    out = rigid.save(tmp_path / "out")
    loaded = cmj.load_result(out)
    assert (loaded.quality.verdict, loaded.quality.reasons) == (rigid.quality.verdict, rigid.quality.reasons)
    assert loaded.quality.lung_dice == pytest.approx(rigid.quality.lung_dice, rel=1e-4)
    assert loaded.gate == rigid.gate
    assert loaded.findings is None
    assert loaded.rigid == pytest.approx(rigid.rigid.matrix)
    point = [[40.0, 10.0, 0.0]]
    assert loaded.deformation.apply(point) == pytest.approx(rigid.deformation.apply(point), abs=1e-3)
    assert loaded.change_map is None
    assert np.array_equal(loaded.warped_template, rigid.warped_template)
    assert [stage["name"] for stage in loaded.record["stages"]][-1] == "write"
    assert loaded.record["reference"]["sha256"] is None  # it was no file
    assert loaded.report(tmp_path / "copy.html").read_bytes() == (out / "report.html").read_bytes()
    page = rigid.report(tmp_path / "page.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    with pytest.raises(cmj.InputError, match="overwrite"):
        rigid.save(out)
    assert rigid.save(out, overwrite=True) == out


def test_findings_are_read_as_they_were_written(rigid: cmj.Result, tmp_path: Path) -> None:
    written = findings(finding(1), grown(2))
    out = rigid.save(tmp_path / "out")
    write_findings_json(out / "findings.json", replace(written, threshold=0.5, dropped=2))
    loaded = cmj.load_result(out).findings
    assert loaded is not None
    assert (len(loaded), loaded.threshold, loaded.dropped, loaded.labels) == (2, 0.5, 2, None)
    for before, after in zip(written, loaded, strict=True):
        assert (after.kind, after.lung, after.remark) == (before.kind, before.lung, before.remark)
        assert after.centre_mm == pytest.approx(before.centre_mm, rel=1e-4)
        for name in ("lesion_reference", "lesion_template"):
            lesion, same = getattr(before, name), getattr(after, name)
            assert (lesion is None) == (same is None)
            if lesion is not None:
                assert same.volume_ml == pytest.approx(lesion.volume_ml, rel=1e-4)
                assert same.centre_mm == pytest.approx(lesion.centre_mm, rel=1e-4)
    (out / "findings.json").write_text('{"findings": [{"id": 1, "kind": "new", "centre_mm": [0, 0, 0]}]}', "utf-8")
    with pytest.raises(cmj.InputError, match=r"findings\.json.*run the comparison again"):
        cmj.load_result(out)


def test_the_other_sections_are_read_back_and_an_older_run_has_none(rigid: cmj.Result, tmp_path: Path) -> None:
    rim = replace(grown(2), section="explained", probability=0.04, reason="wall")
    written = replace(findings(replace(finding(1), probability=0.9)), others=(rim,), operating_point="specific")
    out = rigid.save(tmp_path / "out")
    write_findings_json(out / "findings.json", written)
    write_findings_json(out / "candidates.json", other_changes(written, 0.5))
    loaded = cmj.load_result(out)
    assert [(item.id, item.section, item.probability, item.reason) for item in loaded.findings.others] == [
        (2, "explained", 0.04, "wall")
    ]
    assert (loaded.findings.items[0].probability, loaded.findings.operating_point) == (0.9, "specific")
    assert loaded.candidates.items == loaded.findings.others
    for name in ("findings", "candidates"):  # without the newer fields, and what is a finding is a candidate as well
        document = json.loads((out / f"{name}.json").read_text("utf-8"))
        document.pop("operating_point")
        document["findings"] = [
            {key: value for key, value in entry.items() if key not in ("section", "probability", "reason")}
            for entry in document["findings"]
        ]
        (out / f"{name}.json").write_text(json.dumps(document), "utf-8")
    older = cmj.load_result(out)
    assert (len(older.findings), older.findings.others, older.findings.operating_point) == (1, (), None)
    assert older.findings.items[0].probability is None
    assert len(older.candidates) == 1


def test_a_report_is_never_written_over_a_scan(
    scans: tuple[cmj.Volume, cmj.Volume], rigid: cmj.Result, tmp_path: Path
) -> None:
    scan = tmp_path / "current.nrrd"
    write_nrrd(scan, scans[0].array, scans[0].grid)
    before = scan.read_bytes()
    inputs = cmj.Input(scan), cmj.Input(scans[1])
    result = replace(rigid, record=replace(rigid.record, inputs=inputs))
    with pytest.raises(cmj.InputError, match="would be written over the scan"):
        result.report(scan)
    assert scan.read_bytes() == before


def test_damaged_runs_are_told_in_one_line(rigid: cmj.Result, tmp_path: Path) -> None:
    out = rigid.save(tmp_path / "out")
    with pytest.raises(cmj.InputError, match="expected the folder of a finished run"):
        cmj.load_result(out / "run.json")
    with pytest.raises(cmj.InputError, match="cannot be written"):
        cmj.load_result(out).report(tmp_path / "nowhere" / "page.html")
    for name, content in (("dropped", '"x"'), ("withheld", "[]"), ("why", '"text"'), ("threshold", "null")):
        (out / "findings.json").write_text(f'{{"findings": [], "{name}": {content}}}', "utf-8")
        with pytest.raises(cmj.InputError, match="run the comparison again"):
            cmj.load_result(out)
    (out / "findings.json").unlink()
    record = json.loads((out / "run.json").read_text("utf-8"))
    for changes, said in (
        ({"schema": "changemap.run/99"}, "run/99"),
        ({"configuration": {"method": "sequential"}}, r"has no findings\.json"),
    ):
        (out / "run.json").write_text(json.dumps({**record, **changes}), "utf-8")
        with pytest.raises(cmj.InputError, match=said):
            cmj.load_result(out)


def test_what_is_no_path_is_told_everywhere(rigid: cmj.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls = {
        "folder": cmj.load_result,
        "out": rigid.save,
        "path": rigid.report,
        "cases": cmj.evaluate,
        "logs": lambda value: cmj.evaluate_readers([value]),
        "truth": lambda value: cmj.evaluate_readers("logs", value),
        "runs": lambda value: cmj.evaluate("cases.csv", runs=[value]),
    }
    wrong = {b"a": "found bytes", "": "found an empty path", "a\0b": "found a null character", "a" * 5000: "5000 char"}
    for argument, call in calls.items():
        for value, found in wrong.items():
            if (argument, value) != ("cases", b"a"):
                with pytest.raises(cmj.InputError, match=f"^{argument}: {found}|^{argument}: found a name of {found}"):
                    call(value)
    assert not list(tmp_path.iterdir())


def test_wrong_types_are_told_with_their_argument(
    scans: tuple[cmj.Volume, cmj.Volume], rigid: cmj.Result, tmp_path: Path
) -> None:
    current, prior = scans
    finer = cmj.Grid(current.grid.shape, (1.0, 1.0, 1.0))
    lungs = cmj.Scan.of(cmj.Volume(current.array, finer), current.array < -500).lungs
    calls = {
        "current: found an array .* make it a Volume": lambda: cmj.compare(current.array, prior),
        "scan: found an array .* make it a Volume": lambda: cmj.read(prior.array),
        "prior: found NoneType": lambda: cmj.compare(current, cmj.Input(None)),
        "progress: found int, expected a function": lambda: cmj.compare(current, prior, progress=3),
        "Volume.array: found float16, .* astype": lambda: cmj.Volume(current.array.astype(np.float16), current.grid),
        "Scan.lungs: found lungs on another grid": lambda: cmj.Scan(current, lungs),
        "notices: found str": lambda: rigid.save(tmp_path / "out", notices="one text"),
        "notices: found int in it": lambda: rigid.save(tmp_path / "out", notices=[3]),
        "path='\\.': has no name": lambda: rigid.report(Path()),
        "cases: found NoneType": lambda: cmj.evaluate(None),
        "cases: found dict": lambda: cmj.evaluate([{"case": "a"}]),
        "runs: found str": lambda: cmj.evaluate("cases.csv", runs="cohort"),
        "logs: found NoneType": lambda: cmj.evaluate_readers(None),
        "margin_mm: found 'a'": lambda: cmj.evaluate_readers("logs", margin_mm="a"),
        "seed: found -1": lambda: cmj.evaluate_readers("logs", seed=-1),
    }
    for message, call in calls.items():
        with pytest.raises(cmj.InputError, match=f"^{message}"):
            call()
    assert not list(tmp_path.iterdir())
