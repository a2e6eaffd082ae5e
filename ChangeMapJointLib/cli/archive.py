"""``changemap send``, and fetching the scans of a run from an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib.cli.console import exit_codes, progress_listener
from ChangeMapJointLib.cli.options import ProgressOption, ProgressStyle, log_beside
from ChangeMapJointLib.comparison.events import emit
from ChangeMapJointLib.comparison.load import load_result
from ChangeMapJointLib.comparison.output import is_run
from ChangeMapJointLib.comparison.stages import Listener, Stages
from ChangeMapJointLib.comparison.to_dicom import DicomRequest, check_packages, export_dicom
from ChangeMapJointLib.core.errors import Argument, InputError

CaOption = Annotated[Path | None, typer.Option(readable=False, help="Certificates that sign the archive's (PEM).")]
CertificateOption = Annotated[Path | None, typer.Option(readable=False, help="Our own certificate (PEM), for TLS.")]
KeyOption = Annotated[Path | None, typer.Option(readable=False, help="Its key (PEM), if in another file.")]
TlsOption = Annotated[bool, typer.Option("--tls", help="Encrypt the connection to AE@HOST:PORT.")]
AetOption = Annotated[str, typer.Option(help="Our own AE title, as the archive knows it.")]
RetriesOption = Annotated[int, typer.Option(min=0, max=10, help="Tries after the first, where the connection fails.")]
CALLING, RETRIES = "CHANGEMAP", 3
SCANS, OBJECTS = ".scans", ".dicom"  # beside the folder of a run: what was fetched, and what is sent


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
                "two archives" if to else "not given", field="to", expected="AE@HOST:PORT, or a DICOMweb address (stow)"
            )
        check_packages()
        from ChangeMapJointLib.io.archive.peer import Tls, parse_peer
        from ChangeMapJointLib.io.archive.send import send_objects

        secure = Tls(tls_ca, tls_certificate, tls_key) if tls or tls_ca or tls_certificate else None
        peer = parse_peer(to or stow, "to" if to else "stow", calling=aet, tls=secure)
        objects = _objects(folder, reference, template, listener)
        with Stages({"send": 1.0}, listener).stage("send") as report:
            delivery = send_objects(objects, peer, again=again, retries=retries, progress=report)
    names = [path.name for path in delivery.sent]
    if progress is ProgressStyle.json:
        emit("finished", sent=names, earlier=[path.name for path in delivery.earlier])
    else:
        earlier = f", {len(delivery.earlier)} had arrived before" if delivery.earlier else ""
        typer.echo(f"{len(names)} DICOM objects sent to {peer.name}{earlier}")


def _objects(folder: Path, reference: Path | None, template: Path | None, listener: Listener) -> Path:
    """Return the folder of the objects to send; those of a run are exported first, beside it."""
    if not is_run(folder):
        return folder
    out = folder.with_name(folder.name + OBJECTS)
    if out.is_dir():
        return out
    result, scans = load_result(folder), folder.with_name(folder.name + SCANS)
    paths = [given or scans / name for given, name in ((reference, "current"), (template, "prior"))]
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


def fetch_scans(
    archive: str,
    out: Path,
    listener: Listener,
    *,
    patient: str,
    study: str,
    prior_study: str,
    tls: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    aet: str,
    retries: int,
) -> tuple[Path, Path]:
    """Fetch the current scan and its prior into the folder ``OUT.scans`` and return both series.

    Raises:
        InputError: see :func:`~ChangeMapJointLib.io.archive.fetch.fetch_pair`.
    """
    check_packages()
    from ChangeMapJointLib.io.archive.fetch import Wanted, fetch_pair
    from ChangeMapJointLib.io.archive.peer import Tls, parse_peer

    secure = Tls(ca, certificate, key) if tls or ca or certificate else None
    peer = parse_peer(archive, "from_pacs", calling=aet, tls=secure)
    with Stages({"fetch": 1.0}, listener).stage("fetch") as report:
        fetched = fetch_pair(
            peer,
            Wanted(patient, study, prior_study),
            out.with_name(out.name + SCANS),
            retries=retries,
            progress=report,
        )
    return fetched.reference, fetched.template


def check_scans(reference: Path | None, template: Path | None, archive: str) -> None:
    """Check that both scans are given, or an archive instead.

    Raises:
        InputError: neither, or both.
    """
    for name, path in (("reference", reference), ("template", template)):
        if path is None and not archive:
            raise InputError("not given", field=name, expected="a scan", remedy=("or give ", Argument("from_pacs")))
        if path is not None and archive:
            raise InputError("given twice", field=name, remedy=("leave out one of it and ", Argument("from_pacs")))
