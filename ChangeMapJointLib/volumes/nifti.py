"""What must be known of a NIfTI file before ITK reads it.

ITK fills the missing voxels of a truncated file with zeros, turns NaN into 0, replaces a voxel size of 0 by 1,
and takes the voxel sizes of ``pixdim`` where the matrix of ``sform`` says otherwise. None of these may pass unseen.

Format: https://nifti.nimh.nih.gov/nifti-1 and nifti-2.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ChangeMapJointLib.core.errors import InputError

CHUNK_BYTES = 2**22
MAX_OFFSET_BYTES = 2**30
SAME_SIZE = 0.01  # largest relative difference of pixdim and sform


@dataclass(frozen=True)
class _Layout:
    """Byte offsets in a header; the codes are struct's."""

    size: int
    dim: tuple[int, str]
    datatype: tuple[int, str]  # and bitpix
    pixdim: tuple[int, str]
    vox_offset: tuple[int, str]
    codes: tuple[int, str]  # qform_code, sform_code
    sform: tuple[int, str]


_LAYOUTS = {
    348: _Layout(348, (40, "8h"), (70, "2h"), (76, "8f"), (108, "f"), (252, "2h"), (280, "12f")),
    540: _Layout(540, (16, "8q"), (12, "2h"), (104, "8d"), (168, "q"), (344, "2i"), (400, "12d")),
}
_FLOATS = {16: "f4", 64: "f8"}  # datatype codes


@dataclass(frozen=True)
class _Voxels:
    """Where the voxels are, and of what type where that can hold NaN."""

    start: int
    stop: int
    float_type: str | None


def check_nifti(path: Path) -> tuple[str, ...]:
    """Notes on a NIfTI file (``.nii`` or ``.nii.gz``) that may be read.

    Raises:
        InputError: not NIfTI, voxel sizes that are no positive numbers or contradict each other, fewer voxels
            than the header announces, or voxels that are no finite numbers.
    """
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    try:
        with cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb") as stream:
            voxels, notes = _check_header(stream)
            found, strange = _scan(stream, voxels)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"damaged or truncated ({error}); copy or export it again") from error
    if found < voxels.stop:
        raise InputError(f"truncated, {found} of {voxels.stop} bytes; copy or export it again")
    if strange:
        raise InputError(f"{strange} voxel(s) are NaN or infinite, expected finite HU; repair or export it again")
    return notes


def _check_header(stream: BinaryIO) -> tuple[_Voxels, tuple[str, ...]]:
    """Where the header says that the voxels are, and notes."""
    start = stream.read(348)
    if len(start) < 348:
        raise InputError(f"{len(start)} bytes, too few for an image")
    order = "<" if struct.unpack_from("<i", start)[0] in _LAYOUTS else ">"
    size = struct.unpack_from(f"{order}i", start)[0]
    if size not in _LAYOUTS:
        raise InputError("not a NIfTI file; expected a .nii or .nii.gz image")
    layout, header = _LAYOUTS[size], start + stream.read(size - 348)
    if len(header) < size:
        raise InputError(f"{len(header)} bytes, too few for an image")

    def get(place: tuple[int, str]) -> tuple[float, ...]:
        return struct.unpack_from(order + place[1], header, place[0])

    dim, (datatype, bits) = get(layout.dim), get(layout.datatype)
    rank = min(max(int(dim[0]), 0), 7)
    qform_code, sform_code = get(layout.codes)
    if rank >= 3:
        _check_sizes(get(layout.pixdim)[1:4], get(layout.sform) if sform_code > 0 else (0.0,) * 12)
    first = _first_voxel(get(layout.vox_offset)[0], size)
    count = float(np.prod([max(n, 1) for n in dim[1 : 1 + rank]], dtype=float))
    kind = _FLOATS.get(int(datatype))
    notes = (
        () if qform_code > 0 or sform_code > 0 else ("The file does not say how the patient lies (no orientation).",)
    )
    return _Voxels(first, int(first + count * bits / 8), order + kind if kind else None), notes


def _first_voxel(vox_offset: float, header_size: int) -> int:
    if not vox_offset <= MAX_OFFSET_BYTES:  # NaN included
        raise InputError(f"vox_offset {vox_offset} in the header, expected at most {MAX_OFFSET_BYTES} bytes")
    return max(int(vox_offset), header_size)


def _check_sizes(pixdim: tuple[float, ...], sform: tuple[float, ...]) -> None:
    """Voxel sizes are positive and, where there is an sform, the same in both."""
    sizes_mm = np.array(pixdim)
    if not (np.isfinite(sizes_mm).all() and (sizes_mm > 0).all()):
        raise InputError(f"voxel size {tuple(sizes_mm.tolist())} mm, expected three positive numbers")
    columns = np.linalg.norm(np.reshape(sform, (3, 4))[:, :3], axis=0)
    if columns.any() and not np.abs(columns / sizes_mm - 1).max() <= SAME_SIZE:
        raise InputError(
            f"voxel sizes contradict each other, {tuple(sizes_mm.round(4).tolist())} mm in pixdim and "
            f"{tuple(columns.round(4).tolist())} mm in sform; export it again"
        )


def _scan(stream: BinaryIO, voxels: _Voxels) -> tuple[int, int]:
    """Bytes up to the end, and voxels that are NaN or infinite; reading also checks an archive's checksum."""
    strange, place = 0, voxels.start
    stream.seek(place)
    while chunk := stream.read(CHUNK_BYTES):
        if voxels.float_type:
            whole = min(len(chunk), max(voxels.stop - place, 0)) // np.dtype(voxels.float_type).itemsize
            strange += int((~np.isfinite(np.frombuffer(chunk, voxels.float_type, whole))).sum())
        place += len(chunk)
    return place, strange
