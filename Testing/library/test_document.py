"""The result as a document: PDF, text, FHIR, and the table of several time points."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_samples import IDENTITY, Sample
from export_samples import GRID, finding, quality
from export_samples import content as report_content
from report_page import Page
from typer.testing import CliRunner

pytest.importorskip("reportlab", reason="reportlab, of the extra dicom, is not installed")

from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.change.judged import other_changes
from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.comparison.document import anonymous_document, document_of
from ChangeMapJointLib.comparison.given import FieldSource, GivenReport
from ChangeMapJointLib.comparison.load import load_result
from ChangeMapJointLib.export.document import typefaces
from ChangeMapJointLib.export.document.content import Decision, DocumentContent, Identity, read_document
from ChangeMapJointLib.export.document.fhir import fhir
from ChangeMapJointLib.export.document.pdf import make_pdf, write_pdf
from ChangeMapJointLib.export.document.time_points import DiameterTrack, TimePoints
from ChangeMapJointLib.export.document.typefaces import markup
from ChangeMapJointLib.export.list_words import RIGID_ONLY
from ChangeMapJointLib.export.report import render_report
from ChangeMapJointLib.export.tables import write_findings_json, write_quality_json
from ChangeMapJointLib.export.wording import about_list
from ChangeMapJointLib.io.compact_field import read_vectors
from ChangeMapJointLib.io.reading_file import ReadingFile
from ChangeMapJointLib.io.run_seal import file_sha256

needs_poppler = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")


@pytest.fixture(scope="module")
def sample(dicom_sample) -> Sample:
    return dicom_sample


@pytest.fixture(scope="module")
def run(dicom_run) -> Path:
    return dicom_run


def changemap(*words: object) -> tuple[int, str]:
    answer = CliRunner().invoke(app, [str(word) for word in words])
    return answer.exit_code, answer.output


def pdf_text(path: Path, *options: str) -> str:
    return subprocess.run(["pdftotext", *options, path, "-"], check=True, capture_output=True, encoding="utf-8").stdout


@needs_poppler
@pytest.mark.parametrize(("options", "size"), [([], "A4"), (["--letter"], "letter")])
def test_a_pdf_of_two_to_four_pages_with_everything_that_is_filed(run, sample, tmp_path, options, size):
    path = tmp_path / "report.pdf"
    code, output = changemap("report", run, "--pdf", path, "--reference", sample.current, *options)
    assert code == 0, output
    facts = subprocess.run(["pdfinfo", path], check=True, capture_output=True, text=True).stdout
    assert f"({size})" in facts
    pages = pdf_text(path).split("\f")[:-1]
    assert 2 <= len(pages) <= 4
    sha256 = file_sha256(run / "run.json")
    for number, page in enumerate(pages, 1):
        assert sha256[:16] in page
        assert f"Page {number} of {len(pages)}" in page
        assert "Research use, not a medical device. ChangeMapJoint 0.1.0" in page
    for words in ("Muster Erika", "ID PID-4711", "born 1950-01-02", "ACC-99", "2024-01-31"):
        assert words in pages[0].replace("\n", " ")
    assert "Verdict:" in pages[0]
    whole = " ".join(pages).replace("\n", " ")
    for words in ("Finding 1: new", "Finding 2: grown", "cannot see", "accept", "Read by (name), date, signature"):
        assert words in whole
    assert sha256 in whole
    fonts = subprocess.run(["pdffonts", path], check=True, capture_output=True, text=True).stdout.splitlines()[2:]
    assert fonts
    assert all(line.split()[-5] == "yes" for line in fonts)  # embedded


@needs_poppler
def test_without_a_series_nobody_is_named_and_the_same_run_gives_the_same_bytes(run, tmp_path):
    for name in ("a.pdf", "b.pdf"):
        write_pdf(tmp_path / name, read_document(run))
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    text = pdf_text(tmp_path / "a.pdf")
    for value in (IDENTITY["PatientID"], "Muster", "Erika", "ACC-99", "1950"):
        assert value not in text


NAMES = {
    "accents and markup": "<b>M\u00fcller & S\u00f8n-\u0141uk\u00e1\u0161 \u0110\u1eb7ng",
    "an accent apart": "Rene\u0301e",
    "Greek": "\u03a0\u03b1\u03c0\u03b1\u03b4\u03cc\u03c0\u03bf\u03c5\u03bb\u03bf\u03c2",
    "Cyrillic": "\u0418\u0432\u0430\u043d\u043e\u0432\u0430 \u0404\u0432\u0433\u0435\u043d\u0456\u044f",
    "Hebrew": "\u05db\u05d4\u05df",
    "Arabic": "\u0645\u062d\u0645\u062f",
    "Japanese": "Yamada Tarou = \u5c71\u7530 \u592a\u90ce = \u3084\u307e\u3060",
    "simplified Chinese": "\u5f20\u4f1f",
    "traditional Chinese": "\u9673\u6021\u541b",
    "Korean": "\uae40\ubbfc\uc218",
}


@needs_poppler
def test_names_in_the_letters_of_the_world_can_be_read_back(run, tmp_path):
    """Of Chinese, Japanese and Korean the text is right; how it looks is the viewer's typeface."""
    content = read_document(run)
    for script, name in NAMES.items():
        asian = any(word in script for word in ("Chinese", "Japanese", "Korean"))
        if asian and not Path("/usr/share/poppler/cMap").is_dir():
            continue  # poppler-data is not installed
        write_pdf(tmp_path / "a.pdf", replace(content, identity=Identity(name, "4711")))
        text = pdf_text(tmp_path / "a.pdf")
        plain = "".join(sign for sign in unicodedata.normalize("NFKC", text) if sign.isprintable())
        assert f"Patient: {unicodedata.normalize('NFKC', name)}, ID 4711" in plain, script
        fonts = subprocess.run(["pdffonts", tmp_path / "a.pdf"], check=True, capture_output=True, text=True).stdout
        assert asian or all(line.split()[-5] == "yes" for line in fonts.splitlines()[2:])  # embedded
    write_pdf(tmp_path / "a.pdf", replace(content, identity=Identity("\u0e2a\u0e21\u0e0a\u0e32\u0e22", "4711")))
    assert "Patient: ?????, ID 4711 (other letters: see the header of the scan)" in pdf_text(tmp_path / "a.pdf")


