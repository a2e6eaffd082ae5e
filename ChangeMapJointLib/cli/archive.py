"""``changemap send``, and fetching the scans of a run from an archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib.cli.console import exit_codes, progress_listener
from ChangeMapJointLib.cli.options import ProgressOption, ProgressStyle, log_beside
from ChangeMapJointLib.comparison.events import emit
from ChangeMapJointLib.comparison.load import load_result
from ChangeMapJointLib.comparison.output import is_run
from ChangeMapJointLib.comparison.stages import Listener, Stages
from ChangeMapJointLib.comparison.to_dicom import DicomRequest, check_dicom_packages, check_objects, export_dicom
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io.archive.fetch import Wanted, fetch_pair
from ChangeMapJointLib.io.archive.peer import CALLING, Peer, Tls, parse_peer
from ChangeMapJointLib.io.archive.send import send_objects
from ChangeMapJointLib.io.archive.tries import RETRIES

CaOption = Annotated[Path | None, typer.Option(readable=False, help="Certificates that sign the archive's (PEM).")]
CertificateOption = Annotated[Path | None, typer.Option(readable=False, help="Our own certificate (PEM), for TLS.")]
KeyOption = Annotated[Path | None, typer.Option(readable=False, help="Its key (PEM), if in another file.")]
TlsOption = Annotated[bool, typer.Option("--tls", help="Encrypt the connection to AE@HOST:PORT.")]
AetOption = Annotated[str, typer.Option(help="Our own AE title, as the archive knows it.")]
ListenOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        help="Fetch by C-MOVE: our port, which the archive has to know under --aet; 0 fetches by C-GET.",
    ),
]
RetriesOption = Annotated[int, typer.Option(min=0, max=10, help="Tries after the first, where the connection fails.")]
FromPacsOption = Annotated[
    str,
    typer.Option(help="Fetch both scans from an archive instead: AE@HOST:PORT or a DICOMweb address (https://...)."),
]
PatientOption = Annotated[str, typer.Option(help="Patient ID in the archive: latest chest CT and the one before.")]
StudyOption = Annotated[str, typer.Option(help="StudyInstanceUID of the current scan in the archive.")]
PriorStudyOption = Annotated[str, typer.Option(help="StudyInstanceUID of the prior, if not the latest earlier.")]
SCANS, OBJECTS = ".scans", ".dicom"  # beside the folder of a run: what was fetched, and what is sent


@dataclass(frozen=True)
class Connection:
    """The options of a connection to an archive."""

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    aet: str = CALLING
    retries: int = RETRIES
    listen: int = 0

    def peer(self, address: str, argument: str) -> Peer:
        """Return the archive at an address.

        Raises:
            InputError: it is not an address, or a package is missing.
        """
        check_dicom_packages()
        secure = Tls(self.ca, self.certificate, self.key) if self.tls or self.ca or self.certificate else None
        return parse_peer(address, argument, calling=self.aet, tls=secure, listen=self.listen)


def send_command(
    folder: Annotated[
        Path, typer.Argument(readable=False, help="Folder of a finished run, or of objects that were exported.")
    ],
    to: Annotated[str, typer.Option(help="The archive, AE@HOST:PORT, by C-STORE.")] = "",
    stow: Annotated[str, typer.Option(help="The archive's DICOMweb address, https://..., by STOW-RS.")] = "",
    reference: Annotated[
        Path | None,
        typer.Option(readable=False, help="DICOM series of the current scan; not needed after run --from-pacs."),
    ] = None,
    template: Annotated[Path | None, typer.Option(readable=False, help="DICOM series of the prior scan.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Send also what has arrived already.")] = False,
    tls: TlsOption = False,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    aet: AetOption = CALLING,
    retries: RetriesOption = RETRIES,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Send the DICOM objects of a run to an archive; what has arrived is recorded, and not sent twice."""
    with exit_codes(progress.value, log_beside(folder)), progress_listener(progress.value) as listener:
        if bool(to) == bool(stow):
            raise InputError(
                "two archives" if to else "not given",
                field="to",
                expected="AE@HOST:PORT, or a DICOMweb address",
                remedy=("give either this or ", Argument("stow")),
            )
        connection = Connection(tls, tls_ca, tls_certificate, tls_key, aet, retries)
        peer = connection.peer(to or stow, "to" if to else "stow")
        objects = _objects(folder, reference, template, listener)
        with Stages({"send": 1.0}, listener).stage("send") as report:
            delivery = send_objects(objects, peer, again=again, retries=retries, progress=report)
    names = [path.name for path in delivery.sent]
    if progress is ProgressStyle.json:
        emit("finished", sent=names, earlier=[path.name for path in delivery.earlier])
    else:
        earlier = f", {len(delivery.earlier)} had arrived before" if delivery.earlier else ""
        typer.echo(f"{len(names)} DICOM objects sent to {peer.name}{earlier}")


def beside(folder: Path, suffix: str) -> Path:
    """Return what lies beside a folder under its name and a suffix, also for ``.`` and ``..``, which are no names.

    Examples:
        >>> beside(Path("runs/one"), SCANS).as_posix()
        'runs/one.scans'
    """
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(named.name + suffix)


def fetched(folder: Path) -> Path:
    """Return the series that was fetched last; earlier ones are of a run that had this run's name."""
    series = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return max(series, key=lambda path: path.stat().st_mtime_ns, default=folder)


def _objects(folder: Path, reference: Path | None, template: Path | None, listener: Listener) -> Path:
    """Return the folder of the objects to send; those of a run are exported first, beside it."""
    if not is_run(folder):
        return folder
    result = load_result(folder)
    out, scans = beside(folder, OBJECTS), beside(folder, SCANS)
    if out.is_dir():
        check_objects(result, out)
        return out
    paths = [given or fetched(scans / name) for given, name in ((reference, "current"), (template, "prior"))]
    for name, path in zip(("reference", "template"), paths, strict=True):
        if not path.exists():
            raise InputError(
                "not given",
                field=name,
                expected="the DICOM series that was compared: a run keeps no names and no UIDs",
                remedy="give its folder or zip",
            )
    with Stages({"export": 1.0}, listener).stage("export") as report:
        export_dicom(result, DicomRequest(out, paths[0], paths[1]), progress=report)
    return out


def scans_of(
    reference: Path | None,
    template: Path | None,
    archive: str,
    out: Path,
    listener: Listener,
    *,
    wanted: Wanted,
    connection: Connection,
) -> tuple[Path, Path]:
    """Return both scans: as given, or fetched from an archive into the folder ``OUT.scans``.

    Raises:
        InputError: neither or both are given; or see :func:`~ChangeMapJointLib.io.archive.fetch.fetch_pair`.
    """
    for name, path in (("reference", reference), ("template", template)):
        if path is None and not archive:
            raise InputError("not given", field=name, expected="a scan", remedy=("or give ", Argument("from_pacs")))
        if path is not None and archive:
            raise InputError("given twice", field=name, remedy=("leave out this or ", Argument("from_pacs")))
    if reference is not None and template is not None:
        return reference, template
    peer = connection.peer(archive, "from_pacs")
    with Stages({"fetch": 1.0}, listener).stage("fetch") as report:
        pair = fetch_pair(peer, wanted, beside(out, SCANS), retries=connection.retries, progress=report)
    return pair.reference, pair.template
