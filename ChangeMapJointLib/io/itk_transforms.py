"""Transforms of ITK: of files (``.tfm``, ``.h5``, ``.mat``, ``.txt``) and of SimpleITK.

They map points of the fixed image (the current scan) to the moving image (the prior), in mm, LPS. ANTs, Slicer,
uniGradICON and BRAINS write such files.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.mappings import Chain, Dense, Mapping, Spline, checked_linear

if TYPE_CHECKING:
    import SimpleITK as sitk

KINDS = "a linear, B-spline or displacement field transform, or a composite of these"
NOT_READABLE, ITK_FILE = "not a readable transform file", "a file of ITK, or 4 x 4 numbers"
ONE_EACH = "save each as a file of its own and give them in their order"
TEXTS = (".txt", ".tfm")
HDF5 = (".h5", ".hdf5", ".hdf")
HDF5_MARK = b"\x89HDF\r\n\x1a\n"
HDF5_END = {0: (13, 40), 1: (13, 44), 2: (9, 28), 3: (9, 28)}  # by version: where the size of offsets and the end stand
MOST_BYTES = 2**28  # bytes, of a displacement field as text
MATLAB_BYTES = {0: 8, 10: 4}  # of a number: double, float
NEEDS = "install the Python package SimpleITK, which reads ITK transform files, or give a displacement field"


def read_itk_transform(path: Path) -> Mapping:
    """Read an ITK transform file.

    Raises:
        InputError: it is damaged, not of 3-D points, or of a kind that is not read here.
    """
    try:
        import SimpleITK as sitk
    except ModuleNotFoundError as error:
        raise InputError("SimpleITK is not installed", remedy=NEEDS) from error
    if path.suffix.lower() == ".mat":
        _check_matlab(path)
    elif path.suffix.lower() in TEXTS:
        _check_text(path)
    else:
        _check_hdf5(path)
    try:
        transform = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter from a message that quotes the file
        raise InputError(NOT_READABLE, expected=ITK_FILE, remedy="export it again") from error
    return mapping_of(transform)


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"{size} bytes", expected=f"at most {MOST_BYTES}", remedy="give a displacement field or .h5")
    return path.read_bytes()


def _check_text(path: Path) -> None:
    """Refuse several transforms in one file: ITK would read the first alone.

    Raises:
        InputError: there are several, and they are no composite.
    """
    kinds = re.findall(rb"^\s*Transform:\s*(\w+)", _content(path), re.MULTILINE)
    if len(kinds) > 1 and not kinds[0].startswith(b"CompositeTransform"):
        raise InputError(f"{len(kinds)} transforms", expected="one, or a composite", remedy=ONE_EACH)


def _check_matlab(path: Path) -> None:
    """Check that the variables fill the file: ITK reads on for ever where they do not.

    Each is five int32 (type, rows, columns, imaginary, length of the name), the name and the numbers (MATLAB 4).

    Raises:
        InputError: they do not, or there are several transforms, of which ITK would read the first alone.
    """
    content = _content(path)
    place, count = 0, 0
    while place < len(content):
        header = content[place : place + 20]
        order = "<" if header[1:2] == header[2:3] == header[3:4] == b"\0" else ">"
        kind, rows, columns, imaginary, name = struct.unpack(f"{order}5i", header) if len(header) == 20 else (-1,) * 5
        if kind % 100 not in MATLAB_BYTES or min(rows, columns) < 1 or imaginary or not 1 <= name <= 200:
            raise InputError(NOT_READABLE, expected=ITK_FILE, remedy="export it again")
        place, count = place + 20 + name + rows * columns * MATLAB_BYTES[kind % 100], count + 1
    if place != len(content):
        raise InputError(f"truncated, {len(content)} of {place} bytes", remedy="copy or export it again")
    if count > 2:  # parameters and fixed parameters
        raise InputError("several transforms", expected="one", remedy=ONE_EACH)


def _check_hdf5(path: Path) -> None:
    """Refuse what HDF5 would report in many lines of its own: another kind of file, or a part of one.

    Format: https://docs.hdfgroup.org, "HDF5 File Format Specification", superblock.

    Raises:
        InputError: it is such a file.
    """
    with path.open("rb") as stream:
        start = stream.read(64)
    if start[:8] != HDF5_MARK or len(start) < 64:
        raise InputError(NOT_READABLE, expected="a file of HDF5, as ITK writes it", remedy="export it again")
    width, end = HDF5_END.get(start[8], (0, 0))
    whole = struct.unpack_from("<Q", start, end)[0] if start[width] == 8 else 0
    size = path.stat().st_size
    if size < whole:
        raise InputError(f"truncated, {size} of {whole} bytes", remedy="copy or export it again")


def mapping_of(transform: sitk.Transform) -> Mapping:
    """Convert a SimpleITK transform.

    Raises:
        InputError: it is not of 3-D points, or of a kind that is not converted here.
    """
    if transform.GetDimension() != 3:
        raise InputError(f"a transform of {transform.GetDimension()}-D points", expected="of 3-D points")
    typed: Any = transform.Downcast()
    name = typed.GetName()
    if name == "CompositeTransform":  # the last of its transforms acts first
        parts = [mapping_of(typed.GetNthTransform(n)) for n in reversed(range(typed.GetNumberOfTransforms()))]
        return Chain(tuple(parts))
    if typed.IsLinear():
        return checked_linear(_matrix(typed))
    if name == "DisplacementFieldTransform":
        return Dense(field_of(typed.GetDisplacementField()))
    if name == "BSplineTransform" and typed.GetOrder() > 0:
        return _spline(typed)
    raise InputError(f"a transform of type {name}", expected=KINDS, remedy="convert it to a displacement field")


def field_of(image: sitk.Image) -> DisplacementField:
    """Convert an image of three-vectors in mm, LPS.

    Raises:
        InputError: it has another number of dimensions or components.
    """
    import SimpleITK as sitk

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
        layout = f"{image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} component(s)"
        raise InputError(f"found {layout}", expected="3 dimensions and 3 components (x, y, z in mm)")
    vectors = np.ascontiguousarray(sitk.GetArrayViewFromImage(image), dtype=np.float32)
    if np.shares_memory(vectors, sitk.GetArrayViewFromImage(image)):
        vectors = vectors.copy()  # the image may be changed or freed
    return DisplacementField(vectors, _grid(image))


def _grid(image: sitk.Image) -> Grid:
    try:
        return Grid.of_image(image)
    except ValueError as error:
        raise InputError("axes that are not perpendicular", remedy="resample it to a straight grid") from error


def _matrix(transform: sitk.Transform) -> FloatArray:
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis, unit in enumerate(np.eye(3).tolist()):
        matrix[:3, axis] = np.array(transform.TransformPoint(unit)) - origin
    return matrix


def _spline(transform: sitk.BSplineTransform) -> Spline:
    import SimpleITK as sitk

    images = transform.GetCoefficientImages()
    coefficients = np.stack([sitk.GetArrayFromImage(image) for image in images], -1)
    return Spline(coefficients, _grid(images[0]), int(transform.GetOrder()))
