"""DICOM objects of a result: read back by highdicom, pydicom, dciodvfy and DCMTK, never with more than asked for."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_samples import IDENTITY, POISON, Exported, dcmtk, places_of
from pydicom.uid import SecondaryCaptureImageStorage
from typer.testing import CliRunner

hd = pytest.importorskip("highdicom", reason="highdicom, of the extra dicom, is not installed")

from ChangeMapJointLib.cli.main import app  # noqa: E402
from ChangeMapJointLib.comparison.load import load_result  # noqa: E402
from ChangeMapJointLib.comparison.to_dicom import check_objects  # noqa: E402
from ChangeMapJointLib.core.errors import InputError  # noqa: E402
from ChangeMapJointLib.core.grid import Grid, apply_affine  # noqa: E402
from ChangeMapJointLib.export.dicom import codes  # noqa: E402
from ChangeMapJointLib.export.dicom.tracking import earlier_tracking  # noqa: E402
from ChangeMapJointLib.io import run_files  # noqa: E402
from ChangeMapJointLib.io.dicom.images import read_source_images  # noqa: E402
from ChangeMapJointLib.io.reading_file import ReadingFile  # noqa: E402
from ChangeMapJointLib.io.write import rounded  # noqa: E402

NAMES = ("segmentation", "measurements", "registration_rigid", "change_map", "registration_deformable", "report")


@pytest.fixture(scope="module")
def exported(dicom_sample, dicom_objects) -> Exported:
    return Exported.of(dicom_sample, dicom_objects)


@pytest.fixture(scope="module")
def run(dicom_run) -> Path:
    return dicom_run


def on_grid(volume, grid: Grid) -> np.ndarray:
    """The array of a highdicom volume at the places of a grid, by its affine alone."""
    index = np.argwhere(np.ones(volume.array.shape, bool))
    place = grid.to_index(apply_affine(volume.affine, index))[:, ::-1]
    np.testing.assert_allclose(place, np.rint(place), atol=1e-3)
    result = np.zeros(grid.shape, volume.array.dtype)
    result[tuple(np.rint(place).astype(int).T)] = volume.array.ravel()
    return result


# -- what others read -----------------------------------------------------------------------
def test_the_segmentation_reads_back_voxel_for_voxel(exported):
    segmentation = hd.seg.segread(exported.folder / "segmentation.dcm")
    volume = segmentation.get_volume(combine_segments=True, allow_missing_positions=True)
    result = exported.sample.result
    np.testing.assert_array_equal(on_grid(volume, result.pair.reference.grid), result.findings.labels)
    types = [item.SegmentedPropertyTypeCodeSequence[0] for item in segmentation.SegmentSequence]
    kinds = [item.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning for item in types]
    assert kinds == ["New finding", "Increased size"]
    assert [
        item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning
        for item in segmentation.SegmentSequence
    ] == ["Right", "Left"]


def test_the_parametric_map_reads_back_bit_for_bit_in_its_place(exported):
    volume = hd.imread(exported.folder / "change_map.dcm").get_volume(apply_real_world_transform=False)
    result = exported.sample.result
    stored = rounded(result.change_map, run_files.MAP_STEP)  # as a run writes it
    np.testing.assert_array_equal(on_grid(volume, result.pair.reference.grid), stored)


def test_the_deformable_registration_is_y_by_the_formula_of_the_standard(exported):
    """PS3.3 C.20.3.1.1: source = registered + offset, the grid's axes are row, column and row x column."""
    dataset = exported.read("registration_deformable")
    (item,) = dataset.DeformableRegistrationSequence
    (grid,) = item.DeformableRegistrationGridSequence
    row, column = np.reshape([float(v) for v in grid.ImageOrientationPatient], (2, 3))
    axes = np.stack((row, column, np.cross(row, column)), 1) * np.array(grid.GridResolution, float)
    nx, ny, nz = grid.GridDimensions
    offsets = np.frombuffer(grid.VectorGridData, "<f4").reshape(nz, ny, nx, 3)
    index = np.random.default_rng(0).integers(0, (nx, ny, nz), (500, 3))
    points = index @ axes.T + [float(v) for v in grid.ImagePositionPatient]
    moved = points + offsets[tuple(index[:, ::-1].T)]
    np.testing.assert_allclose(moved, exported.sample.result.deformation.apply(points), atol=0.01)
    current, prior = (pydicom.dcmread(next(p.iterdir())) for p in (exported.sample.current, exported.sample.prior))
    assert dataset.FrameOfReferenceUID == current.FrameOfReferenceUID
    assert item.SourceFrameOfReferenceUID == prior.FrameOfReferenceUID


