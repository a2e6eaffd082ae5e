"""Orthanc as an archive on the loopback, with its DICOMweb service and, on request, TLS."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin")


@dataclass(frozen=True)
class Server:
    """A running archive: its DIMSE address, that of its web server, its log, and the port to which it sends."""

    dimse: str
    http: str
    log: Path
    listen: int

    @property
    def web(self) -> str:
        return f"{self.http}/dicom-web"

    def get(self, path: str) -> object:
        with urllib.request.urlopen(f"{self.http}{path}", timeout=20) as answer:
            return json.load(answer)

    def post(self, path: str, content: bytes) -> object:
        request = urllib.request.Request(f"{self.http}{path}", content, method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def upload(self, folder: Path) -> None:
        for file in folder.iterdir():
            self.post("/instances", file.read_bytes())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def orthanc(folder: Path, **options: object) -> Iterator[Server]:
    """Run Orthanc until the block ends; ``options`` go into its configuration."""
    folder.mkdir(parents=True)
    dimse, http, listen = free_port(), free_port(), free_port()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": "ORTHANC",
        "DicomModalities": {"changemap": ["CHANGEMAP", "127.0.0.1", listen]},
        "DicomPort": dimse,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowStore": True,
        "Plugins": [str(PLUGIN)] if PLUGIN.exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **options,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration), "utf-8")
    log = folder / "orthanc.log"
    with log.open("w") as stream:
        server = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=stream, stderr=stream)
        try:
            address = f"http://127.0.0.1:{http}"
            while True:
                assert server.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"{address}/system", timeout=5).close()
                    break
                except OSError:
                    continue
            yield Server(f"ORTHANC@localhost:{dimse}", address, log, listen)
        finally:
            server.terminate()
            server.wait(timeout=20)


@contextmanager
def storage(handler, *, title: str = "STORE", tls=None, port: int = 0) -> Iterator[str]:
    """A server of our own that answers C-STORE as ``handler`` says; its address."""
    from pydicom.uid import AllTransferSyntaxes
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    entity = AE(ae_title=title)
    entity.require_called_aet = True
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
    port = port or free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, handler)], ssl_context=tls
    )
    try:
        yield f"{title}@localhost:{port}"
    finally:
        server.shutdown()


@contextmanager
def only(sop_class: str) -> Iterator[str]:
    """A server that answers, but takes one kind of object alone."""
    from pynetdicom import AE

    entity, port = AE(ae_title="STORE"), free_port()
    entity.add_supported_context(sop_class, scp_role=True, scu_role=True)
    server = entity.start_server(("127.0.0.1", port), block=False)
    try:
        yield f"STORE@localhost:{port}"
    finally:
        server.shutdown()


def breaking_after(count: int, got: list[str]):
    """A handler that ends the connection instead of taking every further object, once."""
    broken = []

    def handle(event) -> int:
        if len(got) == count and not broken:
            broken.append(True)
            event.assoc.abort()
            return 0
        got.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    return handle
