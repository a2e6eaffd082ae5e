"""Open the folder of a run for viewing: check that it is complete, and find the two scans that it compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.image_header import ImageHeader
from ChangeMapJointLib.io.read import is_dicom, read_volume, split_selector
from ChangeMapJointLib.io.run_records import RUN_AGAIN, read_records
from ChangeMapJointLib.io.run_seal import bytes_of, check_seal, file_sha256

_IMAGES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".zip")
_MOST_ENTRIES, _MOST_FILES, _MOST_BYTES = 64, 3000, 2_000_000_000  # of a folder in which a scan is looked for
SHOWN_RIGID = (run_files.WARPED_TEMPLATE, run_files.RIGID, run_files.LUNGS_REFERENCE)
SHOWN = (
    *SHOWN_RIGID,
    *(run_files.CHANGE_MAP, run_files.SIGNED_CHANGE, run_files.DEFORMATION, run_files.JACOBIAN, run_files.TRUST),
    run_files.FINDINGS,
)
ON_REFERENCE = (
    *(run_files.WARPED_TEMPLATE, run_files.SIGNED_CHANGE, run_files.CHANGE_MAP, run_files.CHANGE_COMBINED),
    *(run_files.CHANGE_DIFFERENCE, run_files.CHANGE_LEARNED),
)
Array = NDArray[np.generic]


@dataclass(frozen=True)
class OpenedRun:
    """A run that can be shown.

    Attributes:
        folder: of the run.
        records: its JSON files by name without suffix.
        reference: path of the current scan.
        template: path of the prior scan; None where it was not found, and only the warped prior can be shown.
        notes: what a reader should know about how it is shown, one sentence each.
    """

    folder: Path
    records: Mapping[str, Mapping[str, Any]]
    reference: Path
    template: Path | None
    notes: tuple[str, ...]

    @property
    def rigid(self) -> bool:
        """Whether the run has no change map."""
        return bool(self.records["run"].get("configuration", {}).get("method") == "rigid")

    @property
    def method(self) -> str:
        """The method of the run."""
        return str(self.records["run"].get("configuration", {}).get("method", ""))

    @property
    def model(self) -> str:
        """What made the map: the hash of the weights, or the method."""
        sha256 = self.records["run"].get("model_sha256")
        return f"sha256:{sha256}" if sha256 else self.method

    def date(self, side: str) -> str:
        """Date of a scan as the run recorded it; empty where unknown."""
        scan = self.records["run"].get(side) or {}
        return str((scan.get("acquisition") or {}).get("date") or "")

    def current(self) -> tuple[Array, Grid]:
        """Read the current scan."""
        volume = read_volume(self.reference)
        return volume.array, volume.grid

    def prior(self) -> tuple[Array, Grid] | None:
        """Read the prior scan as acquired; None where it was not found."""
        if self.template is None:
            return None
        volume = read_volume(self.template)
        return volume.array, volume.grid


def open_run(
    folder: Path | str, *, reference: Path | None = None, template: Path | None = None, check_hashes: bool = True
) -> OpenedRun:
    """Check the folder of a run and find its scans.

    The folder holds no scans and does not say where they are, which is private. They are looked for by their hash, and
    by their names where the run recorded them: in the folder itself, beside it, in the current folder, and among the
    sample data.

    Args:
        folder: of the run.
        reference: the current scan; None to look for it.
        template: the prior scan; None to look for it.
        check_hashes: compare the files with the hashes in ``run.json``.

    Raises:
        InputError: the folder is not that of a run, is incomplete, from a newer version, or was changed; or a scan
            that was given is not the one that was compared.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "no such folder"
        raise InputError(found, field=folder, expected="the folder of a finished run")
    records = read_records(folder)
    record = records["run"]
    _check_schema(folder, record)
    notes = []
    if check_hashes and not check_seal(folder, record):
        notes.append("This run has no checksums, as older versions wrote it: changes of its files would not show.")
    rigid = record.get("configuration", {}).get("method") == "rigid"
    for name in SHOWN_RIGID if rigid else SHOWN:
        if not (folder / name).is_file():
            raise InputError("is missing", field=folder / name, remedy=RUN_AGAIN)
    _check_grids(folder)
    current = _given(record, "reference", reference) if reference else _found(folder, record, "reference")
    if current is None:
        raise InputError(
            f"the current scan {_name(record, 'reference')} is not beside it",
            field=folder,
            remedy=("give its path with ", Argument("reference"), ", or copy it there"),
        )
    prior = _given(record, "template", template) if template else _found(folder, record, "template")
    if prior is None:
        notes.append(f"The prior scan {_name(record, 'template')} was not found: the prior is shown warped only.")
    return OpenedRun(folder, records, current, prior, tuple(notes))


