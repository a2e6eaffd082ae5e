"""Image files for the tests, NIfTI and MetaImage written byte by byte from their definitions."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from phantoms import random_scan

FORMATS = ("nrrd", "nhdr", "nii", "nii.gz", "mha", "mhd")
DATATYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


def save(path: Path, array: np.ndarray | None = None, *, spacing=(0.7, 0.8, 1.25), compress=False) -> Path:
    """A file of ``array`` ([z, y, x], random HU by default) as SimpleITK writes it."""
    array = random_scan().array if array is None else array
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), compress)
    return path


def nifti(
    path: Path,
    array: np.ndarray,
    *,
    pixdim=(1.0, 2.0, 3.0),
    sform: np.ndarray | None = None,
    qform: tuple[float, ...] = (0.0,) * 6,
    qfac: float = 1.0,
    codes: tuple[int, int] = (0, 1),
    order: str = "<",
    slope: tuple[float, float] = (0.0, 0.0),
    dim: tuple[int, ...] | None = None,
    datatype: int | None = None,
    units: int = 2,
    version: int = 1,
    packed: bool | None = None,
) -> Path:
    """A NIfTI file written byte by byte from the format's definition.

    Args:
        path: where to.
        array: ``[z, y, x]``.
        pixdim: voxel size, mm.
        sform: 4x4, RAS; by default that of ``pixdim``.
        qform: quaternion (b, c, d) and position, RAS.
        qfac: -1 turns the third axis of ``qform`` round.
        codes: qform_code and sform_code.
        order: of the bytes, as struct has it.
        slope: scl_slope and scl_inter.
        dim: rank and sizes, by default those of ``array``.
        datatype: instead of the array's.
        units: xyzt_units.
        version: 1 or 2.
        packed: with gzip; by default as the name says.
    """
    dim = dim or (3, *array.shape[::-1])
    datatype = DATATYPES[array.dtype.str[1:]] if datatype is None else datatype
    bits, sizes, ones = 8 * array.itemsize, [1.0, *pixdim] + [0.0] * 4, [*dim, *[1] * (8 - len(dim))]
    sizes[0] = qfac
    matrix = (np.diag([*pixdim, 1.0]) if sform is None else sform)[:3].ravel()
    if version == 1:
        header = bytearray(352)
        places = [(0, "i", [348]), (40, "8h", ones), (70, "2h", [datatype, bits]), (76, "8f", sizes)]
        places += [(108, "3f", [352.0, *slope]), (123, "B", [units]), (252, "2h", codes), (256, "6f", qform)]
        places += [(280, "12f", matrix), (344, "4s", [b"n+1\0"])]
    else:
        header = bytearray(544)
        places = [(0, "i", [540]), (4, "8s", [b"n+2\0\r\n\x1a\n"]), (12, "2h", [datatype, bits]), (16, "8q", ones)]
        places += [(104, "8d", sizes), (168, "q", [544]), (176, "2d", slope), (344, "2i", codes), (352, "6d", qform)]
        places += [(400, "12d", matrix), (500, "i", [units])]
    for place, code, values in places:
        struct.pack_into(order + code, header, place, *values)
    content = bytes(header) + array.astype(array.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(gzip.compress(content) if (path.suffix == ".gz" if packed is None else packed) else content)
    return path


def nrrd(path: Path, *fields: str, content: bytes = b"") -> Path:
    """An NRRD file with exactly these lines in its header."""
    path.write_bytes("\n".join(["NRRD0005", *fields, "", ""]).encode() + content)
    return path


def meta(path: Path, content: bytes = b"", **fields: object) -> Path:
    """A MetaImage file of int16 numbers 5 x 6 x 7 with these fields; None takes one away."""
    values = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 2 3",
        "DimSize": "5 6 7",
        "ElementType": "MET_SHORT",
        **fields,
    }
    values["ElementDataFile"] = values.pop("ElementDataFile", "LOCAL")
    lines = [f"{name} = {value}" for name, value in values.items() if value is not None]
    path.write_bytes("\n".join([*lines, ""]).encode() + content)
    return path
