"""Exports a finished run as DICOM in its own process: ``python -m ChangeMapJointLib.background.dicom_export FILE``.

A series of Slicer's database is a list of files that need not share a folder. They are gathered in one for the time of
the export, which reads a series from a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath

from ChangeMapJointLib.background.request import SIDES
from ChangeMapJointLib.comparison.events import EXIT_CANCELLED, EXIT_FAULT, EXIT_INPUT, cancel_on_signals, emit
from ChangeMapJointLib.core.errors import Argument, Cancelled, InputError, Subject


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        run: folder of the finished run.
        out: folder to make.
        reference: the files of the current scan's series.
        template: the files of the prior scan's series.
        decisions: of the reader, ``accepted``, ``rejected`` or empty with a comment, by number of the finding: Slicer
            keeps them in the scene, not in the folder.
        registration: the reader's verdict on the registration; empty without one.
    """

    run: str
    out: str
    reference: tuple[str, ...]
    template: tuple[str, ...]
    decisions: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    registration: str = ""

    def write(self, path: Path) -> None:
        """Write it for the process; only this user can read it, since names of files may be names of patients."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            json.dump(asdict(self), stream)

    @classmethod
    def read(cls, path: Path) -> ExportRequest:
        """Read what :meth:`write` wrote."""
        values = json.loads(path.read_text("utf-8"))
        decisions = {int(number): (word, comment) for number, (word, comment) in values["decisions"].items()}
        series = tuple(values["reference"]), tuple(values["template"])
        return cls(values["run"], values["out"], *series, decisions, values["registration"])


@contextmanager
def gathered(files: Sequence[str], parent: Path | None = None) -> Iterator[Path]:
    """Yield a folder with these files, as links where the system allows it; it is removed afterwards.

    Args:
        files: of a series.
        parent: where the folder is made, one that goes with it if the process is killed; None for the temporary folder.

    Raises:
        InputError: a file is gone.
    """
    with tempfile.TemporaryDirectory(prefix="ChangeMapJoint", dir=parent) as name:
        folder = Path(name)
        for number, file in enumerate(files):
            place = folder / f"{number:05d}.dcm"
            if not Path(file).is_file():
                raise InputError(
                    "a file of the series is no longer there", field=Path(file), remedy="import the series again"
                )
            try:
                place.symlink_to(Path(file).resolve())
            except OSError:  # Windows asks for a privilege
                shutil.copyfile(file, place)
        yield folder


def export(request: ExportRequest, parent: Path | None = None) -> list[Path]:
    """Write the DICOM objects of the run; see :meth:`~ChangeMapJointLib.comparison.load.SavedResult.to_dicom`.

    Args:
        request: what to export.
        parent: see :func:`gathered`.

    Raises:
        InputError: as there; a series is named by its side, not by the folder in which it was gathered.
    """
    from ChangeMapJointLib.comparison.load import load_result
    from ChangeMapJointLib.comparison.to_dicom import DicomRequest, export_dicom
    from ChangeMapJointLib.export.document.content import Decision, DocumentReading

    decisions = {number: Decision(*decided) for number, decided in request.decisions.items()}
    reading = DocumentReading(decisions, request.registration)
    with gathered(request.reference, parent) as reference, gathered(request.template, parent) as template:
        try:
            wanted = DicomRequest(Path(request.out), reference, template, reading=reading)
            return export_dicom(load_result(request.run), wanted)
        except InputError as error:
            folders = zip((reference, template), SIDES, strict=True)
            sides: dict[PurePath, Subject] = {folder: Argument(side) for folder, side in folders}
            named = error.with_subjects(sides)
            raise named.about(*{str(subject): subject for subject in named.subjects}.values()) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, and report the end as one JSON line; return 0, 1 (fault), 2 (bad input) or 130 (stopped: no files)."""
    parser = argparse.ArgumentParser(prog="python -m ChangeMapJointLib.background.dicom_export", description=__doc__)
    parser.add_argument("request", type=Path, help="file with the request")
    try:
        with cancel_on_signals():
            path = parser.parse_args(arguments).request
            files = export(ExportRequest.read(path), path.parent)
    except Cancelled:
        return EXIT_CANCELLED
    except InputError as error:
        emit("error", message=str(error), error=error.to_json())
        return EXIT_INPUT
    except Exception as error:
        traceback.print_exc()
        emit("error", message=f"A fault in the program: {type(error).__name__}: {error}")
        return EXIT_FAULT
    emit("finished", files=len(files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