def test_the_rigid_registration_takes_the_prior_to_the_current_scan(exported):
    """PS3.3 C.20.2.1.1: the matrix takes points of the item's frame of reference to the registered one."""
    dataset = exported.read("registration_rigid")
    current, prior = dataset.RegistrationSequence
    matrices = [
        np.reshape(
            [
                float(v)
                for v in item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
            ],
            (4, 4),
        )
        for item in (current, prior)
    ]
    assert dataset.FrameOfReferenceUID == current.FrameOfReferenceUID != prior.FrameOfReferenceUID
    np.testing.assert_array_equal(matrices[0], np.eye(4))
    points = np.random.default_rng(1).uniform(-200, 200, (50, 3))
    in_prior = apply_affine(exported.sample.result.rigid.matrix, points)
    np.testing.assert_allclose(apply_affine(matrices[1], in_prior), points, atol=1e-6)


def test_the_report_holds_the_figures_of_every_finding_under_the_segments_tracking(exported):
    report = hd.sr.srread(exported.folder / "measurements.dcm")
    segments = exported.read("segmentation").SegmentSequence
    grown = exported.sample.result.findings.items[1]
    uid = segments[1].TrackingUID
    volumetric = report.content.get_volumetric_roi_measurement_groups(tracking_uid=uid)
    lesions = report.content.get_planar_roi_measurement_groups(tracking_uid=uid)
    assert len(volumetric) == 1
    assert len(lesions) == 2
    assert volumetric[0].referenced_segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber == 2
    region = {m.name.meaning: m.value for m in volumetric[0].get_measurements()}
    assert region["Volume doubling time"] == grown.doubling_time_days
    assert region["Change of volume since the prior scan"] == grown.volume_change_percent
    assert "Volume doubling time, upper end of 95 % interval" not in region  # unknown: no growth is possible
    now, before = ({m.name.meaning: m.value for m in group.get_measurements()} for group in lesions)
    assert (now["Volume"], before["Volume"]) == (17.2, 7.2)
    assert now["Long Axis"] == grown.lesion_reference.long_diameter_mm
    images = [read_source_images(p) for p in (exported.sample.current, exported.sample.prior)]
    for group, scan, lesion in zip(lesions, images, (grown.lesion_reference, grown.lesion_template), strict=True):
        circle = group.roi
        (source,) = circle.ContentSequence
        uid = source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        image = next(i for i in scan.images if i.SOPInstanceUID == uid)
        row, column = np.reshape([float(v) for v in image.ImageOrientationPatient], (2, 3))
        down, right = (float(v) for v in image.PixelSpacing)
        pixels = circle.value - 0.5  # from the corner of the first pixel to its centre
        ends = np.array(image.ImagePositionPatient, float) + pixels @ np.stack((row * right, column * down))
        off = ends.mean(axis=0) - lesion.centre_mm
        assert abs(off @ np.cross(row, column)) <= 2.5  # half a slice
        assert np.hypot(off @ row, off @ column) < 0.01
        np.testing.assert_allclose(np.linalg.norm(ends - ends.mean(axis=0), axis=1), 11.75, atol=0.01)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(exported):
    for file in exported.files:
        text = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=False).stderr
        assert not [line for line in text.splitlines() if line.startswith("Error")], file.name