def _check_schema(folder: Path, record: Mapping[str, Any]) -> None:
    schema = record.get("schema")
    if schema == run_files.SCHEMA:
        return
    newer = isinstance(schema, str) and schema.startswith(run_files.SCHEMA_NAME)
    raise InputError(
        f"found schema {schema!r}" + (", which a newer version wrote" if newer else ""),
        field=folder / run_files.RUN,
        expected=run_files.SCHEMA,
        remedy="update changemapjoint" if newer else RUN_AGAIN,
    )


def _check_grids(folder: Path) -> None:
    """Raise an InputError if a map is not on the current scan's grid; reads the headers only."""
    lungs = _header(folder / run_files.LUNGS_REFERENCE)
    for name in ON_REFERENCE:
        if (folder / name).exists():
            header = _header(folder / name)
            if header.shape != lungs.shape or not np.allclose(header.affine, lungs.affine, atol=1e-3):
                raise InputError(
                    "is not on the grid of the current scan", field=folder / name, expected="one grid", remedy=RUN_AGAIN
                )


def _header(path: Path) -> ImageHeader:
    from ChangeMapJointLib.io.nrrd import read_nrrd_header

    try:
        return read_nrrd_header(path, scalar=True)
    except InputError as error:
        raise error.at(path) from error


# -- scans --------------------------------------------------------------------------------------
def _name(record: Mapping[str, Any], side: str) -> str:
    name = (record.get(side) or {}).get("name")
    return repr(str(name)) if name else "(unnamed)"


def _given(record: Mapping[str, Any], side: str, path: Path) -> Path:
    if not split_selector(path)[0].exists():
        raise InputError("no such file or folder", field=side, value=path)
    if not _is_scan(path, record, side):
        raise InputError("is not the scan that was compared: its hash differs", field=side, value=path)
    return path


def _found(folder: Path, record: Mapping[str, Any], side: str) -> Path | None:
    """Find a scan by the name that the run recorded, or by its hash where the run keeps names to itself."""
    scan = record.get(side) or {}
    name = str(scan.get("name") or "")
    for place in _places(folder):
        named: list[Path] = [place / name] if name and Path(name).name == name else []  # a path would lead anywhere
        others = _scans_in(place) if scan.get("sha256") and place != folder else ()
        path: Path
        for path in (*named, *others):
            try:
                if path.exists() and _is_scan(path, record, side):
                    return path
            except (OSError, InputError):
                continue
    return None


def _scans_in(place: Path) -> Iterator[Path]:
    """What may be a scan in a folder: images, archives, and folders that are no runs; not what is too large to hash."""
    try:
        entries = sorted(place.iterdir())[:_MOST_ENTRIES]
    except OSError:
        return
    for path in entries:
        if path.is_dir():
            files = [] if (path / run_files.RUN).exists() else list(islice(path.rglob("*"), _MOST_FILES))
            if files and len(files) < _MOST_FILES and sum(file.stat().st_size for file in files) < _MOST_BYTES:
                yield path
        elif path.name.lower().endswith(_IMAGES) and path.stat().st_size < _MOST_BYTES:
            yield path


def _places(folder: Path) -> Iterator[Path]:
    yield from (folder, folder.resolve().parent, Path.cwd())
    try:
        yield resource("SamplePair")
    except InputError:
        return


def _is_scan(path: Path, record: Mapping[str, Any], side: str) -> bool:
    """Whether ``path`` holds the scan that was compared, by its hash; without one, by its size in voxels."""
    scan = record.get(side) or {}
    sha256, file_bytes = scan.get("sha256"), scan.get("bytes")
    if file_bytes and bytes_of(split_selector(path)[0]) != file_bytes:  # a hash takes seconds
        return False
    if sha256:
        return bool(_sha256(split_selector(path)[0]) == sha256)
    size = scan.get("size")
    return not size or list(read_volume(path).grid.size) == list(size)


def _sha256(path: Path) -> str:
    if path.is_file() and not is_dicom(path):
        return file_sha256(path)
    from ChangeMapJointLib.io.provenance import sha256_of  # it imports torch

    return sha256_of(path)
