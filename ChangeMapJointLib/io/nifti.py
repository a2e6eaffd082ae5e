"""Headers of NIfTI-1 and NIfTI-2 files, also compressed with gzip, whatever their names.

The position of the voxels is given by up to two matrices. ``sform`` is used if set, as in most programs, with a note if
``qform`` disagrees. Only ``sform`` can represent a gantry tilt.

Format: https://nifti.nimh.nih.gov/nifti-1 and nifti-2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray, Shape3
from ChangeMapJointLib.io.image_header import ImageHeader, components_error, mm_per_unit, time_series_error
from ChangeMapJointLib.io.placing import (
    EXACT_MM,
    NO_ORIENTATION,
    ROUNDED_VOX,
    check_shape,
    check_voxel_size,
    without_drift,
)
from ChangeMapJointLib.io.voxel_data import EXPORT_AGAIN, VoxelData, unpacked_start

if TYPE_CHECKING:  # Slicer's process reads this module before nibabel is installed
    from nibabel.nifti1 import Nifti1Header

HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
MAGIC = {348: b"n+1", 540: b"n+2"}
MAX_OFFSET_BYTES = 2**30
SAME_SIZE = 0.01  # largest relative difference between pixdim and sform
READ_AS_ITK = (
    "It was read as by ITK and 3D Slicer. Programs such as nibabel, SPM and FSL take its rows from back to front "
    "instead: check front and back, right and left."
)
NEGATIVE_PIXDIM = (
    "The header gives negative voxel sizes in pixdim; the position is that of sform, which does not need them. ITK and "
    "3D Slicer show such a file mirrored."
)
UNITS = {0: "", 1: "m", 2: "mm", 3: "um"}  # the low bits of xyzt_units
KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
UNUSABLE_KINDS = {
    1: "single bits",
    32: "complex numbers",
    128: "colours (RGB)",
    1536: "128-bit numbers",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "colours (RGBA)",
}


def read_nifti_header(path: Path, *, scalar: bool) -> ImageHeader:
    """Read the header of a NIfTI file.

    Args:
        path: ``.nii`` or ``.nii.gz``; its content decides whether it is compressed.
        scalar: refuse images with more than one value per voxel.

    Raises:
        InputError: not NIfTI, not a three-dimensional volume, a data type that cannot hold HU, voxel sizes that are not
            positive, or positions that contradict each other.
    """
    header, packed = _read_header(path)
    datatype = int(header["datatype"])
    if datatype not in KINDS:
        kind = UNUSABLE_KINDS.get(datatype, f"datatype {datatype}")
        raise InputError(
            f"voxels are {kind}", expected="one number per voxel (CT in HU)", remedy="give the scan itself"
        )
    shape, count = _shape(header["dim"].tolist(), scalar)
    affine, notes = _affine(header, shape)
    start = _first_voxel(header["vox_offset"].item(), len(header.binaryblock))
    slope, intercept = _scale(float(header["scl_slope"]), float(header["scl_inter"]))
    data = VoxelData(
        files=(path,),
        dtype=np.dtype(header.endianness + KINDS[datatype]),
        count=int(np.prod(shape, dtype=np.int64)) * count,
        packing="zlib" if packed else "raw",
        skip=start if packed else 0,
        offset=0 if packed else start,
    )
    return ImageHeader(shape, affine, data, count, interleaved=False, slope=slope, intercept=intercept, notes=notes)


@dataclass(frozen=True)
class Intent:
    """What a NIfTI header says about the meaning of its voxels.

    Attributes:
        code: NIfTI's number, such as 1007 for vectors.
        name: free text of the program.
        parameter: ``intent_p1``.
        sizes: of the array along x, y, z, t and so on.
        extended: whether other data follow the header.
    """

    code: int
    name: str
    parameter: float
    sizes: tuple[int, ...]
    extended: bool


def read_intent(path: Path) -> Intent:
    """Read what the header says about the meaning of the voxels.

    Raises:
        InputError: not NIfTI.
    """
    header, _ = _read_header(path)
    dim = header["dim"].tolist()
    return Intent(
        int(header["intent_code"]),
        header["intent_name"].item().decode("ascii", "replace").rstrip("\0"),
        float(header["intent_p1"]),
        tuple(dim[1 : 1 + max(0, min(dim[0], 7))]),
        header["vox_offset"].item() > len(header.binaryblock) + 4,
    )


def _read_header(path: Path) -> tuple[Nifti1Header, bool]:
    """The header, and whether the file is compressed."""
    with path.open("rb") as plain:
        content = plain.read(HEADER_BYTES)
    packed = content[:2] == b"\x1f\x8b"
    if packed:
        content = unpacked_start(path, HEADER_BYTES)
    return _header(content), packed


def _header(content: bytes) -> Nifti1Header:
    """Parse the fields with nibabel, without its checks: the values are checked here."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    if len(content) < 348:
        raise InputError(f"{len(content)} bytes, too few for an image", remedy=EXPORT_AGAIN)
    order = "<" if struct.unpack_from("<i", content)[0] in MAGIC else ">"
    size = struct.unpack_from(f"{order}i", content)[0]
    if size not in MAGIC:
        raise InputError("not a NIfTI file", expected="a .nii or .nii.gz image")
    if len(content) < size:
        raise InputError(f"{len(content)} bytes, too few for an image", remedy=EXPORT_AGAIN)
    kind: type[Nifti1Header] = Nifti1Header if size == 348 else Nifti2Header
    header = kind(content[:size], order, check=False)
    magic = header["magic"].item()[:3]
    if magic in (b"ni1", b"ni2"):
        raise InputError("a header whose voxels are in another file (.img)", remedy="save it as one .nii file")
    if magic != MAGIC[size]:
        raise InputError(
            f"not a NIfTI file (mark {magic!r})", expected=f"the mark {MAGIC[size]!r}", remedy="convert it again"
        )
    return header