@pytest.mark.skipif(dcmtk("storescp") is None, reason="storescp (DCMTK) is not installed")
@pytest.mark.parametrize("options", [[], ["+xi"], ["+xa"]], ids=["as it comes", "implicit alone", "all"])
def test_a_server_takes_every_object_compressed_or_not(exported, tmp_path, options):
    objects, stored = shutil.copytree(exported.folder, tmp_path / "objects"), tmp_path / "stored"
    stored.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen([dcmtk("storescp"), *options, "-od", stored, port], stderr=subprocess.DEVNULL)
    try:
        echo = [dcmtk("echoscu"), "-to", "5", "127.0.0.1", port]
        end = time.monotonic() + 60
        while subprocess.run(echo, capture_output=True, check=False, timeout=20).returncode != 0:
            assert server.poll() is None
            assert time.monotonic() < end
        answer = CliRunner().invoke(app, ["send", str(objects), "--to", f"ANY@127.0.0.1:{port}", "--progress", "none"])
        assert answer.exit_code == 0, answer.output
    finally:
        server.kill()
        server.wait(timeout=20)
    found = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, stored.iterdir())}
    sent = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, exported.files)}
    assert found.keys() == sent.keys()
    pages = [uid for uid, ds in sent.items() if ds.SOPClassUID == SecondaryCaptureImageStorage]
    assert {found[uid].file_meta.TransferSyntaxUID.is_compressed for uid in pages} == {options == ["+xa"]}
    for uid in pages[:1]:
        np.testing.assert_array_equal(found[uid].pixel_array, sent[uid].pixel_array)
        assert found[uid].LossyImageCompression == "01"


# -- whose they are -------------------------------------------------------------------------
def test_every_object_carries_the_current_patient_and_study_and_refers_to_its_images(exported):
    current = pydicom.dcmread(next(exported.sample.current.iterdir()))
    known = {pydicom.dcmread(p).SOPInstanceUID for p in exported.sample.current.iterdir()}
    series = set()
    for file in exported.files:
        dataset = pydicom.dcmread(file)
        for keyword in (*IDENTITY, "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"):
            assert str(dataset.get(keyword, "")) == str(current.get(keyword)), (file.name, keyword)
        assert not dataset.get("ReferringPhysicianName")
        assert "Research use" in dataset.SeriesDescription
        assert dataset.SeriesInstanceUID not in (current.SeriesInstanceUID, None)
        assert any(uid.encode() in file.read_bytes() for uid in known)
        series.add(dataset.SeriesInstanceUID)
    assert len(series) == len(NAMES) + 1  # the pages are one more series


def test_nothing_but_what_an_object_is_filed_by_leaves_the_headers(exported):
    for file in exported.files:
        content = file.read_bytes().lower()
        for keyword, value in (*POISON.items(), ("folder", "Poisonfolder"), ("name", "poison")):
            assert str(value).lower().encode() not in content, (file.name, keyword)


def test_anonymous_objects_hold_no_identifier_and_the_same_pages(exported, run, tmp_path):
    sample = exported.sample
    files = load_result(run).to_dicom(
        tmp_path / "objects", reference=sample.current, template=sample.prior, anonymous=True
    )
    headers = [
        pydicom.dcmread(p, stop_before_pixels=True)
        for folder in (exported.sample.current, exported.sample.prior)
        for p in folder.iterdir()
    ]
    secrets = {str(ds.get(k)) for ds in headers for k in (*IDENTITY, *POISON, "AccessionNumber", "StudyDate")}
    secrets |= {
        str(ds.get(k))
        for ds in headers
        for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    } - {"F"}
    for file in files:
        content = file.read_bytes()
        assert not [s for s in secrets - {"F", "None", ""} if s.encode() in content], file.name
    assert pydicom.dcmread(tmp_path / "objects" / "report.dcm").BurnedInAnnotation == "NO"
    for file in (f for f in files if "page" in f.name):  # no identity is burned in: it would differ
        first, second = (pydicom.dcmread(f).pixel_array for f in (file, exported.folder / file.name))
        assert np.abs(first[:-60].astype(int) - second[:-60]).max() <= 8  # but for the number in the footer


def test_the_same_result_gives_the_same_bytes_and_the_report_is_the_document(exported, run, tmp_path):
    sample = exported.sample
    files = load_result(run).to_dicom(tmp_path / "again", reference=sample.current, template=sample.prior)
    assert [f.name for f in files] == [f.name for f in exported.files]
    different = [f.name for f in files if f.read_bytes() != (exported.folder / f.name).read_bytes()]
    assert different == ["report.dcm"]  # a result that was not saved has no hash that the document could state
    answer = CliRunner().invoke(
        app, ["report", str(run), "--pdf", str(tmp_path / "a.pdf"), "--reference", str(sample.current)]
    )
    assert answer.exit_code == 0, answer.output
    filed, unsaved = (pydicom.dcmread(folder / "report.dcm") for folder in (tmp_path / "again", exported.folder))
    assert filed.EncapsulatedDocument[: filed.EncapsulatedDocumentLength] == (tmp_path / "a.pdf").read_bytes()
    assert filed.SOPInstanceUID != unsaved.SOPInstanceUID
    assert filed.BurnedInAnnotation == "YES"


