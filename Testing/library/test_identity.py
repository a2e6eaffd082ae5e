"""Nothing that a header or a folder's name holds is in any output, unless it was asked for."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from archive_samples import storage
from dicom_samples import POISON, Sample
from typer.testing import CliRunner

pytest.importorskip("highdicom", reason="highdicom, of the extra dicom, is not installed")
pytest.importorskip("pynetdicom", reason="pynetdicom, of the extra dicom, is not installed")

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.cohort.nameless import Nameless
from ChangeMapJointLib.cohort.overview import write_overview
from ChangeMapJointLib.cohort.record import PairRecord, figures_of
from ChangeMapJointLib.cohort.table import write_cohort_table
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.reading_file import ReadingFile

FOLDER = "Poisonfolder"
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True)
class Poisoned:
    """A pair whose headers and folder are full of identifiers, a run of it, and what must not be found."""

    sample: Sample
    run: Path
    secrets: frozenset[str]

    def search(self, what: str, content: bytes | str) -> None:
        text = content.decode("latin-1") if isinstance(content, bytes) else content
        found = [secret for secret in self.secrets if secret.lower() in text.lower()]
        assert not found, (what, found)


@pytest.fixture(scope="module")
def poisoned(dicom_sample, dicom_run) -> Poisoned:
    scans = (*dicom_sample.current.iterdir(), *dicom_sample.prior.iterdir())
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in scans]
    secrets = {str(header.get(uid)) for header in headers for uid in UIDS}
    secrets |= {str(value) for value in POISON.values()} | {FOLDER, "poison", "Muster", "Erika", "PID-4711", "ACC-99"}
    secrets |= {"19500102", "1950-01-02"}
    return Poisoned(dicom_sample, dicom_run, frozenset(secrets))


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.name, path.read_bytes()


def unpacked(content: bytes) -> bytes:
    """A file with the pictures of a page behind it."""
    return b"\n".join([content, *map(base64.b64decode, re.findall(rb"base64,([A-Za-z0-9+/=]+)", content))])


def changemap(*words: object) -> str:
    answer = CliRunner().invoke(app, [str(word) for word in words])
    assert answer.exit_code == 0, answer.output
    return answer.output


def pdf_text(path: Path) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("poppler-utils is not installed")
    found = subprocess.run(["pdftotext", path, "-"], check=True, capture_output=True, encoding="utf-8").stdout
    about = subprocess.run(["pdfinfo", path], check=True, capture_output=True, encoding="utf-8").stdout
    return found + about


def test_the_folder_of_a_run(poisoned):
    """What the command tells: see test_archive. Pictures of the page are searched as well."""
    for name, content in files(poisoned.run):
        poisoned.search(name, unpacked(content))


def test_the_report_in_every_form_names_nobody_unless_it_is_asked_to(poisoned, tmp_path):
    changemap("report", poisoned.run, "--pdf", tmp_path / "a.pdf")
    poisoned.search("pdf", pdf_text(tmp_path / "a.pdf"))
    for form in ("--text", "--fhir"):
        poisoned.search(form, changemap("report", poisoned.run, form))
    reference = ("--reference", poisoned.sample.current)
    asked = changemap("report", poisoned.run, "--fhir", *reference)
    for value in ("Muster Erika", "PID-4711"):
        assert value in asked
    for keyword, value in POISON.items():
        assert str(value) not in asked, keyword


def test_anonymous_objects_and_how_they_are_sent(poisoned, tmp_path):
    run = shutil.copytree(poisoned.run, tmp_path / "run")
    ReadingFile(run).decide(11, decision="accepted", comment="Mrs Muster, poisoned", about={"id": 1})
    sample, objects = poisoned.sample, tmp_path / "objects"
    scans = ("--reference", sample.current, "--template", sample.prior)
    told = changemap("export", run, "--dicom", objects, *scans, "--anonymous", "--progress", "json")
    poisoned.search("events", told)
    report = pydicom.dcmread(objects / "report.dcm")
    (tmp_path / "a.pdf").write_bytes(report.EncapsulatedDocument[: report.EncapsulatedDocumentLength])
    text = pdf_text(tmp_path / "a.pdf")
    poisoned.search("report.dcm", text)
    for date in ("2024-01-31", "2023-01-31"):
        assert date not in text
    assert "accepted" in text
    seen: list[tuple[str, Any]] = []

    def handle(event: Any) -> int:
        request = event.assoc.requestor.primitive
        seen.append(("association", str([vars(request), *(vars(item) for item in request.user_information)])))
        seen.append(("object", event.encoded_dataset()))
        return 0

    with storage(handle) as address:
        seen.append(("words", changemap("send", objects, "--to", address, "--progress", "json")))
    assert len(seen) == 1 + 2 * len(list(objects.glob("*.dcm")))
    for name, content in (*seen, *files(objects), ("record", (tmp_path / "objects.sent.json").read_bytes())):
        poisoned.search(name, content)


def test_table_and_overview_of_a_cohort(poisoned, tmp_path):
    pd = pytest.importorskip("pandas", reason="pandas, of the extra cohort, is not installed")
    records = [PairRecord("pair 1", "done", figures=figures_of(poisoned.run))]
    table = write_cohort_table(tmp_path, records)
    write_overview(tmp_path, records, total=1)
    for name, content in files(tmp_path):
        poisoned.search(name, content)
    poisoned.search("parquet", pd.read_parquet(table.with_suffix(".parquet")).to_csv())


def test_a_pair_that_is_refused_is_told_without_names(tmp_path):
    """In the table and the overview of a cohort; the pair's id says which it is."""
    scan = tmp_path / "Muster_Erika" / "CT"
    scan.mkdir(parents=True)
    (scan / "Muster_0001.dcm").touch()
    words = Nameless(scan, tmp_path / "Muster_prior.zip", tmp_path / "out")
    series = "2 CT volumes: #1 'Mrs Muster', UID 1.2.840.113619.2.1, #2b 'Thorax', UID 1.2.840.113619.2.2"
    several = InputError(f"{series} (Muster_0001.dcm)", field=("reference", scan), remedy="give one")
    assert words.message(several) == "reference: the current scan: 2 CT volumes: #1, #2b; give one"
    inner = InputError("damaged", field=(scan, Path("sub/Muster_0002.dcm")))
    assert words.message(inner) == "the current scan: a file: damaged"
    fault = OSError(f"cannot read {scan / 'Muster_0001.dcm'} and {tmp_path}/Muster_prior.zip")
    assert "Muster_0" not in words.message(fault)
    assert words.message(fault).endswith("and the prior scan")
    assert words.message(InputError("is full", field=tmp_path / "out" / "x")) == f"{tmp_path / 'out' / 'x'}: is full"


