"""The report as pages: Secondary Captures, which every archive shows, and one Encapsulated PDF.

The captures hold no name, number or date of the patient; the header of the object does. The PDF is the document that
``changemap report`` makes, and states them as they stand in the header, so that a printed copy can be filed.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, JPEGBaseline8Bit

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.export import wording
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.dicom import codes
from ChangeMapJointLib.export.dicom.content import MODEL, RESEARCH, DicomContent, finish
from ChangeMapJointLib.export.dicom.sheet import Sheet
from ChangeMapJointLib.export.document.content import DocumentContent
from ChangeMapJointLib.export.document.pdf import TITLE, make_pdf
from ChangeMapJointLib.export.overview import overview_pictures
from ChangeMapJointLib.export.panels import Picture, finding_boxes_mm, finding_rows, lung_rows
from ChangeMapJointLib.export.pictures import Pixels
from ChangeMapJointLib.export.unseen import UNSEEN_TITLE
from ChangeMapJointLib.io.dicom.images import SourceImages

BOXES = "[  ] accept    [  ] edit    [  ] reject"
MOST_PICTURED = 8  # findings with a page of their own; all are in the list


def pages(content: DicomContent, sheets: Sequence[Sheet]) -> list[Dataset]:
    """Return one Secondary Capture for each of the ``sheets`` of :func:`draw`."""
    result = []
    for number, sheet in enumerate(sheets, 1):
        arguments = content.common("pages", 5)
        arguments |= {"sop_instance_uid": content.uid("page", number, *content.decided), "instance_number": number}
        patient = content.reference.first
        page: Dataset = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=patient,
            pixel_array=sheet.pixels,
            photometric_interpretation=hd.PhotometricInterpretationValues.YBR_FULL_422,
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            patient_orientation=("L", "P"),  # must be given, and is emptied below: a page of text has none
            transfer_syntax_uid=JPEGBaseline8Bit,
            **arguments,
        )
        page.PatientOrientation = None
        page.BurnedInAnnotation = "NO"  # no patient's identity; what is burned in is the report
        page.LossyImageCompression, page.LossyImageCompressionMethod = "01", "ISO_10918_1"
        page.LossyImageCompressionRatio = f"{sheet.pixels.nbytes / max(len(page.PixelData), 1):.2f}"
        page.ImageComments = RESEARCH
        page.DerivationDescription = "Page of a report drawn from the images of both scans"
        page.SourceImageSequence = _key_images(content)
        finish(content, page, "Change: report")
        result.append(page)
    return result


def document(content: DicomContent, said: DocumentContent) -> Dataset:
    """Return the document of a run, with the decisions of a reader, as an Encapsulated PDF.

    The decisions change it, so its instance UID is made of its bytes, too.
    """
    patient, pdf = content.reference.first, make_pdf(said)
    uid = content.uid("document", "instance", hashlib.sha256(pdf).hexdigest())
    result: Dataset = hd.SOPClass(
        study_instance_uid=patient.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        coding_schemes=codes.schemes(),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **{**content.common("document", 6), "sop_instance_uid": uid},
    )
    result.copy_patient_and_study_information(patient)
    result.ConversionType = "WSD"
    result.AcquisitionDateTime = None
    result.BurnedInAnnotation = "YES" if said.identity.line else "NO"
    result.DocumentTitle = f"{TITLE} ({RESEARCH})"
    result.ConceptNameCodeSequence = [codes.dcm("126000", "Imaging Measurement Report")]
    result.MIMETypeOfEncapsulatedDocument = "application/pdf"
    result.SourceInstanceSequence = _key_images(content)
    result.EncapsulatedDocumentLength = len(pdf)
    result.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    finish(content, result, "Change: report")
    return result


def draw(content: DicomContent) -> list[Sheet]:
    """Draw the pages: verdict and list, one page per finding, what was not seen; they do not name the patient."""
    report = content.report
    sheets = [_summary(content)]
    if report is not None:
        boxes = finding_boxes_mm(report)
        for finding in content.findings[:MOST_PICTURED]:
            title = f"Finding {finding.id}: {wording.finding_line(finding)['kind']}, {finding.lung} lung"
            sheet = Sheet(f"{title}{_decided(content, finding)}")
            for text in _finding_texts(finding):
                sheet.text(text)
            for row in finding_rows(report, finding, boxes[finding.id]):
                sheet.pictures(_pictures(row.pictures), most_high=300)
            sheets.append(sheet)
        if not content.findings:
            sheets.append(_lungs(report))
    sheets.append(_last(content))
    for number, sheet in enumerate(sheets, 1):
        sheet.footer(_footer(content, number, len(sheets)))
    return sheets


def _footer(content: DicomContent, number: int, count: int) -> str:
    version = f"{MODEL} {content.versions.get('changemapjoint', __version__)}, exported by {__version__}"
    return f"{RESEARCH}. {version}. Result {content.key[:16]}. Page {number} of {count}"


def _summary(content: DicomContent) -> Sheet:
    sheet = Sheet(TITLE)
    sheet.warning(f"{RESEARCH}.")
    sheet.heading("Registration")
    verdict = content.quality.verdict
    (sheet.text if verdict == "good" else sheet.warning)(f"Verdict: {verdict}. {' '.join(content.quality.reasons)}")
    if content.gate.answer != "fine":
        sheet.warning(" ".join(content.gate.sentences))
    report = content.report
    sheet.heading(f"Findings: {len(content.findings)}")
    if report is not None:
        for words in wording.about_list(report):
            sheet.text(words)
    if report is not None and report.method != "rigid" and verdict != "do not use":
        sheet.pictures(_pictures(overview_pictures(report, content.findings[:MOST_PICTURED])), most_high=430)
    for finding in content.findings:
        sheet.text(f"{finding.id}. {_finding_texts(finding)[0]}{_decided(content, finding)}", size=14)
    return sheet


def _decided(content: DicomContent, finding: Finding) -> str:
    """What the reader decided; without the comment, which may name the patient."""
    word = content.decision(finding)
    return f" ({word} by the reader)" if word else ""


def _finding_texts(finding: Finding) -> list[str]:
    line = wording.finding_line(finding)
    now, before = (
        f"{line[f'size_{scan}']} mm, {line[f'volume_{scan}']} ml" if lesion else str(line[f"size_{scan}"])
        for scan, lesion in (("now", finding.lesion_reference), ("before", finding.lesion_template))
    )
    change = "" if finding.volume_change_percent is None else f"; volume {line['change']}"
    texts = [f"{line['kind']}, {line['place']}: now {now}; before {before}{change}."]
    kinds = ", ".join(text for text in (str(line["nodule_now"]), str(line["nodule_before"])) if text)
    texts.append(f"Doubling time {line['doubling'] or 'unknown'}. {f'Nodule: {kinds}. ' if kinds else ''}")
    texts.append(f"Probability {line['probability']}, trust in the registration {line['trust']}. {line['remark']}")
    return texts


def _lungs(report: ReportContent) -> Sheet:
    sheet = Sheet("Lungs")
    for row in lung_rows(report):
        sheet.pictures(_pictures(row.pictures), most_high=240)
    return sheet


def _last(content: DicomContent) -> Sheet:
    sheet = Sheet("What was not seen, and who read it")
    sheet.heading(UNSEEN_TITLE)
    for sentence in content.not_seen:
        sheet.text(f"- {sentence}")
    if not content.not_seen:
        sheet.text("Nothing is stated: no change map was made, or an older version made it.")
    sheet.heading("Versions")
    sheet.text(", ".join(f"{name} {version}" for name, version in content.versions.items()))
    sheet.heading("Decisions of the reader")
    for finding in content.findings[:20]:
        sheet.text(f"Finding {finding.id}:   {content.decision(finding) or BOXES}")
    sheet.signature("Read by, date, signature")
    return sheet


def _pictures(row: Sequence[Picture]) -> list[tuple[str, Pixels]]:
    return [(picture.caption, _decoded(picture.uri)) for picture in row]


def _decoded(uri: str) -> Pixels:
    """Return the pixels of a picture of the HTML page."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def _key_images(content: DicomContent) -> list[Dataset]:
    """Refer to the slices that the pages show: the current scan's at the findings, else its middle one."""
    scan: SourceImages = content.reference
    points = [finding.centre_mm for finding in content.findings[:MOST_PICTURED]] or [content.grid.centre_mm]
    shown = {str(image.SOPInstanceUID): image for image, _ in map(scan.nearest, points)}
    items = []
    for image in shown.values():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        items.append(item)
    return items
