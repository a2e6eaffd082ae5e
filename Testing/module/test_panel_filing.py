"""What is filed from the panel: the report as a PDF, and the run as DICOM objects; and what both need."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pydicom
import pytest
import slicer
from panel_samples import finished_job, nodes
from PySide6.QtCore import QSettings
from slicerhost import dialogs, user

from ChangeMapJointLib.background.dicom_export import ExportRequest, export, gathered
from ChangeMapJointLib.background.job import Job, JobInput, JobRequest
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.scene.volumes import node_of

sys.path.append(str(Path(__file__).resolve().parents[1] / "library"))

from dicom_samples import IDENTITY, make_sample

pytest.importorskip("reportlab", reason="reportlab, of the extra dicom, is not installed")
needs_poppler = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")


@pytest.fixture
def read(widget):
    """The open module with a judged run on screen."""
    assert widget.panel.loadJob(finished_job(widget.logic.runs.root, *nodes(), is_judged=True))
    return widget


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Two small DICOM series, and the result of comparing them."""
    return make_sample(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def saved(sample, tmp_path_factory):
    """The folder of that result."""
    return sample.result.save(tmp_path_factory.mktemp("saved") / "result", compress=False)


@pytest.fixture
def filed(widget, sample, saved):
    """The open module with a run of two scans that were loaded from Slicer's DICOM database."""
    pair, scans = sample.result.pair, []
    for name, side, folder in (("CT 2", pair.reference, sample.current), ("CT 1", pair.template, sample.prior)):
        node = node_of(side.volume.array, side.volume.grid, name, kind="scan")
        files = sorted(map(str, folder.iterdir()))
        node.SetAttribute("DICOM.instanceUIDs", " ".join(files))
        for file in files:  # the stand-in's instances are their files
            tags = {"0010,0010": IDENTITY["PatientName"], "0010,0020": IDENTITY["PatientID"]}
            slicer.dicomDatabase.put(file, **tags, **{"0010,0030": IDENTITY["PatientBirthDate"]})
        scans.append(node)
    job = Job.create(widget.logic.runs.root, JobRequest(*(JobInput(n.GetName(), None, n.GetID()) for n in scans)))
    for side, node in zip(("reference", "template"), scans, strict=True):
        slicer.util.saveNode(node, str(job.input_file(side)))
    shutil.copytree(saved, job.folder / "result")
    job.write_state("finished", "Finished.")
    assert widget.panel.loadJob(job)
    yield widget
    slicer.dicomDatabase.clear()


def text_of(path: Path) -> str:
    done = subprocess.run(["pdftotext", path, "-"], check=True, capture_output=True, encoding="utf-8")
    return " ".join(done.stdout.split())


def save_pdf(widget, path: Path) -> str:
    dialogs.answer("saveFile", str(path))
    user.click(widget.ui.pdfButton)
    assert widget.ui.exportLabel.text == f"Saved: {path}"
    return text_of(path)


@needs_poppler
def test_a_pdf_holds_the_decisions_and_names_nobody_who_is_not_known(read, tmp_path) -> None:
    user.click(read.ui.acceptButton)
    user.type_text(read.ui.commentLineEdit, "seen before")
    user.choose(read.ui.readerVerdictComboBox, "doubtful")
    assert not read.ui.namePatientCheckBox.enabled  # no header
    text = save_pdf(read, tmp_path / "report.pdf")
    assert "seen before" in text
    assert "The reader's verdict on the registration: doubtful" in text
    assert "Patient:" not in text
    seal = text.split("result ")[1][:16]
    assert seal == read.panel.session.results.record.GetAttribute("ChangeMapJoint.sha256")[:16]


@needs_poppler
def test_a_pdf_of_a_registration_that_failed_lists_nothing(widget, tmp_path) -> None:
    job = finished_job(widget.logic.runs.root, *nodes(), verdict="do not use")
    assert widget.panel.loadJob(job)
    text = save_pdf(widget, tmp_path / "report.pdf")
    assert "Verdict: do not use" in text
    assert "2 regions of remaining difference are withheld" in text


@needs_poppler
def test_a_pdf_names_the_patient_only_where_asked(filed, tmp_path) -> None:
    assert "Muster" not in save_pdf(filed, tmp_path / "without.pdf")
    user.click(filed.ui.namePatientCheckBox)
    text = save_pdf(filed, tmp_path / "with.pdf")
    assert "Patient: Muster Erika, ID PID-4711, born 1950-01-02" in text


def test_the_next_result_does_not_name_its_patient_unasked(filed) -> None:
    user.click(filed.ui.namePatientCheckBox)
    filed.panel.export.showResult()  # the same result again
    assert filed.ui.namePatientCheckBox.checked
    first = filed.panel.session.results
    job = finished_job(filed.logic.runs.root, first.reference, first.template)
    assert filed.panel.loadJob(job)
    assert filed.ui.namePatientCheckBox.enabled
    assert not filed.ui.namePatientCheckBox.checked


def test_dicom_objects_carry_patient_and_study_of_the_current_scan(filed, sample, tmp_path) -> None:
    pytest.importorskip("highdicom", reason="highdicom, of the extra dicom, is not installed")
    user.click(filed.ui.acceptButton)
    user.type_text(filed.ui.commentLineEdit, "seen before")
    user.choose(filed.ui.readerVerdictComboBox, "doubtful")
    (tmp_path / "ChangeMap DICOM").mkdir()  # an earlier export stays as it is
    dialogs.answer("directory", str(tmp_path))
    user.click(filed.ui.dicomButton)
    assert not filed.ui.dicomButton.enabled
    user.wait_until(lambda: "Writing" not in filed.ui.exportLabel.text, 120.0)
    made = sorted((tmp_path / "ChangeMap DICOM 2").iterdir())
    assert filed.ui.exportLabel.text == f"Saved: {len(made)} DICOM objects in {made[0].parent}"
    first = pydicom.dcmread(next(sample.current.iterdir()), stop_before_pixels=True)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in made]
    assert {(one.PatientID, one.StudyInstanceUID) for one in headers} == {(first.PatientID, first.StudyInstanceUID)}
    assert filed.ui.dicomButton.enabled
    if shutil.which("pdftotext"):
        report = pydicom.dcmread(tmp_path / "ChangeMap DICOM 2" / "report.dcm")
        (tmp_path / "a.pdf").write_bytes(report.EncapsulatedDocument[: report.EncapsulatedDocumentLength])
        text = text_of(tmp_path / "a.pdf")  # what the reader decided is in the scene, not in the folder of the run
        assert "accepted seen before" in text
        assert "The reader's verdict on the registration: doubtful" in text
    assert QSettings().value("ChangeMapJoint/ExportFolder") == str(tmp_path)


