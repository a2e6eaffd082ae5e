"""From an archive and back to it: Orthanc and DICOMweb on the loopback, and servers that misbehave."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from archive_samples import ORTHANC, PLUGIN, Server, breaking_after, free_port, only, orthanc, storage
from dicom_samples import IDENTITY, POISON, Sample
from job_samples import QUICK, sample_request
from phantoms import dicom_slices, random_scan, save_slices
from typer.testing import CliRunner

pytest.importorskip("highdicom", reason="highdicom, of the extra dicom, is not installed")
pytest.importorskip("pynetdicom", reason="pynetdicom, of the extra dicom, is not installed")


from ChangeMapJointLib.cli.archive import fetched
from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.archive.entries import ArchiveSeries, Study
from ChangeMapJointLib.io.archive.fetch import Wanted, fetch_pair
from ChangeMapJointLib.io.archive.peer import Tls, parse_peer
from ChangeMapJointLib.io.archive.receive import Receiver, listening
from ChangeMapJointLib.io.archive.tries import archive_of
from ChangeMapJointLib.io.archive.web import WebArchive

pytestmark = pytest.mark.usefixtures("aligned_once")
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
def sample(dicom_sample) -> Sample:
    return dicom_sample


@pytest.fixture(scope="module")
def objects(dicom_objects) -> Path:
    return dicom_objects


@dataclass(frozen=True)
class Hospital:
    """An archive, and the folders of the two series of its one patient that can be compared."""

    server: Server
    current: Path
    prior: Path


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """An archive with a pair, and with what must not be taken for it."""
    folder = tmp_path_factory.mktemp("archive")
    request, patient = sample_request(), {**POISON, **IDENTITY, "StudyTime": "101500", "SeriesDescription": "Thorax"}
    now = dicom_slices(request.reference.volume, StudyDate="20240131", **patient)
    before = dicom_slices(request.template.volume, StudyDate="20230131", **patient)
    scan, study = random_scan(shape=(24, 6, 5)), {"StudyInstanceUID": now[0].StudyInstanceUID, "StudyDate": "20240131"}
    others = {
        "soft kernel of the same study": {**study, "ConvolutionKernel": "B30f"},
        "coronal": {**study, "SeriesDescription": "Thorax cor"},
        "head, between the two": {"StudyDate": "20230801", "SeriesDescription": "Head", "ConvolutionKernel": "H31s"},
        "older": {"StudyDate": "20200131"},
        "another patient": {"StudyDate": "20230901", "PatientID": "PID-4712"},
    }
    with orthanc(folder / "orthanc") as server:
        for name, tags in others.items():
            server.upload(save_slices(folder / name, dicom_slices(scan, **{**patient, **tags})))
        paths = [save_slices(folder / name, slices) for name, slices in (("current", now), ("prior", before))]
        for path in paths:
            server.upload(path)
        yield Hospital(server, *paths)


def stored(server: Server, study: str, objects: Path) -> set[str]:
    """Names of the objects that the archive lists in a study."""
    listed = {one["00080018"]["Value"][0] for one in server.get(f"/dicom-web/studies/{study}/instances")}
    paths = objects.glob("*.dcm")
    return {path.name for path in paths if pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID in listed}


@needs_orthanc
@pytest.mark.parametrize("way", ["dimse", "web"])
def test_query_fetch_run_send_and_list(hospital, tmp_path, way):
    """The whole way through a hospital: the right pair is found, compared, and its result filed with the study."""
    out, address = tmp_path / "result", getattr(hospital.server, way)
    (tmp_path / "quick.json").write_text(json.dumps(QUICK))
    how = ("--method", "rigid", "--config", tmp_path / "quick.json", "--progress", "json")
    told = ok("run", "--from-pacs", address, "--patient", "PID-4711", "--out", out, *how)
    assert json.loads(told.splitlines()[-1])["event"] == "finished"
    for secret in (*POISON.values(), *IDENTITY.values(), "Muster"):
        assert len(secret) == 1 or secret not in told
        assert len(secret) == 1 or not [p.name for p in out.iterdir() if secret.encode() in p.read_bytes()]
    for name, path in (("current", hospital.current), ("prior", hospital.prior)):
        expected = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in path.iterdir()}
        found = {p.stem for p in (tmp_path / "result.scans" / name).rglob("*.dcm")}
        assert found == expected
    to = "--to" if way == "dimse" else "--stow"
    text = ok("send", out, to, address, "--progress", "none")
    files = {p.name for p in (tmp_path / "result.dicom").glob("*.dcm")}
    assert f"{len(files)} DICOM objects sent" in text
    current = pydicom.dcmread(next(hospital.current.iterdir()), stop_before_pixels=True).StudyInstanceUID
    assert stored(hospital.server, current, tmp_path / "result.dicom") == files
    listed = hospital.server.get(f"/dicom-web/studies/{current}/series")
    assert {"REG", "SR", "DOC"} <= {series["00080060"]["Value"][0] for series in listed}
    again = ok("send", out, to, address, "--progress", "none")
    assert f"0 DICOM objects sent to {address}, {len(files)} had arrived before" in again


@needs_orthanc
def test_an_archive_without_c_get_sends_by_c_move(hospital, tmp_path):
    peer = parse_peer(hospital.server.dimse, "from_pacs", listen=hospital.server.listen)
    with pytest.raises(InputError, match="it has to know STRANGER at this computer's port"):
        fetch_pair(replace(peer, calling="STRANGER"), Wanted("PID-4711"), tmp_path / "none", retries=0)
    pair = fetch_pair(peer, Wanted("PID-4711"), tmp_path / "scans", retries=0)
    for found, path in ((pair.reference, hospital.current), (pair.template, hospital.prior)):
        expected = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in path.iterdir()}
        assert {p.stem for p in found.iterdir()} == expected
    lost = sorted(pair.reference.iterdir())[3]
    content = lost.read_bytes()
    lost.unlink()  # fetched half: what is there is not written again, and no longer asked for
    before = {p: p.stat().st_mtime_ns for p in pair.reference.iterdir()}
    fetch_pair(peer, Wanted("PID-4711"), tmp_path / "scans", retries=0)
    assert lost.read_bytes() == content
    assert before == {p: p.stat().st_mtime_ns for p in before}
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        busy = replace(peer, listen=taken.getsockname()[1])
        with pytest.raises(InputError, match=r"cannot be used \(.+\), expected a free port"):
            fetch_pair(busy, Wanted("PID-4711"), tmp_path / "none", retries=0)


def test_what_nobody_asked_for_is_not_taken(tmp_path):
    """The port is open to everybody who can reach it."""
    import pynetdicom

    images = [pydicom.dcmread(p) for p in sorted(save_slices(tmp_path / "scan", dicom_slices(random_scan())).iterdir())]
    (tmp_path / "got").mkdir()
    receiver, port = Receiver(tmp_path / "got", [images[0].SOPInstanceUID], lambda: None), free_port()
    with listening(parse_peer("A@localhost:1", listen=port), receiver):
        entity = pynetdicom.AE()
        entity.add_requested_context(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)
        association = entity.associate("localhost", port, ae_title="CHANGEMAP")
        assert [association.send_c_store(image).Status for image in images[:2]] == [0x0000, 0x0124]
        association.release()
        assert entity.associate("localhost", port, ae_title="OTHER").is_rejected
    assert [p.stem for p in (tmp_path / "got").iterdir()] == [images[0].SOPInstanceUID]


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
def test_what_is_not_found_is_said_and_nothing_is_left(hospital, tmp_path, words, expected):
    text = refused(
        "run", "--from-pacs", hospital.server.dimse, *words, "--out", tmp_path / "result", "--progress", "none"
    )
    assert expected in text
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


# -- servers that misbehave -----------------------------------------------------------------
@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("ChangeMapJointLib.io.archive.tries.FIRST_WAIT_S", 0.0)


def test_a_broken_connection_is_resumed_and_nothing_is_sent_twice(objects, tmp_path):
    folder, got = shutil.copytree(objects, tmp_path / "objects"), []
    total = len(list(folder.glob("*.dcm")))
    with storage(breaking_after(3, got)) as address:
        text = ok("send", folder, "--to", address, "--progress", "none")
    assert f"{total} DICOM objects sent" in text
    assert len(got) == len(set(got)) == total


def test_without_retries_the_message_says_what_has_arrived_and_the_next_command_goes_on(objects, tmp_path):
    folder, got = shutil.copytree(objects, tmp_path / "objects"), []
    total = len(list(folder.glob("*.dcm")))
    with storage(breaking_after(3, got)) as address:
        text = refused("send", folder, "--to", address, "--retries", 0, "--progress", "none")
        assert f"the connection broke while objects were sent; 3 of {total} objects have arrived" in text
        assert len(json.loads((tmp_path / "objects.sent.json").read_text())[address]) == 3
        assert f"{total - 3} DICOM objects sent" in ok("send", folder, "--to", address, "--progress", "none")
        assert len(got) == len(set(got)) == total
        assert "0 DICOM objects sent" in ok("send", folder, "--to", address, "--progress", "none")
        assert f"{total} DICOM objects sent" in ok("send", folder, "--to", address, "--again", "--progress", "none")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0xA700, "is out of resources (status 0xA700) (2 tries); 0 of"), (0xC000, "refused it with status 0xC000: ")],
)
def test_an_archive_that_is_full_or_does_not_want_them(objects, tmp_path, status, expected):
    folder = shutil.copytree(objects, tmp_path / "objects")
    with storage(lambda event: status) as address:
        assert expected in refused("send", folder, "--to", address, "--retries", 1, "--progress", "none")
    assert not (tmp_path / "objects.sent.json").exists()


def test_a_web_archive_that_refuses_jpeg_gets_the_page_without_compression(objects, monkeypatch):
    got = []

    def store(self, dataset) -> str:
        got.append(dataset)
        return "no JPEG" if dataset.file_meta.TransferSyntaxUID.is_compressed else ""

    monkeypatch.setattr(WebArchive, "_store", store)
    answers: dict[str, str] = {}
    files = [objects / name for name in ("measurements.dcm", "page_01.dcm")]
    archive_of(parse_peer("http://localhost:1")).store(files, lambda path, why: answers.update({path.name: why}))
    assert answers == {"measurements.dcm": "", "page_01.dcm": ""}
    _, packed, plain = got
    assert packed.SOPInstanceUID == plain.SOPInstanceUID
    assert (plain.PhotometricInterpretation, plain.LossyImageCompression) == ("RGB", "01")


def test_a_refused_association_names_both_titles(objects):
    with storage(lambda event: 0) as address:
        text = refused("send", objects, "--to", address.replace("STORE", "OTHER"), "--aet", "ME", "--progress", "none")
    assert "refuses the association (called ae title not recognised)" in text
    assert "have it accept the AE title ME, and check its own (OTHER)" in text


def test_an_archive_that_takes_or_offers_nothing_that_is_asked_for(objects, tmp_path):
    folder = shutil.copytree(objects, tmp_path / "objects")
    total = len(list(folder.glob("*.dcm")))
    with only(pydicom.uid.CTImageStorage) as address:
        text = refused("send", folder, "--to", address, "--progress", "none")
        assert re.search(rf"does not take .*, and {total - 1} more; 0 of {total} objects have arrived", text)
        run = ("run", "--from-pacs", address, "--patient", "4711", "--out", tmp_path / "run", "--progress", "none")
        assert "does not offer C-FIND; give the archive's DICOMweb address" in refused(*run)
        with pytest.raises(InputError, match="does not offer C-GET; receive by C-MOVE"):
            archive_of(parse_peer(address)).fetch(
                ArchiveSeries(Study("1", "4711", "", ""), "2", "CT", 30, ""), ["3"], tmp_path, int
            )


def test_objects_of_the_run_that_this_one_replaced_are_not_sent(sample, tmp_path, monkeypatch):
    run = sample.result.save(tmp_path / "run")
    shutil.copytree(sample.result.to_dicom(tmp_path / "first")[0].parent, tmp_path / "run.dicom")
    monkeypatch.chdir(run)  # the folder is called "." then
    send = ("send", ".", "--to", "A@localhost:1", "--retries", 0, "--progress", "none")
    assert "Connection refused; 0 of" in refused(*send)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "started": "2031-01-02T03:04:05+00:00"}))
    text = refused(*send)
    assert "run.dicom: holds objects of another run" in text
    assert "those of the run of 2031-01-02 03:04:05; delete it" in text
    assert "--to: two archives" in refused("send", ".", "--to", "A@h:1", "--stow", "https://h")


def test_of_several_fetches_under_one_name_the_last_one_is_sent(tmp_path):
    assert fetched(tmp_path / "none") == tmp_path / "none"
    for number, name in enumerate(("1.3", "1.1", "1.2")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (number, number))
    assert fetched(tmp_path).name == "1.2"
    os.utime(tmp_path / "1.3")  # fetched before, and again
    assert fetched(tmp_path).name == "1.3"


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("STORE@localhost:1", "Connection refused (1"),
        ("STORE@no.such.host.invalid:104", "no host is called no.such.host.invalid"),
        ("localhost:104", "expected AE@HOST:PORT"),
        ("STORE@localhost:99999", "expected AE@HOST:PORT"),
        ("https://me:secret@localhost/", "~/.netrc"),
    ],
)
def test_addresses_that_do_not_answer(objects, to, expected):
    text = refused("send", objects, "--to", to, "--retries", 0, "--progress", "none")
    assert expected.replace(" (1", "") in text
    assert "secret" not in text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate for localhost that signs itself, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9999"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(["openssl", *words, *names, *files], check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder / "both.pem"


def test_tls_is_checked_and_its_failures_are_told(objects, certificate, tmp_path):
    folder, got = shutil.copytree(objects, tmp_path / "objects"), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    send = ("send", folder, "--retries", 0, "--progress", "none", "--to")
    with storage(breaking_after(-1, got), tls=context) as address:
        assert "certificate is not accepted (self-signed" in refused(*send, address, "--tls")
        assert "no certificate" in refused(*send, address, "--tls-ca", next(objects.glob("*.dcm")))
        assert "no such file" in refused(*send, address, "--tls-ca", tmp_path / "none.pem")
        other = address.replace("localhost", "127.0.0.1")
        assert "certificate is not accepted (IP address mismatch" in refused(*send, other, "--tls-ca", certificate)
        assert not got
        assert "DICOM objects sent" in ok(*send, address, "--tls-ca", certificate)
    with storage(breaking_after(-1, got)) as address:
        assert "TLS failed" in refused(*send, address, "--tls", "--again")
        run = ("run", "--from-pacs", address, "--patient", "4711", "--out", tmp_path / "run", "--progress", "none")
    with (
        pytest.raises(InputError, match="needs a certificate of ours"),
        listening(parse_peer("A@localhost:1", listen=free_port(), tls=Tls()), Receiver(tmp_path, [], int)),
    ):
        pass
    assert "is for AE@HOST:PORT; leave it out" in refused(*run[:2], "https://localhost", *run[3:], "--listen", 104)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("x.dcm", b"no", "is not a DICOM object"), (None, b"", "holds no DICOM objects")],
)
def test_only_objects_of_ours_are_sent(objects, tmp_path, name, content, expected):
    (tmp_path / "objects").mkdir()
    if name:
        (tmp_path / "objects" / name).write_bytes(content)
    assert expected in refused("send", tmp_path / "objects", "--to", "A@localhost:1", "--progress", "none")
    images = save_slices(tmp_path / "scan", dicom_slices(random_scan()))
    assert "was not made by changemap export" in refused("send", images, "--to", "A@localhost:1", "--progress", "none")
