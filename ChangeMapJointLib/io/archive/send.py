"""Send the objects of a result to an archive, and record which have arrived."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.archive.peer import Peer
from ChangeMapJointLib.io.archive.tries import RETRIES, archive_of, with_tries
from ChangeMapJointLib.io.run_seal import file_sha256
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.io.write import atomic_path

RECORD = ".sent.json"  # beside the folder of the objects
ROOM_BYTES = 4096  # for what a command adds to it


@dataclass(frozen=True)
class Delivery:
    """What became of the objects.

    Attributes:
        sent: files that were sent now.
        earlier: files that an earlier command had sent.
        refused: files that the archive does not take, with the reason.
    """

    sent: tuple[Path, ...]
    earlier: tuple[Path, ...]
    refused: tuple[tuple[Path, str], ...]


def send_objects(
    folder: Path, peer: Peer, *, again: bool = False, retries: int = RETRIES, progress: Progress = silent
) -> Delivery:
    """Send the DICOM objects of a folder; those that a record beside it says have arrived are left out.

    Args:
        folder: of DICOM objects that an export wrote.
        peer: the archive.
        again: send all, whatever the record says.
        retries: tries after the first, where the connection fails.
        progress: called with the fraction sent.

    Returns:
        What became of each object. The record, ``FOLDER.sent.json``, is written after each.

    Raises:
        InputError: the folder holds no objects, the connection failed for good, or the archive refused some; the
            message says how many have arrived.
    """
    if folder.name in ("", ".."):  # no names, to which a suffix could be added
        folder = folder.resolve()
    files = objects_in(folder)
    record_path = folder.with_name(folder.name + RECORD)
    record = _read_record(record_path)
    known = {} if again else dict(record.get(peer.name, {}))
    hashes = {path: file_sha256(path) for path in files}
    earlier = tuple(path for path in files if known.get(path.name) == hashes[path])
    left = [path for path in files if path not in earlier]
    sent: list[Path] = []
    refused: list[tuple[Path, str]] = []

    def note(path: Path, why: str) -> None:
        left.remove(path)
        if why:
            refused.append((path, why))
            return
        sent.append(path)
        known[path.name] = hashes[path]
        record[peer.name] = known
        try:
            _write_record(record_path, record)
        except InputError as error:
            raise InputError(
                f"cannot be written ({reason_of(error.__cause__ or error)}); {outcome()}, the last of them unrecorded",
                field=record_path,
                remedy="free space there, then give the same command: it sends what is not recorded",
            ) from error
        progress((len(earlier) + len(sent)) / len(files), f"{len(earlier) + len(sent)} of {len(files)} objects")

    def outcome() -> str:
        return f"{len(earlier) + len(sent)} of {len(files)} objects have arrived"

    if left:
        _check_room(record_path, record)
        archive = archive_of(peer)
        with_tries(peer, lambda: archive.store(tuple(left), note), retries=retries, outcome=outcome)
    if refused:
        name, why = refused[0][0].name, refused[0][1]
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise peer.error(f"{why}: {name}{more}; {outcome()}", remedy="have the archive accept these objects")
    return Delivery(tuple(sent), earlier, tuple(refused))


def objects_in(folder: Path) -> tuple[Path, ...]:
    """Return the DICOM files of an export; those that others refer to come first.

    Raises:
        InputError: there is none, or a file is not a DICOM object of this program: nothing else is sent.
    """
    if not folder.is_dir():
        raise InputError("no such folder", field=folder, expected="the folder of DICOM objects that an export wrote")
    files = sorted(folder.glob("*.dcm"))
    if not files:
        raise InputError("holds no DICOM objects", field=folder, expected="those that an export wrote")
    kinds = {}
    for path in files:
        try:
            header = dcmread(path, specific_tags=["Modality", "ManufacturerModelName"], stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError) as error:
            raise InputError(f"is not a DICOM object ({reason_of(error)})", field=path) from error
        if not str(header.get("ManufacturerModelName", "")).startswith("ChangeMapJoint"):
            raise InputError(
                "was not made by changemap export, and is not sent", field=path, remedy="move it elsewhere"
            )
        kinds[path] = str(header.get("Modality", ""))
    return tuple(sorted(files, key=lambda path: (kinds[path] not in ("SEG",), kinds[path], path.name)))


def _write_record(path: Path, record: dict[str, dict[str, str]]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _check_room(path: Path, record: dict[str, dict[str, str]]) -> None:
    """Check that the record can be written before anything is sent that it would not hold.

    Raises:
        InputError: it cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent) as stream:
            stream.write(b" " * (len(json.dumps(record)) + ROOM_BYTES))
    except OSError as error:
        raise InputError(
            f"cannot be written ({reason_of(error)}); nothing was sent",
            field=path,
            expected="a folder in which it can be recorded what has arrived",
            remedy="free space there, or move the objects",
        ) from error


def _read_record(path: Path) -> dict[str, dict[str, str]]:
    """What has arrived at which archive; nothing where the record is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    good = isinstance(content, dict) and all(isinstance(files, dict) for files in content.values())
    return content if good else {}