def test_a_decision_of_the_reader_makes_another_report_and_old_objects_are_not_sent(exported, run, tmp_path):
    folder, sample = shutil.copytree(run, tmp_path / "run"), exported.sample
    shutil.copytree(exported.folder, tmp_path / "run.dicom")
    check_objects(load_result(folder), tmp_path / "run.dicom")
    ReadingFile(folder).decide(11, decision="rejected", comment="Muster knows", about={"id": 1})
    with pytest.raises(InputError, match="does not hold what the reader has decided since; delete it"):
        check_objects(load_result(folder), tmp_path / "run.dicom")
    load_result(folder).to_dicom(tmp_path / "objects", reference=sample.current, template=sample.prior)
    report = pydicom.dcmread(tmp_path / "objects" / "report.dcm")
    assert report.SOPInstanceUID != exported.read("report").SOPInstanceUID
    assert report.SeriesInstanceUID == exported.read("report").SeriesInstanceUID
    said = hd.sr.srread(tmp_path / "objects" / "measurements.dcm")
    assert said.SOPInstanceUID != exported.read("measurements").SOPInstanceUID
    segmentation = pydicom.dcmread(tmp_path / "objects" / "segmentation.dcm")
    assert segmentation == exported.read("segmentation")  # every finding, whatever the reader decided
    for segment, expected in zip(segmentation.SegmentSequence, ({"Rejected"}, set()), strict=True):
        groups = [
            *said.content.get_volumetric_roi_measurement_groups(tracking_uid=segment.TrackingUID),
            *said.content.get_planar_roi_measurement_groups(tracking_uid=segment.TrackingUID),
        ]
        words = [{e.value.meaning for e in group.get_qualitative_evaluations(name=codes.DECISION)} for group in groups]
        assert len(words) >= 2
        assert all(word == expected for word in words)
    pages = [pydicom.dcmread(tmp_path / "objects" / f"page_0{n}.dcm") for n in (1, 2, 3)]
    before = [exported.read(f"page_0{n}") for n in (1, 2, 3)]
    assert [a.SOPInstanceUID != b.SOPInstanceUID for a, b in zip(pages, before, strict=True)] == [True] * 3
    changed = [bool((a.pixel_array != b.pixel_array)[:1300].any()) for a, b in zip(pages, before, strict=True)]
    assert changed == [True, True, False]  # the list, and the page of the rejected finding
    assert "Muster knows" not in str(said)
    if shutil.which("dciodvfy") is not None:
        check = ["dciodvfy", "-new", tmp_path / "objects" / "measurements.dcm"]
        assert "\nError" not in f"\n{subprocess.run(check, capture_output=True, text=True, check=False).stderr}"


def test_a_lesion_keeps_its_tracking_through_time_points(exported):
    """The current scan of the export is the prior of the next comparison."""
    new, grown = exported.sample.result.findings.items
    segments = exported.read("segmentation").SegmentSequence
    images = read_source_images(exported.sample.current)
    later = [
        replace(new, id=4, kind="shrunk", lesion_template=new.lesion_reference),
        replace(new, id=5, kind="resolved", lesion_reference=None, lesion_template=grown.lesion_reference),
        replace(new, id=6, kind="new", lesion_template=None),
    ]
    expected = {4: segments[0].TrackingUID, 5: segments[1].TrackingUID}
    assert {k: uid for k, (_, uid) in earlier_tracking(exported.folder, later, images).items()} == expected
    with pytest.raises(InputError, match="another scan"):
        earlier_tracking(exported.folder, later, read_source_images(exported.sample.prior))


