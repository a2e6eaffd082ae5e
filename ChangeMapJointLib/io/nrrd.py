"""Headers of NRRD files, with the voxels in the same file (``.nrrd``) or in separate files (``.nhdr``).

Format: https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.io.data_files import header_text, named_data_files, read_header_bytes
from ChangeMapJointLib.io.image_header import ImageHeader, components_error, mm_per_unit, time_series_error
from ChangeMapJointLib.io.placing import NO_ORIENTATION, TURNED_AXIS, check_shape, check_voxel_size
from ChangeMapJointLib.io.voxel_data import EXPORT_AGAIN, Packing, VoxelData

PACKINGS: dict[str, Packing] = {"raw": "raw", "gzip": "zlib", "gz": "zlib", "bzip2": "bzip2", "bz2": "bzip2"}
PACKINGS |= {"text": "text", "txt": "text", "ascii": "text"}
KINDS = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
CODES = {name: code for code, names in KINDS.items() for name in names}
# signs that convert x, y and z to LPS
TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
}
SHORT_NAMES = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}
# spaces that do not refer to the patient, by their long and short names
WITHOUT_PATIENT = ("scanner-xyz", "3d-right-handed", "3d-left-handed", "3dr", "3dl")
SPATIAL = ("domain", "space", "time", "???", "none")
NEWEST = 5  # version of the format


@dataclass(frozen=True)
class _Header:
    """A parsed header.

    Attributes:
        fields: values by field name, in lower case and without spaces.
        following: the lines after ``data file: LIST``.
        end: the byte at which the header ends.
    """

    fields: dict[str, str]
    following: list[str]
    end: int

    def text(self, name: str, default: str = "") -> str:
        """Return a field as text."""
        return self.fields.get(name, default)

    def numbers(self, name: str) -> list[float]:
        """Return a field as a list of numbers.

        Raises:
            InputError: the value is anything else.
        """
        try:
            return [float(word) for word in self.text(name).split()]
        except ValueError as error:
            raise InputError(f"{name} '{self.text(name)[:80]}'", expected="numbers", remedy=EXPORT_AGAIN) from error

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a field as a whole number.

        Raises:
            InputError: the value is anything else, or the field is missing and has no default.
        """
        text = self.text(name) or str(default)
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise InputError(f"{name} '{text[:80]}'", expected="a whole number", remedy=EXPORT_AGAIN)
        return int(text)

    def vectors(self, name: str) -> list[list[float] | None]:
        """Return a field as a list of vectors ``(x,y,z)``, with None for ``none``.

        Raises:
            InputError: the value is anything else.
        """
        text = self.text(name)
        entries = re.findall(r"none|\([^()]*\)", text)
        try:
            vectors = [None if entry == "none" else [float(n) for n in entry[1:-1].split(",")] for entry in entries]
        except ValueError:
            vectors = []
        if not vectors or re.sub(r"none|\([^()]*\)", "", text).strip():
            raise InputError(f"{name} '{text[:80]}'", expected="vectors (x,y,z)", remedy=EXPORT_AGAIN)
        return vectors


def read_nrrd_header(path: Path, *, scalar: bool) -> ImageHeader:
    """Read the header of an NRRD file.

    Args:
        path: ``.nrrd`` or ``.nhdr``.
        scalar: refuse images with more than one value per voxel.

    Raises:
        InputError: not NRRD, not a three-dimensional volume, or no voxel size.
    """
    header = _parsed(path)
    sizes = [int(n) for n in header.numbers("sizes") if 1 <= n < 2**40]
    words = header.text("sizes").split()
    if not sizes or len(words) != len(sizes) or len(sizes) != header.integer("dimension"):
        sizes_text = f"sizes '{header.text('sizes')[:80]}' in {header.text('dimension')[:80]} dimension(s)"
        raise InputError(sizes_text, expected="three positive numbers", remedy=EXPORT_AGAIN)
    space, others = _axes(header, sizes)
    count = _component_count(header, sizes, others, scalar)
    x, y, z = (sizes[axis] for axis in space)
    shape = check_shape((z, y, x), count)
    affine, notes = _affine(header, space)
    data = _data(path, header, int(np.prod(shape, dtype=np.int64)) * count)
    interleaved = all(axis < space[0] for axis in others if sizes[axis] > 1)
    return ImageHeader(shape, affine, data, count, interleaved=interleaved, notes=notes)


