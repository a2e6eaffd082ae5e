"""DICOM objects refer to the images of the scans: to every series of them, by UIDs that have to be there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from dicom_samples import make_sample
from phantoms import dicom_slices, random_scan, save_slices
from pydicom.uid import generate_uid

pytest.importorskip("highdicom", reason="highdicom, of the extra dicom, is not installed")

from ChangeMapJointLib.comparison.load import load_result
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.dicom.images import read_source_images


def test_objects_refer_to_every_series_that_was_taken_for_one(tmp_path: Path) -> None:
    """As an anonymiser leaves them that draws a new SeriesInstanceUID for every file."""
    sample = make_sample(tmp_path)
    for file in sample.current.iterdir():
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID = generate_uid()
        image.save_as(file)
    result = sample.result
    files = {file.name: pydicom.dcmread(file) for file in result.to_dicom(tmp_path / "objects")}
    known = {}
    for file in sample.current.iterdir():
        image = pydicom.dcmread(file, stop_before_pixels=True)
        known[image.SOPInstanceUID] = image.SeriesInstanceUID
    for name in ("segmentation.dcm", "change_map.dcm", "registration_rigid.dcm", "registration_deformable.dcm"):
        referred = {
            image.ReferencedSOPInstanceUID: series.SeriesInstanceUID
            for series in files[name].ReferencedSeriesSequence
            for image in series.ReferencedInstanceSequence
        }
        assert {uid: series for uid, series in referred.items() if uid in known} == known, name
    evidence = {
        image.ReferencedSOPInstanceUID: series.SeriesInstanceUID
        for study in files["measurements.dcm"].CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    assert known.items() <= evidence.items()


def test_a_header_without_a_uid_that_references_need_is_named(tmp_path: Path) -> None:
    slices = dicom_slices(random_scan())
    for ds in slices:
        del ds.FrameOfReferenceUID
    with pytest.raises(InputError, match="has no FrameOfReferenceUID, expected a UID"):
        read_source_images(save_slices(tmp_path, slices))


NAMES = {
    "Latin": ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
    "Japanese": (
        ["", "ISO 2022 IR 87"],
        "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046",
    ),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9"),
    "Arabic": ("ISO_IR 127", "\u0645\u062d\u0645\u062f^\u0623\u062d\u0645\u062f"),
    "Chinese": ("GB18030", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c"),
}


@pytest.mark.parametrize("script", NAMES)
def test_names_in_any_coding_are_read_for_the_objects(tmp_path: Path, script: str) -> None:
    coding, name = NAMES[script]
    slices = dicom_slices(random_scan(), PatientName=name, SpecificCharacterSet=coding, StudyID="S1")
    first = read_source_images(save_slices(tmp_path / "scan", slices)).first
    assert (str(first.PatientName), first.SpecificCharacterSet) == (name, "ISO_IR 192")


def test_every_object_has_the_name_whatever_letters_it_is_in(tmp_path: Path) -> None:
    """Some classes of highdicom do not copy how the letters are coded, and none knows several codings at once.

    The slices do not state their thickness either.
    """
    coding, name = NAMES["Japanese"]
    sample = make_sample(tmp_path, PatientName=name, SpecificCharacterSet=coding, SliceThickness="")
    files = sample.result.to_dicom(tmp_path / "objects")
    assert len(files) > 6
    for file in files:
        written = pydicom.dcmread(file, stop_before_pixels=True)
        assert (str(written.PatientName), written.SpecificCharacterSet) == (name, "ISO_IR 192"), file.name


def test_a_scan_in_one_file_of_many_images_is_exported(dicom_sample, dicom_run, tmp_path: Path) -> None:
    """Each object names frames of that file; Enhanced CT keeps geometry in groups, where not every class looks."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    slices = [pydicom.dcmread(path) for path in sorted(dicom_sample.current.iterdir())]
    for image in slices:
        image.AcquisitionDateTime, image.AcquisitionNumber, image.SoftwareVersions = "20240131101600", 1, "1"
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    numbers = {"series_number": 5, "instance_number": 1}
    uids = {"series_instance_uid": generate_uid(), "sop_instance_uid": generate_uid()}
    packed = LegacyConvertedEnhancedCTImage(slices, **numbers, **uids)
    (tmp_path / "one").mkdir()
    packed.save_as(tmp_path / "one" / "scan.dcm", enforce_file_format=True)
    scans = {"reference": tmp_path / "one", "template": dicom_sample.prior}
    files = load_result(dicom_run).to_dicom(tmp_path / "objects", **scans)
    assert len(files) > 6
    for file in files:
        assert packed.SOPInstanceUID.encode() in file.read_bytes(), file.name
        if shutil.which("dciodvfy") is not None:
            text = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=False).stderr
            assert not [line for line in text.splitlines() if line.startswith("Error")], file.name
