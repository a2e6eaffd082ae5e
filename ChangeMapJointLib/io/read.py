"""Reads CT scans and other volumes from files and folders."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.dicom.recognise import looks_like_dicom
from ChangeMapJointLib.io.image_header import ImageHeader, read_numbers, read_scan
from ChangeMapJointLib.io.large import limit_voxels
from ChangeMapJointLib.io.metaimage import read_meta_header
from ChangeMapJointLib.io.nifti import read_nifti_header
from ChangeMapJointLib.io.nrrd import read_nrrd_header
from ChangeMapJointLib.io.placing import find_placement
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.scan.volume import Acquisition, Volume

NIFTI = (".nii", ".nii.gz")
NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")
FORMATS = "NRRD (.nrrd, .nhdr), NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), or a folder or zip of a DICOM series"


def split_selector(path: str | PathLike[str]) -> tuple[Path, str | None]:
    """Split ``PATH#SELECTOR`` into path and selector.

    The selector picks one of several DICOM series: its number as listed by the error that asks for one (SeriesNumber,
    with a letter where that is not unique), or its SeriesInstanceUID.

    Returns:
        Path and selector; the selector is None if there is no ``#`` or a file of the whole name exists.
    """
    whole = Path(path)
    text = str(path)
    if "#" not in text or _exists(whole):
        return whole, None
    before, _, selector = text.rpartition("#")
    return Path(before), selector


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder without permission, or a loop of links
        return False


def read_volume(path: str | PathLike[str], *, progress: Progress = silent) -> Volume:
    """Read a CT scan in HU.

    Args:
        path: an NRRD, NIfTI or MetaImage file; or a folder (searched recursively) or zip archive with a DICOM
            series, or a multi-frame DICOM file. ``PATH#NUMBER`` or ``PATH#UID`` picks one of several DICOM
            series, see :func:`split_selector`.
        progress: called with the fraction done.

    Returns:
        The scan, int16 where that is lossless, else float32. Values below -1024 HU are raised to -1024; NaN and
        infinity at the outside of the volume become -1024 HU and ``unseen``. A gantry tilt is corrected, also one in
        the header of an image file. Very large scans are averaged to fewer voxels, see
        :mod:`~ChangeMapJointLib.io.large`. Whether it is a chest CT in HU is checked later, by
        :func:`~ChangeMapJointLib.gate.checks.check_ct`.

    Raises:
        InputError: it cannot be read as a single three-dimensional scan.
    """
    file, selector = split_selector(path)
    try:
        exists = file.exists()
    except OSError as error:
        raise InputError(
            f"cannot be reached ({reason_of(error)})", field=file, remedy="check its permissions"
        ) from error
    if not exists:
        raise InputError("no such file or folder", field=file, expected=FORMATS)
    if not (file.is_file() or file.is_dir()):  # a pipe or a device would block
        raise InputError("neither a file nor a folder", field=file, expected=FORMATS)
    if is_dicom(file):
        from ChangeMapJointLib.io.dicom.series import read_dicom  # only here: Slicer 5.10's pydicom is too old for it

        return limit_voxels(read_dicom(file, selector, progress=progress))
    if selector is not None:
        raise InputError(
            f"'#{selector}' selects a DICOM series, but this is an image file",
            field=file,
            remedy="give the path without it",
        )
    with _naming(file):
        header = _header(file)
        placement = find_placement(header.affine, header.shape)
        scan = read_scan(header, placement)
        progress(0.8, "checking voxels")
        if min(scan.hu.shape) < 2:
            raise InputError(f"one slice (shape {scan.hu.shape})", expected="a volume")
    notes = (*header.notes, *placement.notes, *scan.notes)
    return limit_voxels(Volume(scan.hu, placement.grid, file, Acquisition(), notes, scan.unseen))


def read_array(path: str | PathLike[str]) -> tuple[NDArray[np.generic], Grid]:
    """Read a scalar or vector volume such as a map, a mask or a field; use :func:`read_volume` for CT.

    Returns:
        ``[z, y, x]`` or ``[z, y, x, c]`` in the file's own type, and its grid.

    Raises:
        InputError: the file is missing, damaged or not three-dimensional.
    """
    file = Path(path)
    with _naming(file):
        if not file.is_file():
            raise InputError("no such file")
        header = _header(file, scalar=False)
        placement = find_placement(header.affine, header.shape)
        if placement.shear_mm != (0.0, 0.0):
            raise InputError("the axes are not perpendicular (sheared slices)", remedy="resample it to a straight grid")
        return read_numbers(header)[0], placement.grid


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make errors name ``path``."""
    try:
        yield
    except InputError as error:
        raise error.at(path) from error
    except (MemoryError, OSError) as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=path) from error


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in (*NIFTI, *NRRD, *META) if name.endswith(suffix)), "")


def is_dicom(path: Path) -> bool:
    """Return whether ``path`` is read as DICOM: a folder, a DICOM file or a zip archive.

    The content decides, unless the name ends like that of another image format.

    Raises:
        InputError: it cannot be read.
    """
    if path.is_dir():
        return True
    if _suffix(path):
        return False
    with _naming(path), path.open("rb") as stream:
        return looks_like_dicom(stream.read(132)) or zipfile.is_zipfile(path)


def _header(path: Path, *, scalar: bool = True) -> ImageHeader:
    """Read the header of an image file.

    Raises:
        InputError: the header describes no usable volume.
    """
    suffix = _suffix(path)
    if path.suffix.lower() in (".hdr", ".img"):
        raise InputError(
            "a header and its voxels in two files (NIfTI pair or Analyze)", remedy="save them as one .nii file"
        )
    if not suffix:
        raise InputError("unknown file format", expected=FORMATS)
    read = read_nifti_header if suffix in NIFTI else read_nrrd_header if suffix in NRRD else read_meta_header
    return read(path, scalar=scalar)