def test_bad_input_is_one_line_and_leaves_nothing(exported, run, tmp_path):
    sample, runner = exported.sample, CliRunner()
    (tmp_path / "exists").mkdir()
    cut = shutil.copytree(sample.current, tmp_path / "cut")
    top = max(cut.iterdir(), key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))
    gap = shutil.copytree(sample.current, tmp_path / "gap")
    next(p for p in gap.iterdir() if pydicom.dcmread(p).InstanceNumber == 12).unlink()
    top.unlink()
    other = shutil.copytree(sample.prior, tmp_path / "other")
    for p in other.iterdir():
        ds = pydicom.dcmread(p)
        ds.PatientID, ds.PatientName = "SOMEBODY", "Else^Somebody"
        ds.save_as(p)
    image = run / "warped_template.nrrd"
    cases = [
        ((sample.current, sample.prior, "exists"), "--dicom", "exists already"),
        ((image, sample.prior, "new"), "--reference", "is not DICOM"),
        ((sample.prior, sample.prior, "new"), "--reference", "another scan"),
        ((cut, sample.prior, "new"), "--reference", "72 x 52 x 39 voxels"),
        ((gap, sample.prior, "new"), "gap", "1 slice(s) missing"),
        ((sample.current, other, "new"), "--template", "another patient"),
        ((sample.current, tmp_path / "nowhere", "new"), "nowhere", "no such file"),
        ((sample.current, other, "exists/../other/inside"), "--dicom", "lies in the input"),
    ]
    for (reference, template, out), subject, text in cases:
        paths = ["--reference", str(reference), "--template", str(template), "--dicom", str(tmp_path / out)]
        found = runner.invoke(app, ["export", str(run), *paths, "--progress", "none"])
        assert found.exit_code == 2, found.output
        assert text in found.output, found.output
        assert subject in found.output, found.output
        assert len(found.output.strip().splitlines()) == 1
        assert "SOMEBODY" not in found.output
        assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_no_folder(exported, tmp_path, monkeypatch):
    from pydicom.dataset import Dataset

    def full(*_, **__):  # as pydicom does it: with the traceback as the text of another error
        cause = OSError(errno.ENOSPC, "No space left on device")
        raise OSError(f"With tag (7FE0,0010) got exception: {cause}\nTraceback (most recent call last):") from cause

    monkeypatch.setattr(Dataset, "save_as", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); free space"):
        exported.sample.result.to_dicom(tmp_path / "objects")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_error_names_it(exported, monkeypatch, tmp_path):
    monkeypatch.setattr("ChangeMapJointLib.core.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "changemapjoint\[dicom\]"'):
        exported.sample.result.to_dicom(tmp_path / "objects")


# -- other programs' rules ------------------------------------------------------------------
def test_frames_of_the_map_follow_each_other_as_dcmqi_takes_them(exported):
    """dcmqi 1.5.7 puts the first frame at the origin, and needs Frame Anatomy."""
    dataset = exported.read("change_map")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape([float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient], (2, 3))
    places = [
        np.array([float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]) @ np.cross(row, column)
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert (np.diff(places) > 0).all()
    assert shared.FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeMeaning == "Lung"
    assert "ContentCreatorName" in dataset


def test_ohif_finds_the_images_of_the_segmentation_and_reads_the_report(exported):
    """Its handlers want the referenced series; root 126000, a container 126010, an image library, and of each tracking
    UID a place on an image. ``Testing/benchmarks/ohif`` runs the handlers themselves.
    """
    current = pydicom.dcmread(next(exported.sample.current.iterdir()), stop_before_pixels=True)
    segmentation, report = exported.read("segmentation"), exported.read("measurements")
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == current.SeriesInstanceUID
    assert segmentation.FrameOfReferenceUID == current.FrameOfReferenceUID
    known = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in exported.sample.current.iterdir()}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID in known
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert any(item.ConceptNameCodeSequence[0].CodeValue == "111028" for item in report.ContentSequence)
    assert all(places_of(report).values())


def test_a_single_finding_is_exported_too(exported, tmp_path):
    """highdicom shares the number of a lone segment between all frames, where its own reports do not find it."""
    result = exported.sample.result
    labels = np.where(result.findings.labels == 1, 1, 0).astype(result.findings.labels.dtype)
    item = replace(result.findings.items[0], kind="increase", lesion_reference=None)  # no lesion could be measured
    one = replace(result, findings=replace(result.findings, items=(item,), labels=labels))
    one.to_dicom(tmp_path / "objects")
    assert list(places_of(pydicom.dcmread(tmp_path / "objects" / "measurements.dcm")).values()) == [1, 1]
    segmentation = hd.seg.segread(tmp_path / "objects" / "segmentation.dcm")
    volume = segmentation.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_array_equal(on_grid(volume, result.pair.reference.grid), labels)
