"""From an archive and back to it: Orthanc and DICOMweb on the loopback, and servers that misbehave."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from archive_samples import ORTHANC, PLUGIN, Server, orthanc
from dicom_samples import IDENTITY, Sample, make_sample
from phantoms import dicom_slices, random_scan, save_slices
from typer.testing import CliRunner

pytest.importorskip("highdicom", reason="highdicom, of the extra dicom, is not installed")
pytest.importorskip("pynetdicom", reason="pynetdicom, of the extra dicom, is not installed")

from ChangeMapJointLib.cli.main import app  # noqa: E402

needs_orthanc = pytest.mark.skipif(
    ORTHANC is None or not PLUGIN.exists(), reason="Orthanc (Debian: orthanc, orthanc-dicomweb) is NOT INSTALLED"
)


def changemap(*words: object) -> tuple[int, str]:
    """Exit code and all output of a command."""
    answer = CliRunner().invoke(app, [str(word) for word in words])
    return answer.exit_code, answer.output


def ok(*words: object) -> str:
    code, output = changemap(*words)
    assert code == 0, output
    return output


def refused(*words: object) -> str:
    """The one line of an error."""
    code, output = changemap(*words)
    assert code == 2, output
    lines = [line for line in output.splitlines() if line.startswith("changemap: ")]
    assert len(lines) == 1, output
    return lines[0]


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def objects(sample, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "objects"
    sample.result.to_dicom(folder)
    return folder


@pytest.fixture(scope="module")
def archive(sample, tmp_path_factory):
    """An archive with the pair, and with what must not be taken for it."""
    folder = tmp_path_factory.mktemp("archive")
    study = pydicom.dcmread(next(sample.current.iterdir())).StudyInstanceUID
    scan, patient = random_scan(shape=(24, 6, 5)), {**IDENTITY, "StudyTime": "101500"}
    others = {
        "soft kernel of the same study": {
            "StudyInstanceUID": study,
            "StudyDate": "20240131",
            "ConvolutionKernel": "B30f",
        },
        "coronal": {"StudyInstanceUID": study, "StudyDate": "20240131", "SeriesDescription": "Thorax cor"},
        "head, between the two": {"StudyDate": "20230801", "SeriesDescription": "Head", "ConvolutionKernel": "H31s"},
        "older": {"StudyDate": "20200131"},
        "another patient": {"StudyDate": "20230901", "PatientID": "PID-4712"},
    }
    with orthanc(folder / "orthanc") as server:
        for name, tags in others.items():
            server.upload(save_slices(folder / name, dicom_slices(scan, **{**patient, **tags})))
        for path in (sample.current, sample.prior):
            server.upload(path)
        yield server


def stored(server: Server, objects: Path) -> set[str]:
    """Names of the objects that the archive lists, with the same bytes of pixels or document."""
    known = {
        tags["SOPInstanceUID"]
        for tags in server.get("/instances?expand&full=false")
        for tags in [tags["MainDicomTags"]]
    }
    return {
        p.name for p in objects.glob("*.dcm") if pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID in known
    }


@needs_orthanc
@pytest.mark.parametrize("way", ["dimse", "web"])
def test_query_fetch_run_send_and_list(archive, sample, tmp_path, way):
    """The whole way through a hospital: the right pair is found, compared, and its result filed with the study."""
    out, address = tmp_path / "result", getattr(archive, way)
    ok("run", "--from-pacs", address, "--patient", "PID-4711", "--out", out, "--method", "rigid", "--progress", "none")
    for name, path in (("current", sample.current), ("prior", sample.prior)):
        expected = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in path.iterdir()}
        found = {p.stem for p in (tmp_path / "result.scans" / name).rglob("*.dcm")}
        assert found == expected
    to = "--to" if way == "dimse" else "--stow"
    text = ok("send", out, to, address, "--progress", "none")
    files = {p.name for p in (tmp_path / "result.dicom").glob("*.dcm")}
    assert f"{len(files)} DICOM objects sent" in text
    assert stored(archive, tmp_path / "result.dicom") == files
    current = pydicom.dcmread(next(sample.current.iterdir()), stop_before_pixels=True).StudyInstanceUID
    listed = archive.get(f"/dicom-web/studies/{current}/series")
    assert {"REG", "SR", "DOC"} <= {series["00080060"]["Value"][0] for series in listed}
    again = ok("send", out, to, address, "--progress", "none")
    assert f"0 DICOM objects sent to {address}, {len(files)} had arrived before" in again


@needs_orthanc
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--patient", "nobody"), "0 CT studies"),
        (("--patient", "PID-47*"), "without * and ?"),
        (("--patient", "PID-4712"), "0 earlier CT studies"),
        (("--study", "1.2.3"), "0 studies, expected one"),
        ((), "--patient"),
    ],
)
def test_what_is_not_found_is_said_and_nothing_is_left(archive, tmp_path, words, expected):
    text = refused("run", "--from-pacs", archive.dimse, *words, "--out", tmp_path / "result", "--progress", "none")
    assert expected in text
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
