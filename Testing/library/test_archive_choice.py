"""Which scans an archive gives: the latest chest and the one before; and archives that answer wrongly."""

from __future__ import annotations

import copy
import errno
import re
import shutil
import ssl
import subprocess
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from dicom_samples import IDENTITY
from phantoms import dicom_slices, random_scan

pytest.importorskip("pynetdicom", reason="pynetdicom, of the extra dicom, is not installed")

from pydicom.uid import EnhancedCTImageStorage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.archive.choose import choose_pair
from ChangeMapJointLib.io.archive.entries import count_frames, series_of, study_of
from ChangeMapJointLib.io.archive.fetch import Wanted, fetch_pair
from ChangeMapJointLib.io.archive.peer import ConnectionLost, Tls, parse_peer
from ChangeMapJointLib.io.archive.tries import archive_of


class Shelf:
    """An archive in memory: ``{study: {series: images}}``; ``broken`` says what it does wrong."""

    def __init__(self, images, broken: str = "") -> None:
        self.images, self.broken = images, broken

    def studies(self, *, patient="", study=""):
        studies = {study_of(ds) for ds in self.images}
        return [one for one in studies if one.patient == patient or one.uid == study]

    def series(self, study):
        own = [ds for ds in self.images if ds.StudyInstanceUID == study.uid]
        counts = Counter(ds.SeriesInstanceUID for ds in own)
        first = {ds.SeriesInstanceUID: ds for ds in own}
        return [replace(series_of(ds, study), count=counts[uid]) for uid, ds in first.items()]

    def instances(self, series):
        return [str(ds.SOPInstanceUID) for ds in self.images if ds.SeriesInstanceUID == series.uid]

    def frames(self, series):
        return count_frames(ds for ds in self.images if ds.SeriesInstanceUID == series.uid)

    def header(self, series, instance, folder):
        return next(ds for ds in self.images if instance == ds.SOPInstanceUID)

    def fetch(self, series, instances, folder, got):
        for number, ds in enumerate(self.images):
            if ds.SOPInstanceUID not in instances or (self.broken == "missing" and number == 7):
                continue
            if self.broken == "full" and number == 7:
                raise OSError(errno.ENOSPC, "No space left on device")
            image = copy.deepcopy(ds)
            if self.broken == "mixed" and number == 7:
                image.PatientID = "PID-9"
            image.save_as(folder / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
            got()


def shelf(broken: str = "", **series: dict[str, str]) -> Shelf:
    """An archive with one series a keyword, of 24 images, of the patient PID-4711."""
    images = []
    for tags in series.values():
        images += dicom_slices(random_scan(shape=(24, 6, 5)), **{**IDENTITY, "StudyTime": "101500", **tags})
    return Shelf(images, broken)


TWO = {"now": {"StudyDate": "20240131"}, "before": {"StudyDate": "20230131"}}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("missing", "1 of the 24 images that it lists of series"),
        ("mixed", "is of another patient than its study"),
        ("full", "the images cannot be written (No space left on device)"),
    ],
)
def test_a_missing_image_another_patient_and_a_full_disk(tmp_path, monkeypatch, broken, expected):
    monkeypatch.setattr("ChangeMapJointLib.io.archive.fetch.archive_of", lambda _: shelf(broken, **TWO))
    peer = parse_peer("A@localhost:104", "from_pacs")
    with pytest.raises(InputError, match=re.escape(expected)):
        fetch_pair(peer, Wanted("PID-4711"), tmp_path / "scans", retries=0)


def chosen(archive: Shelf, **wanted: str) -> tuple[str, str, str, str]:
    pair = choose_pair(archive, patient="PID-4711", **wanted)
    return pair.current.series.study.date, pair.current.kernel, pair.prior.series.study.date, pair.prior.kernel


def test_the_latest_chest_and_the_latest_before_it_with_the_lung_kernel():
    same = {"StudyDate": "20240131", "StudyInstanceUID": "1.2.3"}
    archive = shelf(
        lung={**same, "ConvolutionKernel": "BONEPLUS"},
        soft={**same, "ConvolutionKernel": "STANDARD"},
        thick={**same, "ConvolutionKernel": "BONEPLUS", "SliceThickness": "5"},
        head={"StudyDate": "20240301", "SeriesDescription": "Head", "BodyPartExamined": "HEAD"},
        mip={"StudyDate": "20240301", "SeriesDescription": "Thorax MIP"},
        prior={"StudyDate": "20230131", "ConvolutionKernel": "B60f", "SeriesDescription": "Chest"},
        older={"StudyDate": "20220131", "ConvolutionKernel": "BONEPLUS"},
    )
    assert chosen(archive) == ("20240131", "BONEPLUS", "20230131", "B60f")
    first = next(ds for ds in archive.images if ds.StudyDate == "20220131").StudyInstanceUID
    assert chosen(archive, prior_study=first)[2:] == ("20220131", "BONEPLUS")
    with pytest.raises(InputError, match="0 earlier CT studies"):
        choose_pair(archive, study=first)