def _shape(dim: list[int], scalar: bool) -> tuple[Shape3, int]:
    """Return the shape (z, y, x) and the number of values per voxel."""
    rank = dim[0]
    if not 1 <= rank <= 7:
        raise InputError(f"{rank} dimensions in the header", expected="3", remedy=EXPORT_AGAIN)
    sizes = dim[1 : 1 + rank]
    if rank < 3:
        raise InputError(f"{rank}-dimensional image of size {tuple(sizes)}", expected="one 3-D volume")
    times, values, *others = [*sizes[3:], 1, 1][:4] if rank < 6 else sizes[3:]
    if min(sizes) < 1 or any(n > 1 for n in others):
        raise InputError(f"size {tuple(sizes)}", expected="one 3-D volume")
    if times > 1:
        raise time_series_error(times)
    if scalar and values > 1:
        raise components_error(values, "vectors")
    x, y, z = sizes[:3]
    return check_shape((z, y, x), values), values


def _first_voxel(vox_offset: float, header_size: int) -> int:
    if not vox_offset <= MAX_OFFSET_BYTES:  # NaN included
        raise InputError(f"vox_offset {vox_offset} in the header", expected=f"at most {MAX_OFFSET_BYTES} bytes")
    return int(max(vox_offset, header_size))


def _scale(slope: float, intercept: float) -> tuple[float, float]:
    """Return slope and intercept. A slope of 0, or of NaN as some programs write, means no scaling."""
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise InputError(f"scale {slope} and offset {intercept} of the values", expected="numbers", remedy=EXPORT_AGAIN)
    return slope, intercept


