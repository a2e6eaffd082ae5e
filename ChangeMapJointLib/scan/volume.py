"""The type that holds a CT scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True)
class Acquisition:
    """How and when the scan was made, from the file's header; None where the header does not say.

    The patient's name and number are not kept: ``patient_key`` is a salted hash that only serves to compare two scans.
    """

    date: str | None = None  # ISO, YYYY-MM-DD
    modality: str | None = None
    kernel: str | None = None
    slice_thickness_mm: float | None = None
    contrast: str | None = None  # an agent; empty where the header is unclear about it
    manufacturer: str | None = None
    series_description: str | None = None
    patient_key: str | None = None
    time: str | None = None  # ISO, HH:MM:SS
    phase: str | None = None  # cardiac or breathing phase, or time point
    kvp: float | None = None  # tube voltage in kV
    exposure_mas: float | None = None
    ctdi_vol_mgy: float | None = None
    lossy_ratio: float | None = None  # of a compression that lost detail; 1 where it is not given, None without


@dataclass(frozen=True)
class Volume:
    """A CT scan.

    Attributes:
        array: HU, int16 or float32, ``[z, y, x]``; never modified in place.
        grid: the grid of the voxels.
        source: the file or folder that it was read from.
        acquisition: how the scan was made, from the header.
        notes: remarks from reading the file, one sentence each.
        unseen: bool ``[z, y, x]``, True where nothing was measured (padding, or filled in by resampling): neither air
            nor tissue, though the array has -1024 HU there. None if everything was measured. Before
            :func:`~ChangeMapJointLib.gate.checks.check_ct` has looked, only voxels for which the file has no number.

    Raises:
        InputError: ``array`` or ``unseen`` is no array of real numbers of the grid's shape.

    Examples:
        >>> Volume(np.full((40, 52, 72), -1000, np.int16), Grid((40, 52, 72), (0.7, 0.7, 1.5))).grid.size
        (72, 52, 40)
    """

    array: NDArray[np.int16] | NDArray[np.float32]
    grid: Grid
    source: Path = Path()
    acquisition: Acquisition = field(default_factory=Acquisition)
    notes: tuple[str, ...] = ()
    unseen: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.grid, Grid):
            raise InputError(f"found {type(self.grid).__name__}", field="Volume.grid", expected="a Grid")
        require_array(self.array, "Volume.array", self.grid.shape)
        if self.array.dtype.kind == "f" and self.array.dtype.itemsize not in (4, 8):  # SciPy and Numba take no others
            remedy = "convert it with astype(numpy.float32)"
            expected = "int16, float32 or another common type"
            raise InputError(f"found {self.array.dtype}", field="Volume.array", expected=expected, remedy=remedy)
        if self.unseen is not None:
            require_array(self.unseen, "Volume.unseen", self.grid.shape)


def require_array(array: object, name: str, shape: tuple[int, ...]) -> None:
    """Check what a caller gives as an array on a grid.

    Args:
        array: what was given.
        name: what messages call it, for example ``Volume.array``.
        shape: that of the grid.

    Raises:
        InputError: it is no numpy array, has another shape, or holds no real numbers.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(f"found {type(array).__name__}", field=name, expected="a numpy array [z, y, x]")
    if array.shape != shape:
        raise InputError(f"found shape {array.shape}", field=name, expected=f"{shape}, the grid's")
    if array.dtype.kind not in "biuf":
        raise InputError(f"found {array.dtype}", field=name, expected="real numbers")


def array_of_image(image: sitk.Image, name: str) -> NDArray[Any]:
    """Return the voxels ``[z, y, x]`` of a SimpleITK image that a caller gives.

    Args:
        image: 3-D, with one component.
        name: what messages call it.

    Raises:
        InputError: it has another number of dimensions or components, or is a label map.
    """
    import SimpleITK as sitk

    if image.GetPixelIDTypeAsString().startswith("label"):  # SimpleITK ends the process when asked for its voxels
        remedy = "make it an image with SimpleITK.LabelMapToLabel()"
        raise InputError("found a SimpleITK label map", field=name, expected="an image", remedy=remedy)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        layout = f"{image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} component(s)"
        raise InputError(f"found {layout}", field=name, expected="3 dimensions and 1 component")
    return np.array(sitk.GetArrayViewFromImage(image))


def both_scans(current: PurePath, prior: PurePath) -> str:
    """Name the two scans of a comparison at the beginning of a message.

    Examples:
        >>> both_scans(Path("a.nrrd"), Path("b.nrrd"))
        'the current scan a.nrrd and the prior scan b.nrrd'
        >>> both_scans(Path("current"), Path("prior"))
        'the current scan and the prior scan'
    """
    return " and ".join(
        f"the {role} scan" + (f" {name}" if str(name) not in (role, ".") else "")
        for role, name in (("current", current), ("prior", prior))
    )