def test_messages_keep_their_words_whatever_the_files_are_called(tmp_path):
    scan = tmp_path / "scan"
    (scan / "Anna").mkdir(parents=True)
    for name in ("1", "20", "300", "CT", "images", "Muster_Anna", "Anna/1961"):
        (scan / name).touch()
    words = Nameless(scan, tmp_path / "CT", tmp_path / "out")
    said = "holds 1 CT and 20 images, 1/20, 300 HU, expected at least 1961"
    assert words.text(said) == said
    told = words.text(f"Muster_Anna and {scan}/Anna/1961, '300', in (Muster_Anna)")
    assert told == "a file and the current scan/a file/a file, 'a file', in"
    own = f"{tmp_path / 'out' / 'CT' / '300'}: is full (Muster_Anna)"
    assert words.text(own) == own.replace(" (Muster_Anna)", "")
    assert words.text("the current scan: 1961: has no pixels") == "the current scan: a file: has no pixels"


@pytest.mark.parametrize("packed", [False, True])
def test_a_scan_of_one_file_is_told_without_its_name(tmp_path, packed):
    """Nor those of the files in it or, for a header, beside it."""
    folder = tmp_path / "Muster"
    folder.mkdir()
    name = "Erika_1961.zip" if packed else "Erika_1961.mhd"
    if packed:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("Anna_0001", b"")
    (folder / name).touch()
    words = Nameless(folder / name, tmp_path / "CT.nii.gz", folder / "out")
    inner = "Anna_0001 (Anna_0001)" if packed else f"{folder}/Anna 0001.raw"
    fault = words.text(f"{folder / name}, {name}, Erika_1961: {inner}, {folder / 'out' / 'x.json'}: no CT")
    assert not re.search("Erika|Anna|1961", fault)
    assert fault.endswith(f", {folder / 'out' / 'x.json'}: no CT")


@pytest.mark.parametrize("raw", [None, b"\0" * 5])
@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_the_files_with_the_voxels_of_a_header_are_not_named(tmp_path, kind, raw):
    data = "Muster Anna_1961.raw"
    about = {
        "mhd": "NDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 1 1\nElementType = MET_SHORT\nElementDataFile = ",
        "nhdr": "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nspacings: 1 1 1\nencoding: raw\n"
        "endian: little\ndata file: ",
    }[kind]
    scan = tmp_path / f"Erika_1961.{kind}"
    scan.write_text(about + data + "\n")
    if raw is not None:
        (tmp_path / data).write_bytes(raw)
    words = Nameless(scan, tmp_path / "prior.nii", tmp_path / "out")
    with pytest.raises(InputError) as refused:
        read_volume(scan)
    assert data in str(refused.value)
    found = "the data file is missing" if raw is None else "truncated, 5 of 128 bytes"
    assert words.message(refused.value).startswith(f"the current scan: a file: {found}; copy")
    scan.write_text("Muster, Anna (1961)\nx\n" if kind == "mhd" else "NRRD0004\nMuster, Anna (1961)\n")
    with pytest.raises(InputError) as refused:
        read_volume(scan)
    assert not re.search("Muster|Anna|1961", words.message(refused.value))