def test_an_export_that_runs_when_the_module_is_unloaded_leaves_nothing(filed, tmp_path) -> None:
    dialogs.answer("directory", str(tmp_path))
    user.click(filed.ui.dicomButton)
    process = filed.panel.export._dicom._process
    user.wait_until(lambda: any(tmp_path.glob(".ChangeMap*")) or process.poll() is not None, 120.0)  # it writes
    filed.panel.export.close()
    user.wait_until(lambda: process.poll() is not None, 60.0)
    assert not any("ChangeMap" in path.name for path in tmp_path.iterdir())
    assert not filed.panel.export._dicom.running


def test_series_are_gathered_where_the_panel_removes_them(sample, tmp_path) -> None:
    """On Windows a process that is ended can remove nothing, and what it has gathered are copies of the scans."""
    with gathered(sorted(map(str, sample.current.iterdir())), tmp_path) as folder:
        assert folder.parent == tmp_path
    assert not folder.exists()


def test_the_series_of_another_scan_is_refused_by_the_name_of_its_side(filed, sample, tmp_path) -> None:
    run = filed.logic.runs.folderOf(filed.panel.session.results)
    series = tuple(sorted(map(str, sample.current.iterdir())))
    with pytest.raises(InputError, match=r"^template: is another scan than the run's") as refused:
        export(ExportRequest(str(run), str(tmp_path / "out"), series, series))
    assert tempfile.gettempdir() not in str(refused.value)
    with pytest.raises(InputError, match=r"gone\.dcm: a file of the series is no longer there"):
        export(ExportRequest(str(run), str(tmp_path / "out"), (*series, str(tmp_path / "gone.dcm")), series))
    assert not (tmp_path / "out").exists()


def test_dicom_says_why_it_cannot_be_written(filed) -> None:
    node = filed.panel.session.results.template
    files = node.GetAttribute("DICOM.instanceUIDs")
    node.SetAttribute("DICOM.instanceUIDs", None)
    filed.panel.export.showResult()
    assert not filed.ui.dicomButton.enabled
    assert filed.ui.dicomButton.toolTip == "Not loaded from the DICOM database of this Slicer: CT 1."
    node.SetAttribute("DICOM.instanceUIDs", files)
    filed.panel.export.showResult()
    shutil.rmtree(filed.logic.runs.root)  # the stored results are deleted while the panel shows one of them
    user.click(filed.ui.dicomButton)
    assert "no longer stored" in filed.ui.exportLabel.text
    assert not filed.ui.dicomButton.enabled


def test_a_run_that_is_not_the_one_of_the_folder_is_not_exported(filed) -> None:
    job = filed.logic.runs.lastJob or next(filed.logic.runs.root.iterdir())
    path = Path(job) / "result" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "notes": ["another run"]}))
    filed.panel.export.showResult()
    assert "no longer stored" in filed.ui.dicomButton.toolTip
