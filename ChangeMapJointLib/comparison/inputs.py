"""The scans of a comparison as the caller gives them: paths, SimpleITK images or volumes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io.provenance import sha256_of
from ChangeMapJointLib.io.read import read_volume, split_selector
from ChangeMapJointLib.io.run_seal import bytes_of
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.missing import hu_and_unseen
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Acquisition, Volume, array_of_image

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True)
class Label:
    """Name and acquisition of a scan, where its file does not hold them.

    Attributes:
        name: used in messages, in the report and in ``run.json`` instead of the file's name.
        acquisition: known values; those that are None are taken from the file.
    """

    name: str
    acquisition: Acquisition = field(default_factory=Acquisition)


@dataclass(frozen=True)
class Input:
    """One scan of a comparison.

    Attributes:
        scan: a file, a DICOM folder or zip (``PATH#SERIES`` picks one of several), a SimpleITK image in HU, a
            volume, or a volume with its lungs.
        label: name and acquisition, where the file does not hold them.
        sha256: of the file; None before reading, and for scans in memory.
        file_bytes: its size, or that of all files in the folder; None likewise.
    """

    scan: Path | str | Volume | Scan | sitk.Image
    label: Label | None = None
    sha256: str | None = None
    file_bytes: int | None = None

    @property
    def path(self) -> Path | None:
        """The file or folder; None for scans in memory."""
        return Path(self.scan) if isinstance(self.scan, (str, Path)) else None

    @property
    def name(self) -> str:
        """Name for messages and reports, without the folder it lies in."""
        if self.label is not None:
            return self.label.name
        if self.path is not None:
            return self.path.name
        volume = self.scan.volume if isinstance(self.scan, Scan) else self.scan
        return volume.source.name if isinstance(volume, Volume) else "image"

    @property
    def lungs(self) -> Lungs | None:
        """Of the scan, where they were given with it."""
        return self.scan.lungs if isinstance(self.scan, Scan) else None

    def read(self, progress: Progress = silent) -> tuple[Volume, Input]:
        """Read and check the scan.

        Returns:
            The volume in HU, and this input with its ``sha256`` and ``file_bytes``.

        Raises:
            InputError: the file is missing or unreadable, or the scan is not a chest CT in HU.
        """
        if self.path is not None:
            volume = read_volume(self.path, progress=progress)
        elif isinstance(self.scan, Scan):
            volume = self.scan.volume
        elif isinstance(self.scan, Volume):
            volume = self.scan
        else:
            volume = volume_of_image(self.scan)  # type: ignore[arg-type]
        volume = check_ct(labelled(volume, self.label))
        if self.path is None:
            return volume, self
        path = split_selector(self.path)[0]
        return volume, replace(self, sha256=sha256_of(path), file_bytes=bytes_of(path))


SCAN_TYPES = "a path, a SimpleITK image, a Volume or a Scan"
AnyScan = Union[Path, str, Volume, Scan, "sitk.Image", Input]


def as_input(scan: AnyScan, argument: str = "scan") -> Input:
    """Wrap ``scan`` in an :class:`Input`, unless it is one.

    Args:
        scan: of any of the types that a comparison takes.
        argument: what messages call it.

    Raises:
        InputError: of another type, or an image that cannot be a CT.
    """
    if isinstance(scan, Input):
        if not isinstance(scan.scan, (str, Path)):
            as_input(scan.scan, argument)
        return scan
    if isinstance(scan, str) and scan == "":
        raise InputError("found an empty path", field=argument, expected="a file, or a folder or zip of a DICOM series")
    if isinstance(scan, Volume):
        return Input(_native(scan, argument))
    if isinstance(scan, Scan):
        volume = _native(scan.volume, argument)
        return Input(scan if volume is scan.volume else Scan(volume, scan.lungs))
    if isinstance(scan, (str, Path)):
        return Input(scan)
    if isinstance(scan, np.ndarray):
        raise InputError(
            f"found an array of shape {scan.shape}",
            field=argument,
            expected=SCAN_TYPES,
            remedy="make it a Volume: Volume(array, Grid(array.shape, spacing_mm)), in HU, [z, y, x]",
        )
    return Input(volume_of_image(scan, argument))


def _native(volume: Volume, name: str) -> Volume:
    """Return a volume made by hand with a name for messages, and with its bytes in this machine's order."""
    array = volume.array
    if not array.dtype.isnative:
        array = array.astype(np.dtype(array.dtype.newbyteorder("=")))  # type: ignore[assignment]
    if array is volume.array and volume.source != Path():
        return volume
    return replace(volume, array=array, source=Path(name) if volume.source == Path() else volume.source)


def volume_of_image(image: sitk.Image, name: str = "image") -> Volume:
    """Convert a SimpleITK image to a volume.

    Args:
        image: 3D image with one component, in HU.
        name: of the image in messages.

    Raises:
        InputError: the image has another number of dimensions or components, or voxels inside it that are not finite.
    """
    import SimpleITK as sitk

    if not isinstance(image, sitk.Image):
        raise InputError(f"found {type(image).__name__}", field=name, expected=SCAN_TYPES)
    array = array_of_image(image, name)
    if np.iscomplexobj(array):
        raise InputError("found complex voxels", field=name, expected="HU")
    try:
        hu, unseen = hu_and_unseen(array, overwrite=True)
        return Volume(hu, Grid.of_image(image), Path(name), unseen=unseen)
    except InputError as error:
        raise error.about(Argument(name)) from error


def check_inputs(paths: list[Path]) -> None:
    """Check that the inputs exist and can be reached, before anything is read.

    Raises:
        InputError: an input is missing, may not be read, is a loop of links, or has a name that is not UTF-8.
    """
    for path in paths:
        try:
            str(path).encode()
            exists = path.exists()
        except UnicodeEncodeError as error:
            name = str(path).encode("utf-8", "backslashreplace").decode()
            raise InputError("the name is not UTF-8 text", field=Path(name), remedy="rename the file") from error
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot be reached ({reason_of(error)})", field=path, remedy="check its permissions"
            ) from error
        if not exists:
            raise InputError(
                "no such file or folder", field=path, remedy="give a scan, or a folder or zip of a DICOM series"
            )


def labelled(volume: Volume, label: Label | None) -> Volume:
    """Return ``volume`` with the name and acquisition of ``label``."""
    if label is None:
        return volume
    known = {name: value for name, value in asdict(label.acquisition).items() if value is not None}
    name = Path(label.name.replace("/", "_"))  # a name, not a path with folders
    return replace(volume, source=name, acquisition=replace(volume.acquisition, **known))


def read(scan: AnyScan) -> Volume:
    """Read and check one scan.

    Args:
        scan: a file, a DICOM folder or zip (``PATH#SERIES`` picks one of several), a SimpleITK image in HU, or a
            volume.

    Returns:
        The volume in HU, with a mask of voxels that were not measured.

    Raises:
        InputError: the file is missing or unreadable, or the scan is not a chest CT in HU.

    Examples:
        >>> import ChangeMapJointLib as cmj
        >>> volume = cmj.read("current.nrrd")
        >>> volume.grid.spacing_mm
        (5.0, 5.0, 5.0)
    """
    source = as_input(scan)
    if source.path is not None:
        check_inputs([split_selector(source.path)[0]])
    return source.read()[0]