@np.errstate(over="ignore", invalid="ignore")  # such numbers are refused
def _affine(header: Nifti1Header, shape: Shape3) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the matrix from index to mm in LPS, and notes."""
    pixdim = header["pixdim"].tolist()
    rows = [header[name].tolist() for name in ("srow_x", "srow_y", "srow_z")]
    sform = np.array([*rows, (0, 0, 0, 1)], dtype=np.float64) if header["sform_code"] > 0 else None
    has_qform = header["qform_code"] > 0
    notes: list[str] = []
    if sform is not None and not _is_position(sform):
        if not has_qform:
            raise InputError("sform in the header is not a position (zeros or no numbers)", remedy="export it again")
        notes.append("The sform in the header is not a position (zeros or no numbers); qform was used.")
        sform = None
    sizes_mm, size_notes = _sizes(np.array(pixdim[1:4]), sform)
    notes += size_notes
    qform = _qform(header, sizes_mm) if has_qform else None
    if sform is not None:
        notes += _compare_forms(sform, qform, shape) if qform is not None else []
        matrix = LPS_TO_RAS @ sform
    elif qform is not None:
        if not np.isfinite(qform).all():
            raise InputError(
                "qform in the header is not a position (no numbers or no rotation)", remedy="export it again"
            )
        matrix = LPS_TO_RAS @ qform
    else:
        matrix = np.diag([*sizes_mm, 1.0])  # as in ITK
        notes += [NO_ORIENTATION, READ_AS_ITK]
    largest = float(np.linalg.norm(matrix[:3, :3], axis=0).max())
    factor, unit_notes = mm_per_unit(UNITS.get(int(header["xyzt_units"]) & 7, ""), largest)
    matrix[:3] *= factor
    return matrix, (*notes, *unit_notes)


def _qform(header: Nifti1Header, sizes_mm: FloatArray) -> FloatArray:
    """Return the matrix of the unit quaternion in the header, in RAS; NaN where it is not one."""
    b, c, d = (float(header[f"quatern_{letter}"]) for letter in "bcd")
    position = [float(header[f"qoffset_{letter}"]) for letter in "xyz"]
    rest = 1.0 - (b * b + c * c + d * d)
    if not rest > -0.01:  # NaN included; rounding gives a little less than 0
        return np.full((4, 4), np.nan)
    a = np.sqrt(max(rest, 0.0))
    a, b, c, d = np.array([a, b, c, d]) / np.sqrt(a * a + b * b + c * c + d * d)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * sizes_mm * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
    matrix[:3, 3] = position
    return matrix


def _is_position(matrix: FloatArray) -> bool:
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.isfinite(matrix).all() and np.isfinite(lengths).all() and (lengths > 0).all())


def _sizes(pixdim_mm: FloatArray, sform: FloatArray | None) -> tuple[FloatArray, list[str]]:
    """Return the voxel sizes in mm, and a note where pixdim has none, or negative ones, beside a valid ``sform``.

    With tilted slices, pixdim may be measured along the normal or along the tilt.

    Raises:
        InputError: they are not positive, or contradict those in ``sform``.
    """
    given = np.isfinite(pixdim_mm) & (pixdim_mm != 0)
    if sform is None:
        if given.all() and pixdim_mm.min() < 0:
            raise InputError(
                f"negative voxel sizes in pixdim, {tuple(pixdim_mm.tolist())} mm, and no sform: ITK and 3D Slicer "
                "mirror such a scan, nibabel does not, so that right and left are unknown",
                expected="three positive numbers",
                remedy="convert the original DICOM again",
            )
        check_voxel_size(pixdim_mm)
        return pixdim_mm, []
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    upright = np.array([*lengths[:2], abs(_slice_distance(sform))])
    sizes = np.where(given, np.abs(pixdim_mm), lengths)
    difference = np.minimum(np.abs(lengths / sizes - 1), np.abs(upright / sizes - 1))
    if not difference.max() <= SAME_SIZE:
        raise InputError(
            f"voxel sizes contradict each other, {tuple(pixdim_mm.round(4).tolist())} mm in pixdim and "
            f"{tuple(lengths.round(4).tolist())} mm in sform",
            remedy="export it again",
        )
    if not given.all():
        return sizes, ["The header gives no voxel size in pixdim; that of sform was used."]
    return sizes, [NEGATIVE_PIXDIM] if pixdim_mm.min() < 0 else []


def _slice_distance(matrix: FloatArray) -> float:
    across = np.cross(matrix[:3, 0], matrix[:3, 1])
    length = float(np.linalg.norm(across))
    return float(across @ matrix[:3, 2]) / length if length > 0 else np.nan


def _compare_forms(sform: FloatArray, qform: FloatArray, shape: Shape3) -> list[str]:
    """Return a note if ``qform`` places voxels elsewhere than ``sform``, apart from a tilt, which it cannot represent.

    Raises:
        InputError: one is the mirror image of the other.
    """
    if not np.isfinite(qform).all():
        return []
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise InputError(
            "sform and qform in the header contradict each other about left and right (one is the mirror image of the "
            "other)",
            remedy="convert the original DICOM again",
        )
    size = np.array(shape[::-1])
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size])).reshape(3, -1)
    upright = sform.copy()
    upright[:3, :3] = without_drift(sform[:3, :3])
    off_mm = min(_farthest(matrix - qform, corners) for matrix in (sform, upright))
    smallest = float(np.linalg.norm(sform[:3, :3], axis=0).min())
    if off_mm <= max(ROUNDED_VOX * smallest, EXACT_MM):
        return []
    return [
        f"The positions in sform and qform differ by up to {off_mm:.1f} mm; sform was used. "
        "Programs that use qform show the scan elsewhere."
    ]


def _farthest(difference: FloatArray, corners: FloatArray) -> float:
    moved = difference[:3, :3] @ corners + difference[:3, 3:]
    return float(np.linalg.norm(moved, axis=0).max())