THORAX = {"ConvolutionKernel": "STANDARD", "SliceThickness": "2", "SeriesDescription": "Thorax"}
BEATEN = {  # by another series of the same study, although it is thinner
    "soft kernel in a study for lungs": {"StudyDescription": "Lung screening", "ProtocolName": "Lung low dose"},
    "soft kernel called lung": {"SeriesDescription": "Lung soft"},
    "another part in a study of the chest": {
        "StudyDescription": "Thorax Abdomen",
        "SeriesDescription": "Abdomen venous",
        "ConvolutionKernel": "B60f",
    },
    "coronal by its header alone": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ConvolutionKernel": "B60f"},
    "a projection by its type": {"ImageType": ["DERIVED", "SECONDARY", "MIP"], "ConvolutionKernel": "B60f"},
    "a map that is not HU": {"RescaleType": "Z_EFF", "ConvolutionKernel": "B60f"},
    "with contrast": {"ContrastBolusAgent": "Iohexol", "ConvolutionKernel": "BONEPLUS"},
    "a header that is damaged": {"ImageOrientationPatient": [1, 0, 0], "ConvolutionKernel": "B60f"},
    "few images": {"few": True, "ConvolutionKernel": "B60f"},
}


@pytest.mark.parametrize("beaten", BEATEN.values(), ids=BEATEN)
def test_what_is_beaten_by_a_low_dose_scan_with_a_lung_kernel(beaten):
    """A low dose is what most scans of lungs have: its words exclude nothing."""
    study = {**THORAX, "StudyDate": "20240131", "StudyInstanceUID": "1.2.3"}
    right = {
        **study,
        "ConvolutionKernel": "BONEPLUS",
        "SeriesDescription": "Chest low dose",
        "ProtocolName": "Low dose",
    }
    wrong = {**study, "SliceThickness": "1", **{name: value for name, value in beaten.items() if name != "few"}}
    archive = shelf(right=right, wrong=wrong, before={**right, "StudyInstanceUID": "1.2.1", "StudyDate": "20230131"})
    if "few" in beaten:
        last = archive.images[47].SeriesInstanceUID
        archive.images = [ds for ds in archive.images if ds.SeriesInstanceUID != last or ds.InstanceNumber <= 3]
    pair = choose_pair(archive, patient="PID-4711")
    assert pair.current.series.uid == archive.images[0].SeriesInstanceUID


def test_the_prior_has_the_contrast_of_the_current_scan_where_one_has():
    study = {**THORAX, "StudyDate": "20230131", "StudyInstanceUID": "1.2.3"}
    archive = shelf(
        now={**THORAX, "StudyDate": "20240131", "ContrastBolusAgent": "Iohexol"},
        native={**study, "SliceThickness": "1", "ContrastBolusAgent": "ohne KM"},
        unclear={**study, "SliceThickness": "1", "ContrastBolusAgent": "Jod-Allergie"},
        contrast={**study, "ContrastBolusAgent": "Iopamidol"},
    )
    assert choose_pair(archive, patient="PID-4711").prior.contrast


@pytest.mark.parametrize("counted", [True, False])
def test_a_scan_in_one_file_of_many_images_counts(monkeypatch, counted):
    """Enhanced CT; a scout of one image does not. NumberOfSeriesRelatedInstances is optional."""
    archive = shelf(now=TWO["now"], before=TWO["before"], scout={**TWO["now"], "SeriesDescription": "Chest"})
    first, *_, scout = archive.images
    packed = copy.deepcopy(first)
    packed.SOPClassUID, packed.NumberOfFrames = EnhancedCTImageStorage, 24
    packed.ImageType, packed.StudyDate = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "20240201"
    packed.StudyInstanceUID, packed.SeriesInstanceUID, packed.SOPInstanceUID = "1.2.9", "1.2.9.1", "1.2.9.1.1"
    archive.images = [*archive.images[:48], scout, packed]
    if not counted:
        listed = archive.series
        monkeypatch.setattr(archive, "series", lambda study: [replace(one, count=0) for one in listed(study)])
    pair = choose_pair(archive, patient="PID-4711")
    assert pair.current.series.uid == "1.2.9.1"
    assert pair.prior.series.uid == first.SeriesInstanceUID


def test_studies_without_a_date_and_of_one_day():
    """Without a date a study is neither the latest nor earlier; of one day, the time decides."""
    with pytest.raises(InputError, match="no date"):
        choose_pair(shelf(now={"StudyDate": ""}), patient="PID-4711")
    undated = {"StudyDate": "", "StudyTime": "235900"}
    with pytest.raises(InputError, match="an earlier chest CT"):
        choose_pair(shelf(now=TWO["now"], undated=undated), patient="PID-4711")
    assert chosen(shelf(**TWO, undated=undated))[::2] == ("20240131", "20230131")
    day = {"StudyDate": "20240131"}
    archive = shelf(late={**day, "StudyTime": "180000"}, **TWO)
    pair = choose_pair(archive, patient="PID-4711")
    assert [one.series.study.time for one in (pair.current, pair.prior)] == ["180000", "101500"]
    with pytest.raises(InputError, match="an earlier chest CT"):
        choose_pair(shelf(one=day, other=day), patient="PID-4711")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_web_archive_is_checked_by_the_certificates_that_were_given(tmp_path, monkeypatch):
    """Also where the environment names others, as it does behind a proxy that reads along."""

    class Full(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(507)

    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    for name in ("own", "other"):
        files = ["-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"]
        subprocess.run([*words, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Full)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"https://localhost:{server.server_port}"
    try:
        for name, error, said in (("own", ConnectionLost, "HTTP status 507"), ("other", InputError, "TLS failed")):
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / f"{'other' if name == 'own' else 'own'}.pem"))
            peer = parse_peer(address, tls=Tls(tmp_path / f"{name}.pem"))
            with pytest.raises(error, match=said):
                archive_of(peer).studies(patient="PID-4711")
    finally:
        server.shutdown()
        server.server_close()