def read_nrrd_keys(path: Path) -> dict[str, str]:
    """Return the keys and values (``key:=value``) of a header; they mean something to the program that wrote it."""
    content = read_header_bytes(path)
    blank = re.search(rb"\n\r?\n", content)
    lines = header_text(content[: blank.start()] if blank else content).splitlines()[1:]
    pairs = (re.match(r"([^:#]*):=(.*)", line) for line in lines)
    return {pair.group(1): pair.group(2).strip() for pair in pairs if pair}


def frame_of_vectors(path: Path) -> str:
    """Return in what frame a field's vectors are where that is not LPS for sure; empty where it is.

    ITK and 3D Slicer write vectors in LPS, and read any file as if they were; the format means the frame of the space,
    turned by the measurement frame. Where both agree there is no doubt.
    """
    header = _parsed(path)
    name = header.text("space").lower().removesuffix("-time")
    long_name = SHORT_NAMES.get(name, name)
    turned = header.text("measurementframe")
    if turned:
        columns = np.array([_three(vector) for vector in header.vectors("measurementframe")])
        signs = np.diag(TO_LPS.get(long_name, (1, 1, 1)))
        if columns.shape == (3, 3) and np.allclose(signs @ columns.T, np.eye(3)):
            return ""
        return f"a measurement frame {turned[:60]} in the space {long_name or 'of the file'}"
    return f"the space {long_name}" if TO_LPS.get(long_name, (1, 1, 1)) != (1, 1, 1) else ""


def _parsed(path: Path) -> _Header:
    content = read_header_bytes(path)
    version = re.match(rb"NRRD(\d{4})\r?\n", content)
    if not version:
        raise InputError("not a readable NRRD file (it does not start with its mark, NRRD000x)", remedy=EXPORT_AGAIN)
    if int(version.group(1)) > NEWEST:
        raise InputError(
            f"NRRD version {int(version.group(1))}", expected=f"at most {NEWEST}", remedy="save it in an older version"
        )
    blank = re.search(rb"\n\r?\n", content)
    lines = header_text(content[: blank.start()] if blank else content).splitlines()[1:]
    fields: dict[str, str] = {}
    following: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip() or re.match(r"[^:]*:=", line):  # comments; keys and values
            continue
        name, colon, value = line.partition(":")
        key = name.strip().lower().replace(" ", "")
        if not colon or key in fields:
            fault = "occurs twice" if colon else "is no 'field: value'"
            raise InputError(f"not a readable NRRD file ('{name[:40]}' {fault})", remedy=EXPORT_AGAIN)
        fields[key] = value.strip()
        if key == "datafile" and value.split()[:1] == ["LIST"]:
            following = lines[number:]
            break
    if blank is None and "datafile" not in fields:
        raise InputError("not a readable NRRD file (its header does not end)", remedy=EXPORT_AGAIN)
    return _Header(fields, following, blank.end() if blank else len(content))


def _kinds(header: _Header, count: int) -> list[str]:
    kinds = header.text("kinds").lower().split()
    return kinds if len(kinds) == count else ["???"] * count


def _axes(header: _Header, sizes: list[int]) -> tuple[list[int], list[int]]:
    """Return the numbers of the three spatial axes, and those of the others."""
    kinds = _kinds(header, len(sizes))
    space = [axis for axis, kind in enumerate(kinds) if kind in SPATIAL]
    if header.text("spacedirections"):
        vectors = header.vectors("spacedirections")
        if len(vectors) != len(sizes):
            raise InputError(f"{len(vectors)} space directions for {len(sizes)} axes", remedy=EXPORT_AGAIN)
        space = [axis for axis, vector in enumerate(vectors) if vector is not None]
    if len(space) > 3:  # with time, or with a fourth axis of unknown kind
        timeless = [axis for axis in space if kinds[axis] != "time"]
        space = timeless if len(timeless) == 3 else space[:3]
    if len(space) != 3 or space[2] - space[0] != 2:
        raise InputError(f"{len(space)}-dimensional image of size {tuple(sizes)}", expected="one 3-D volume")
    return space, [axis for axis in range(len(sizes)) if axis not in space]


def _component_count(header: _Header, sizes: list[int], others: list[int], scalar: bool) -> int:
    """Return the number of values per voxel.

    Raises:
        InputError: one is required, or the image is a series of volumes.
    """
    kinds = _kinds(header, len(sizes))
    several = [axis for axis in others if sizes[axis] > 1]
    for axis in several:
        if kinds[axis] in SPATIAL or (scalar and kinds[axis] == "list"):
            raise time_series_error(sizes[axis])
        if "complex" in kinds[axis]:
            raise InputError(
                "voxels are complex numbers", expected="one number per voxel (CT in HU)", remedy="give the scan itself"
            )
        if scalar:
            raise components_error(sizes[axis], kinds[axis])
    if len(several) > 1:
        raise InputError(f"{len(sizes)}-dimensional image of size {tuple(sizes)}", expected="one 3-D volume")
    return sizes[several[0]] if several else 1


