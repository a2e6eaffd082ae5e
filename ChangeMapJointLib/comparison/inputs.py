"""The scans of a comparison, as they are given: paths, SimpleITK images or volumes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.hu import as_hu
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io.provenance import sha256_of
from ChangeMapJointLib.io.read import read_volume, split_selector
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.scan.volume import Acquisition, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True)
class Label:
    """What a scan is called and how it was acquired, where its file does not say.

    Attributes:
        name: instead of the file's name, in messages, in the report and in ``run.json``.
        acquisition: what is known; what is None stays as the file has it.
    """

    name: str
    acquisition: Acquisition = field(default_factory=Acquisition)


@dataclass(frozen=True)
class Input:
    """One scan of a comparison.

    Attributes:
        scan: a file, a DICOM folder or zip (``PATH#SERIES`` picks one of several), a SimpleITK image in HU, or a
            volume.
        label: its name and acquisition, where the file does not say.
        sha256: of the file; None until it was read, and for scans in memory.
    """

    scan: Path | str | Volume | sitk.Image
    label: Label | None = None
    sha256: str | None = None

    @property
    def path(self) -> Path | None:
        """The file or folder; None for scans in memory."""
        return Path(self.scan) if isinstance(self.scan, (str, Path)) else None

    @property
    def name(self) -> str:
        """What the scan is called; never a folder of this machine."""
        if self.label is not None:
            return self.label.name
        if self.path is not None:
            return self.path.name
        return self.scan.source.name if isinstance(self.scan, Volume) else ""

    def read(self, progress: Progress = silent) -> tuple[Volume, Input]:
        """The scan in HU, checked, and this input with its hash.

        Raises:
            InputError: missing, unreadable, or no chest CT in HU.
        """
        if self.path is not None:
            volume = read_volume(self.path, progress=progress)
        elif isinstance(self.scan, Volume):
            volume = self.scan
        else:
            volume = volume_of_image(self.scan)  # type: ignore[arg-type]
        volume = check_ct(labelled(volume, self.label))
        return volume, self if self.path is None else replace(self, sha256=sha256_of(split_selector(self.path)[0]))


AnyScan = Union[Path, str, Volume, "sitk.Image", Input]


def as_input(scan: AnyScan) -> Input:
    """``scan`` as an :class:`Input`, which it may be already."""
    return scan if isinstance(scan, Input) else Input(scan)


def volume_of_image(image: sitk.Image, name: str = "image") -> Volume:
    """A SimpleITK image as a volume.

    Args:
        image: 3D, HU in one component.
        name: what messages call it.

    Raises:
        InputError: another number of dimensions or components, or voxels that are not finite.
    """
    import SimpleITK as sitk

    if not isinstance(image, sitk.Image):
        raise InputError(f"found {type(image).__name__}", field=name, expected="a path, a SimpleITK image or a Volume")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        found = f"{image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} components"
        raise InputError(f"found {found}", field=name, expected="3 dimensions and 1 component")
    return Volume(as_hu(np.array(sitk.GetArrayViewFromImage(image))), Grid.of_image(image), Path(name))


def check_inputs(paths: list[Path]) -> None:
    """Refuse inputs that are not there or cannot be reached, before anything else is said of them.

    Raises:
        InputError: missing, no permission, a loop of links, or a name that is not UTF-8.
    """
    for path in paths:
        try:
            str(path).encode()
            found = path.exists() and str(path) not in ("", ".")
        except UnicodeEncodeError as error:
            name = str(path).encode("utf-8", "backslashreplace").decode()
            raise InputError("the name is not UTF-8 text", field=Path(name), remedy="rename the file") from error
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot be reached ({reason_of(error)})", field=path, remedy="check its permissions"
            ) from error
        if not found:
            raise InputError(
                "no such file or folder", field=path, remedy="give a scan, or a folder or zip of a DICOM series"
            )


def labelled(volume: Volume, label: Label | None) -> Volume:
    """``volume`` under the name and with the acquisition of ``label``."""
    if label is None:
        return volume
    known = {name: value for name, value in asdict(label.acquisition).items() if value is not None}
    name = Path(label.name.replace("/", "_"))  # a name, not a path with folders
    return replace(volume, source=name, acquisition=replace(volume.acquisition, **known))


def read(scan: AnyScan) -> Volume:
    """One scan in HU, checked.

    Args:
        scan: a file, a DICOM folder or zip (``PATH#SERIES`` picks one of several), a SimpleITK image in HU, or a
            volume.

    Returns:
        The volume, which knows where nothing was measured.

    Raises:
        InputError: missing, unreadable, or no chest CT in HU.

    Example:
        >>> import ChangeMapJointLib as cmj
        >>> volume = cmj.read("current.nrrd")
        >>> volume.grid.spacing_mm
        (5.0, 5.0, 5.0)
    """
    given = as_input(scan)
    if given.path is not None:
        check_inputs([split_selector(given.path)[0]])
    return given.read()[0]
