"""Headers of MetaImage files, with the voxels in the same file (``.mha``) or in separate files (``.mhd``).

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.io.data_files import header_text, named_data_files, read_header_bytes
from ChangeMapJointLib.io.image_header import ImageHeader, components_error, mm_per_unit, time_series_error
from ChangeMapJointLib.io.placing import NO_ORIENTATION, TURNED_AXIS, check_shape, check_voxel_size
from ChangeMapJointLib.io.voxel_data import EXPORT_AGAIN, Packing, VoxelData

KINDS = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LAST = "ElementDataFile"
TRUE = ("true", "t", "1", "yes")
DIRECTION_NAMES = ("TransformMatrix", "Rotation", "Orientation")  # three names of one field
ORIGIN_NAMES = ("Offset", "Position", "Origin")


class _Fields(dict[str, str]):
    """Values of the header by field name."""

    def numbers(self, name: str, count: int) -> list[float] | None:
        """Return a field of ``count`` numbers; None if the field is missing.

        Raises:
            InputError: the value is anything else.
        """
        if name not in self:
            return None
        try:
            numbers = [float(word) for word in self[name].split()]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            raise InputError(f"{name} = '{self[name][:80]}'", expected=f"{count} number(s)", remedy=EXPORT_AGAIN)
        return numbers

    def integer(self, name: str, default: int) -> int:
        """Return a whole number.

        Raises:
            InputError: the value is anything else.
        """
        text = self.get(name, str(default))
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise InputError(f"{name} = '{text[:80]}'", expected="a whole number", remedy=EXPORT_AGAIN)
        return int(text)

    def is_true(self, *names: str) -> bool:
        """Return whether any of these fields is true."""
        return any(self.get(name, "").lower() in TRUE for name in names)


def read_meta_header(path: Path, *, scalar: bool) -> ImageHeader:
    """Read the header of a MetaImage file.

    Args:
        path: ``.mha`` or ``.mhd``.
        scalar: refuse images with more than one value per voxel.

    Raises:
        InputError: not MetaImage, not a three-dimensional volume, or no voxel size.
    """
    fields, following, end = _parsed(path)
    rank = fields.integer("NDims", 0)
    if not 3 <= rank <= 5:
        raise InputError(f"{rank}-dimensional image", expected="one 3-D volume")
    sizes = [int(n) for n in fields.numbers("DimSize", rank) or () if 1 <= n < 2**40]
    if len(sizes) != rank:
        raise InputError(
            f"DimSize = '{fields.get('DimSize', '')[:80]}'", expected="positive numbers", remedy=EXPORT_AGAIN
        )
    volumes = int(np.prod(sizes[3:], dtype=float))
    if volumes > 1:
        raise time_series_error(volumes)
    count = fields.integer("ElementNumberOfChannels", 1)
    if count < 1 or (scalar and count > 1):
        raise components_error(count, "ElementNumberOfChannels")
    x, y, z = sizes[:3]
    shape = check_shape((z, y, x), count)
    affine, notes = _affine(fields, rank)
    values = int(np.prod(shape, dtype=np.int64)) * count
    return ImageHeader(shape, affine, _data(path, fields, following, end, values), count, notes=notes)


def _parsed(path: Path) -> tuple[_Fields, list[str], int]:
    """Return the fields, the lines after them, and the byte at which the header ends."""
    content = read_header_bytes(path)
    last = re.search(rb"(?:^|\n)[ \t]*ElementDataFile[ \t]*=[^\n]*(\n|$)", content)
    if not last:
        raise InputError(f"not a readable MetaImage file (it has no {LAST})", remedy=EXPORT_AGAIN)
    fields = _Fields()
    for line in header_text(content[: last.end()]).splitlines():
        name, equals, value = line.partition("=")
        if not equals and line.strip():
            raise InputError(
                f"not a readable MetaImage file ('{line[:40]}' is not 'name = value')", remedy=EXPORT_AGAIN
            )
        fields[name.strip()] = value.strip()
    if fields.get("ObjectType", "Image") != "Image":
        raise InputError(f"MetaIO object of type '{fields['ObjectType'][:40]}'", expected="Image")
    return (
        fields,
        header_text(content[last.end() :]).splitlines() if fields[LAST].startswith("LIST") else [],
        last.end(),
    )


@np.errstate(over="ignore", invalid="ignore")  # such numbers are refused
def _affine(fields: _Fields, rank: int) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the matrix from index to mm in LPS, and notes. In the file, each row is the direction of an axis."""
    spacing = fields.numbers("ElementSpacing", rank) or fields.numbers("ElementSize", rank)
    if not spacing:
        raise InputError(
            "no voxel size (ElementSpacing is missing)", expected="three positive numbers", remedy="export it again"
        )
    check_voxel_size(np.abs(spacing[:3]))
    direction = next((fields.numbers(name, rank * rank) for name in DIRECTION_NAMES if name in fields), None)
    origin = next((fields.numbers(name, rank) for name in ORIGIN_NAMES if name in fields), None)
    notes = (*(() if direction else (NO_ORIENTATION,)), *((TURNED_AXIS,) if min(spacing[:3]) < 0 else ()))
    matrix = np.eye(4)
    axes = np.reshape(direction, (rank, rank))[:3, :3] if direction else np.eye(3)
    matrix[:3, :3] = axes.T * spacing[:3]
    matrix[:3, 3] = origin[:3] if origin else 0.0
    factor, unit_notes = mm_per_unit(fields.get("DistanceUnits", ""), float(np.abs(spacing[:3]).max()))
    matrix[:3] *= factor
    return matrix, (*notes, *unit_notes)


def _data(path: Path, fields: _Fields, following: list[str], end: int, count: int) -> VoxelData:
    """Describe where the voxel values are stored."""
    kind = fields.get("ElementType", "")
    if kind.removesuffix("_ARRAY") not in KINDS:
        raise InputError(f"voxels of type '{kind[:40]}'", expected="numbers such as MET_SHORT", remedy=EXPORT_AGAIN)
    order = ">" if fields.is_true("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    packing: Packing = "raw"
    if "BinaryData" in fields and not fields.is_true("BinaryData"):
        packing = "text"
    if fields.is_true("CompressedData"):
        packing = "zlib"
    attached = fields[LAST] in ("LOCAL", "Local", "local")
    files = (path,) if attached else named_data_files(path, fields[LAST], following)
    offset = fields.integer("HeaderSize", 0)
    if offset < -1 or (offset == -1 and packing != "raw"):
        raise InputError(f"HeaderSize = {offset}", expected="0, or -1 with uncompressed voxels", remedy=EXPORT_AGAIN)
    if attached:
        offset = end + max(offset, 0)
    dtype = np.dtype(order + KINDS[kind.removesuffix("_ARRAY")])
    return VoxelData(files, dtype, count, packing, offset, attached=attached)
