"""Reading CT scans and other volumes from files and folders."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.volumes.dicom import read_dicom
from ChangeMapJointLib.volumes.dicom_headers import looks_like_dicom
from ChangeMapJointLib.volumes.dicom_stacks import MAX_VOXELS
from ChangeMapJointLib.volumes.hu import as_hu
from ChangeMapJointLib.volumes.large import within_limit
from ChangeMapJointLib.volumes.nifti import check_nifti
from ChangeMapJointLib.volumes.padding import with_unseen
from ChangeMapJointLib.volumes.sources import reason_of
from ChangeMapJointLib.volumes.volume import Acquisition, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

NIFTI = (".nii", ".nii.gz")
NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")
FORMATS = "NRRD (.nrrd, .nhdr), NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), or a folder or zip of a DICOM series"


def split_selector(path: str | PathLike[str]) -> tuple[Path, str | None]:
    """``(path, selector)`` of ``PATH#SELECTOR``; the selector is None when there is no ``#`` or PATH#... exists.

    The selector picks one DICOM series of several: its number as listed by the error that asks for one
    (SeriesNumber, with a letter where that is not unique), or its SeriesInstanceUID.
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
    except OSError:  # in a folder that may not be entered, or a loop of links
        return False


def read_volume(path: str | PathLike[str], *, progress: Progress = silent) -> Volume:
    """A CT scan in HU.

    Args:
        path: an NRRD, NIfTI or MetaImage file; or a folder (searched recursively) or zip archive with a DICOM
            series, or a multi-frame DICOM file. ``PATH#NUMBER`` or ``PATH#UID`` picks one of several DICOM
            series, see :func:`split_selector`.
        progress: called with the fraction done.

    Returns:
        The scan as int16 where that loses nothing, else float32. Values below -1024 are raised to it. One of more
        voxels than maps can use is averaged, see :mod:`~ChangeMapJointLib.volumes.large`. Whether it is a CT of a
        chest in HU is not looked at here, see :func:`~ChangeMapJointLib.volumes.checks.check_ct`.

    Raises:
        InputError: when it cannot be read as one three-dimensional scan.
    """
    file, selector = split_selector(path)
    try:
        there = file.exists()
    except OSError as error:
        raise InputError(f"{file}: cannot be reached ({reason_of(error)}); check its permissions") from error
    if not there:
        raise InputError(f"{file}: no such file or folder; expected {FORMATS}")
    if is_dicom(file):
        return with_unseen(within_limit(read_dicom(file, selector, progress=progress)))
    if selector is not None:
        raise InputError(f"{file}: '#{selector}' picks a DICOM series, but this is a file; give the path without it")
    with _naming(file):
        image, notes = _read_image(file)
        grid, array = _grid(image), _view(image)
        progress(0.8, "checking voxels")
        hu = as_hu(array)
        del array, image  # two copies for no longer than needed
        if min(hu.shape) < 2:
            raise InputError(f"one slice (shape {hu.shape}), expected a volume")
    return with_unseen(within_limit(Volume(hu, grid, file, Acquisition(), notes)))


def read_array(path: str | PathLike[str]) -> tuple[NDArray[np.generic], Grid]:
    """Any scalar or vector volume: ``[z, y, x]`` or ``[z, y, x, c]`` in the file's own type, and its grid.

    For maps, masks and fields; a CT is read by :func:`read_volume`.

    Raises:
        InputError: missing, damaged, or not three-dimensional.
    """
    file = Path(path)
    with _naming(file):
        if not file.is_file():
            raise InputError("no such file")
        image, _ = _read_image(file, scalar=False)
        return _voxels(image), _grid(image)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name ``path``, on one line."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except (MemoryError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
    except RuntimeError as error:  # ITK: the last line says what is wrong
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else "unknown reason"
        raise InputError(f"{path}: cannot be read ({reason[:200]}); expected {FORMATS}") from error


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in (*NIFTI, *NRRD, *META) if name.endswith(suffix)), "")


def is_dicom(path: Path) -> bool:
    """A folder, a DICOM file or a zip archive, whatever it is called, unless it is called an image of another kind.

    Raises:
        InputError: it cannot be read.
    """
    if path.is_dir():
        return True
    if _suffix(path):
        return False
    with _naming(path), path.open("rb") as stream:
        return looks_like_dicom(stream.read(132)) or zipfile.is_zipfile(path)


def _read_image(path: Path, *, scalar: bool = True) -> tuple[sitk.Image, tuple[str, ...]]:
    """The image and notes on its header.

    Raises:
        InputError: a header that promises no usable volume; found before the voxels are read.
    """
    import SimpleITK as sitk

    suffix = _suffix(path)
    if not suffix:
        raise InputError(f"not a kind of file that can be read; expected {FORMATS}")
    notes = check_nifti(path) if suffix in NIFTI else _check_nrrd(path) if suffix in NRRD else ()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    talkative = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
        _check_information(reader, scalar)
        return reader.Execute(), notes
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(talkative)


def _check_information(reader: sitk.ImageFileReader, scalar: bool) -> None:
    import SimpleITK as sitk

    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    size, spacing = reader.GetSize(), np.array(reader.GetSpacing())
    if reader.GetDimension() != 3:
        raise InputError(f"{reader.GetDimension()}-dimensional image of size {size}, expected one 3-D volume")
    if "complex" in kind or (scalar and reader.GetNumberOfComponents() != 1):
        raise InputError(f"{kind}, {reader.GetNumberOfComponents()} components, expected one number a voxel (CT in HU)")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"voxel size {tuple(spacing.tolist())} mm, expected three positive numbers")
    if min(size) < 1 or np.prod(size, dtype=float) > MAX_VOXELS:
        raise InputError(f"size {size}, expected 1 to {MAX_VOXELS} voxels")
    direction = np.reshape(reader.GetDirection(), (3, 3))
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise InputError("axes that are not perpendicular (sheared); resample it to a straight grid")


def _check_nrrd(path: Path) -> tuple[str, ...]:
    """Voxel sizes must be there: NRRD's readers take 1 mm for a missing or unknown one."""
    import nrrd

    try:
        header = nrrd.read_header(str(path))
    except (nrrd.NRRDError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"not a readable NRRD file ({reason}); copy or export it again") from error
    if "space directions" in header:
        return ()
    spacings = np.atleast_1d(np.asarray(header.get("spacings", np.nan), dtype=float))
    if int(header.get("dimension", 0)) == 3 and not (np.isfinite(spacings).all() and (spacings > 0).all()):
        raise InputError(f"voxel size {tuple(spacings.tolist())}, expected three positive numbers")
    return ("The file does not say how the patient lies (no orientation).",)


def _grid(image: sitk.Image) -> Grid:
    return Grid.of_image(image)


def _view(image: sitk.Image) -> NDArray[np.generic]:
    """The image's own voxels, read-only, not copied; only as long as ``image`` lives."""
    import SimpleITK as sitk

    array: NDArray[np.generic] = sitk.GetArrayViewFromImage(image)
    return array


def _voxels(image: sitk.Image) -> NDArray[np.generic]:
    import SimpleITK as sitk

    array: NDArray[np.generic] = sitk.GetArrayFromImage(image)
    return array