def test_text_from_right_to_left_is_broken_into_lines_before_it_is_turned_round():
    words = ["\u05d0\u05d0\u05d0", "\u05d1\u05d1\u05d1", "\u05d2\u05d2\u05d2", "\u05d3\u05d3\u05d3"]
    first, second = markup(" ".join(words), width=40.0, size=8.5).split("<br/>")
    assert first.split() == [words[1], words[0]]
    assert second.split() == [words[3], words[2]]


def test_a_name_from_right_to_left_is_never_shown_backward(monkeypatch):
    """As in Slicer, which has no package that turns it round."""
    monkeypatch.setattr(typefaces, "find_spec", lambda name: None)
    assert markup("\u05db\u05d4\u05df, ID 4711") == "???, ID 4711 (other letters: see the header of the scan)"


def test_decisions_of_the_reader_are_in_every_form(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    reading = ReadingFile(folder, "R1")
    reading.decide(11, decision="rejected", comment="a vessel", about={"id": 1})
    reading.decide(12, decision="accepted", comment="follow up", about={"id": 2})
    code, text = changemap("report", folder, "--text")
    assert code == 0
    assert "Finding 1:" not in text
    assert "1 finding(s) were rejected by the reader." in text
    assert "Reader: follow up" in text
    content = read_document(folder)
    pages = make_pdf(replace(content, decisions={1: Decision("rejected", "word " * 3000), 2: Decision("", "x" * 9000)}))
    assert 2 <= pages.count(b"/Type /Page\n") <= 4
    assert content.decisions[1].comment == "a vessel"
    assert len(fhir(content)["entry"]) == 2  # the report, and the finding that is left


@needs_poppler
@pytest.mark.parametrize("letter", [False, True])
@pytest.mark.parametrize("count", [8, 30, 200])
def test_however_much_there_is_to_say_it_has_four_pages_and_no_decision_is_lost(run, tmp_path, count, letter):
    content = read_document(run)
    first, second = content.entries
    entries = [{**(first if number % 2 else second), "id": number} for number in range(1, count + 1)]
    reasons = ["The registration is uncertain for a reason that needs a line or two to be told in full. " * 4] * 20
    quality = {**content.records["quality"], "quality": {**content.quality, "reasons": reasons}}
    records = {**content.records, "findings": {**content.records["findings"], "findings": entries}, "quality": quality}
    words = {
        n: Decision("rejected" if n % 3 else "accepted", f"comment {n}: " + "word " * 100) for n in range(2, count)
    }
    pictures = {entry["id"]: content.pictures[2 - entry["id"] % 2] for entry in entries[:8]}
    full = replace(content, records=records, decisions=words, pictures=pictures)
    points = TimePoints(
        tuple(f"20{n}-01-01" for n in range(10, 25)),
        tuple(DiameterTrack(f"Lesion {n}", (10.0 + n,) * 15) for n in range(1, 31)),
    )
    write_pdf(tmp_path / "a.pdf", full, letter=letter, time_points=points)
    pages = pdf_text(tmp_path / "a.pdf", "-layout").split("\f")[:-1]
    text = " ".join(" ".join(pages).split())
    assert 2 <= len(pages) <= 4
    for said in ("Read by (name), date, signature", content.sha256, "Lesion 30 (target)", "comment 2:", "2024-01-01"):
        assert said in text
    decided = " ".join(re.findall(r"Also (?:accepted|rejected): ([^.]+)\.", text)).replace(",", "")
    ranges = [(int(a), int(b or a)) for a, b in re.findall(r"(\d+)(?: to (\d+))?", decided)]
    told = {number for low, high in ranges for number in range(low, high + 1)}
    told |= {int(n) for n in re.findall(r"Finding (\d+) (?:accepted|rejected)", text)}
    assert told == set(words)


def test_fhir_is_valid_and_holds_the_figures(run, sample):
    bundles = pytest.importorskip("fhir.resources.bundle", reason="fhir.resources is not installed")
    code, output = changemap("report", run, "--fhir", "--reference", sample.current)
    assert code == 0
    content = json.loads(output)
    bundle = bundles.Bundle.model_validate(content)
    report, *observations = (entry.resource for entry in bundle.entry)
    assert report.subject.identifier.value == "PID-4711"
    assert str(report.effectiveDateTime) == "2024-01-31"
    urls = [entry["fullUrl"] for entry in content["entry"][1:]]
    assert [item.reference for item in report.result] == urls
    grown = observations[1]
    figures = {(c.code.text or c.code.coding[0].code): c.valueQuantity for c in grown.component if c.valueQuantity}
    lesion = sample.result.findings.items[1].lesion_reference
    assert float(figures["Long axis, current scan"].value) == pytest.approx(lesion.long_diameter_mm, abs=1e-3)
    assert float(figures["Volume, current scan"].value) == pytest.approx(1000 * lesion.volume_ml, abs=1e-3)
    assert content == json.loads(changemap("report", run, "--fhir", "--reference", sample.current)[1])


@needs_poppler
def test_a_failed_registration_never_reads_like_no_change(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    quality = json.loads((folder / "quality.json").read_text())
    quality["quality"]["verdict"] = "do not use"
    (folder / "quality.json").write_text(json.dumps(quality))
    findings = json.loads((folder / "findings.json").read_text())
    findings["withheld"] = 3
    (folder / "findings.json").write_text(json.dumps(findings))
    content = read_document(folder)
    assert "Registration: do not use." in content.text()
    assert "3 regions of remaining difference are withheld." in content.text()
    assert "this does not rule out change" in content.text()
    assert "No finding" not in content.text()
    assert len(fhir(content)["entry"]) == 1
    write_pdf(tmp_path / "a.pdf", content)
    page = pdf_text(tmp_path / "a.pdf")
    assert "Findings: none can be listed" in page
    assert "Findings: 0" not in page


@needs_poppler
@pytest.mark.parametrize("verdict", ["good", "look closely", "do not use"])
def test_an_empty_list_is_said_in_the_same_words_in_every_form(tmp_path, verdict):
    """The HTML page and the DICOM pages take their words from the result, the others from the files of a run."""
    others = [finding(n, section=name) for n, name in enumerate(("possible", "possible", "explained", "stable"), 1)]
    listed = Findings((), np.zeros(GRID.shape, np.int32), others=tuple(others), operating_point="standard")
    listed = listed.withhold(("Far apart.",)) if verdict == "do not use" else listed
    made = report_content(findings=listed, quality=quality(verdict))
    write_findings_json(tmp_path / "findings.json", listed)
    write_findings_json(tmp_path / "candidates.json", other_changes(listed, 0.3))
    write_quality_json(tmp_path / "quality.json", quality(verdict))
    records = {
        name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("findings", "candidates", "quality")
    }
    content = DocumentContent({"run": {"started": "2024-02-05T10:00:00"}, **records}, "")
    words = about_list(made)
    assert content.about_list == words
    alone = DocumentContent({name: value for name, value in content.records.items() if name != "candidates"}, "")
    assert not any("Also measured" in sentence for sentence in alone.about_list)  # unknown, and not none
    if verdict == "do not use":
        (failed,) = words
        assert failed.startswith("4 regions of remaining difference are withheld. Nothing is listed")
    else:
        first, point, counted = words
        assert point.startswith("Operating point: standard (")
        assert counted == "Also measured: 2 possible, 1 explained, 1 stable."
        assert first.startswith(
            ("No finding: no change was probable enough", "No finding is listed, but this does not")
        )
        assert ("where the registration is not reliable" in first) == (verdict != "good")
    write_pdf(tmp_path / "a.pdf", content)
    page = Page(render_report(made)).text
    conclusion = fhir(content)["entry"][0]["resource"]["conclusion"]
    for form in (page, content.text(), conclusion, " ".join(pdf_text(tmp_path / "a.pdf").split())):
        assert all(sentence in form for sentence in words)
        assert form.count("Nothing is listed") + form.count("No finding") - form.count("No findings") == 1


def test_rigid_alignment_alone_is_never_called_without_change(tmp_path):
    made = report_content(method="rigid", change_map=None, signed_hu=None, findings=None, quality=None)
    content = DocumentContent({"run": {}, "quality": {}}, "")
    assert content.about_list == about_list(made) == (RIGID_ONLY,)
    for form in (Page(render_report(made)).text, content.text()):
        assert RIGID_ONLY in form
        assert "No finding" not in form


@needs_poppler
def test_what_the_gate_says_of_the_scans_stands_in_every_form(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    reason = {"rule": "one_sided", "answer": "look", "sentence": "Only the right lung.", "remedy": "Give both."}
    quality = json.loads((folder / "quality.json").read_text())
    quality["gate"] = {"answer": "look", "reasons": [{**reason, "value": 0.0, "scan": "Reference"}]}
    quality["quality"]["reasons"] = [
        f"Reason {n}." for n in range(14)
    ]  # more than the page lists: the gate's come first
    (folder / "quality.json").write_text(json.dumps(quality))
    content = read_document(folder)
    expected = "Current scan: Only the right lung. Give both."
    assert content.gate == (expected,)
    assert expected in content.text()
    assert expected in fhir(content)["entry"][0]["resource"]["conclusion"]
    changemap("report", folder, "--pdf", tmp_path / "a.pdf")
    page = " ".join(pdf_text(tmp_path / "a.pdf").split())
    assert expected in page
    assert "And 3 more: see the HTML report" in page


def test_notices_and_notes_of_a_run_stand_in_every_form(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    quality = json.loads((folder / "quality.json").read_text())
    reason = {"rule": "gaps", "answer": "look", "sentence": "Two gaps.", "remedy": "", "value": 2.0, "scan": "Template"}
    quality["gate"] = {"answer": "look", "reasons": [reason]}
    record |= {"notices": ["The change is SYNTHETIC."], "notes": ["Template: Two gaps.", "Reference: The lungs touch."]}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "quality.json").write_text(json.dumps(quality))
    content = read_document(folder)
    changemap("report", folder, "--pdf", tmp_path / "a.pdf")
    page = " ".join(pdf_text(tmp_path / "a.pdf").split())
    for form in (content.text(), fhir(content)["entry"][0]["resource"]["conclusion"], page):
        assert form.index("The change is SYNTHETIC.") < form.index("Current scan: The lungs touch.")
        assert form.count("Two gaps.") == 1  # said once, by the gate


def test_an_anonymous_document_has_no_dates_and_no_names_of_files_in_its_notes(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    quality = json.loads((folder / "quality.json").read_text())
    dated = "Both scans are of the same day, 2024-01-31."
    given = "The deformation was given (Muster_Erika.h5) and used as it is."
    reason = {"rule": "same_day", "answer": "look", "sentence": dated, "remedy": "", "value": 1.0, "scan": ""}
    quality["gate"] = {"answer": "look", "reasons": [reason]}
    record |= {"notes": [dated, given, "Reference: The lungs touch."]}
    record["deformation"] = {"sources": [{"name": "Muster_Erika.h5", "sha256": "ab"}]}  # kept with --keep-names
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "quality.json").write_text(json.dumps(quality))
    text = anonymous_document(read_document(folder, Identity("Muster Erika"))).text()
    assert "2024-01-31" not in text
    assert "Muster" not in text
    assert "Current scan: The lungs touch." in text
    assert "The deformation was given (from a file)" in text


def test_a_document_of_a_result_in_memory_names_no_file(sample):
    source = FieldSource("Muster_Erika.h5", "ab" * 32)
    given = GivenReport((source,), refined=False, keypoint_error_mm=None, folding_percent=0.0)
    content = document_of(replace(sample.result, given=given), Identity())
    assert "Muster" not in content.text()
    assert "The deformation was given (file abababababab)" in content.text()


def test_the_whole_deformation_is_written_and_never_over_a_file(run, tmp_path):
    path = tmp_path / "field.nrrd"
    assert changemap("export", run, "--field", path) == (0, f"{path}\n")
    vectors, grid = read_vectors(path)
    saved = load_result(run).deformation.field
    assert grid == saved.grid
    assert np.array_equal(vectors, saved.vectors_mm)
    code, output = changemap("export", run, "--field", path)
    assert code == 2
    assert "exists already; give another file" in output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "--pdf: not given; give a file, or --text, or --fhir"),
        (("--fhir", "--earlier", "one"), "--earlier: is not in FHIR; leave it out, or give --pdf"),
        (("--pdf", "current.nrrd"), "current.nrrd: ends in '.nrrd', expected .pdf"),
        (("--text", "--letter"), "--letter: is a size of the PDF; give --pdf as well"),
        (("--text", "--fhir"), "--text: given twice"),
        (("--pdf", "no/such/folder/a.pdf"), "cannot be written"),
        (("--text", "--reference", "no-such-series"), "no-such-series"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, words, expected):
    code, output = changemap("report", run, *words)
    assert code == 2
    assert expected in output