@np.errstate(over="ignore", invalid="ignore")  # such numbers are refused
def _affine(header: _Header, space: list[int]) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the matrix from index to mm in LPS, and notes."""
    matrix = np.eye(4)
    signs, turned = None, False
    if header.text("spacedirections"):
        vectors = header.vectors("spacedirections")
        matrix[:3, :3] = np.array([_three(vectors[axis]) for axis in space]).T
        if header.text("spaceorigin"):
            matrix[:3, 3] = _three(header.vectors("spaceorigin")[0])
        check_voxel_size(np.linalg.norm(matrix[:3, :3], axis=0))
        name = header.text("space").lower().removesuffix("-time")
        signs = TO_LPS.get(SHORT_NAMES.get(name, name))
        if name and signs is None and name not in WITHOUT_PATIENT:
            raise InputError(f"space '{name[:40]}' in the header", expected=", ".join(TO_LPS), remedy=EXPORT_AGAIN)
        units = _words(header.text("spaceunits"))[:3]
    else:
        spacing, mins = _axis_numbers(header, "spacings", space), _axis_numbers(header, "axismins", space)
        check_voxel_size(np.abs(spacing))
        matrix[:3, :3], turned = np.diag(spacing), bool(spacing.min() < 0)
        if np.isfinite(mins).all():
            matrix[:3, 3] = mins + spacing / 2  # from the edge of the first voxel to its centre
        axis_units = _words(header.text("units"))
        units = [axis_units[axis] for axis in space if axis < len(axis_units)]
    notes = [] if signs else [NO_ORIENTATION]
    notes += [TURNED_AXIS] if turned else []
    matrix[:3] *= np.array(signs or (1, 1, 1))[:, None]
    largest = float(np.linalg.norm(matrix[:3, :3], axis=0).max())
    factors = {mm_per_unit(unit, largest) for unit in units}
    if len(factors) > 1:
        raise InputError(f"lengths in several units ({', '.join(units)[:80]})", expected="mm", remedy="convert it")
    for factor, unit_notes in factors:
        matrix[:3] *= factor
        notes += unit_notes
    return matrix, tuple(notes)


def _three(vector: list[float] | None) -> list[float]:
    """Return the first three numbers of a vector; a fourth is time."""
    numbers = (vector or [])[:3]
    if len(numbers) != 3:
        raise InputError(f"a vector of {len(numbers)} number(s) in the header", expected="three", remedy=EXPORT_AGAIN)
    return numbers


def _axis_numbers(header: _Header, name: str, space: list[int]) -> FloatArray:
    """Return one number per spatial axis; NaN where the header has none."""
    numbers = header.numbers(name)
    return np.array([numbers[axis] if axis < len(numbers) else np.nan for axis in space])


def _words(text: str) -> list[str]:
    """Split at spaces, except within quotes."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', text)]


def _data(path: Path, header: _Header, count: int) -> VoxelData:
    """Describe where the voxel values are stored."""
    packing = PACKINGS.get(header.text("encoding").lower())
    if packing is None:
        name = header.text("encoding")[:40]
        raise InputError(f"encoding '{name}'", expected="raw, gzip, bzip2 or text", remedy="save it with one of these")
    code = CODES.get(" ".join(header.text("type").lower().split()))
    if code is None:
        raise InputError(f"voxels of type '{header.text('type')[:40]}'", expected="numbers", remedy=EXPORT_AGAIN)
    endian = header.text("endian", "little").lower()
    if endian not in ("little", "big"):
        raise InputError(f"endian '{endian[:40]}'", expected="little or big", remedy=EXPORT_AGAIN)
    skip = header.integer("byteskip", 0)
    if header.integer("lineskip", 0) or skip < -1 or (skip == -1 and packing != "raw"):
        raise InputError(
            "the header asks to skip lines or bytes that cannot be skipped", remedy="save it again without"
        )
    attached = "datafile" not in header.fields
    files = (path,) if attached else named_data_files(path, header.text("datafile"), header.following)
    offset = header.end if attached else 0
    if packing in ("raw", "text"):
        offset, skip = (-1 if skip < 0 else offset + skip), 0
    dtype = np.dtype((">" if endian == "big" else "<") + code)
    return VoxelData(files, dtype, count, packing, offset, skip, attached)
