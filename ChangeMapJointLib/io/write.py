"""Writes volumes, displacement fields and rigid transforms, completely or not at all."""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.compact_field import STEP_MM, compact, read_vectors

if TYPE_CHECKING:
    from ChangeMapJointLib.core.displacement import DisplacementField  # imports torch, which Slicer's process may lack

NRRD_TYPES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "f4": "float", "f8": "double"}
# Slicer's header fields of a displacement field, https://slicer.readthedocs.io, developer guide, Transforms
DISPLACEMENT_KEYS = {"displacement field type": "resampling", "intent_code": "1006"}
SLAB_BYTES = 2**24


@contextmanager
def atomic_path(path: str | PathLike[str], *, remedy: str = "give another folder") -> Iterator[Path]:
    """Give a temporary path beside ``path``, which is renamed to ``path`` if the block succeeds and removed otherwise.

    The suffix is kept for writers that depend on it.

    Args:
        path: the file.
        remedy: what to do where it cannot be written.

    Raises:
        InputError: the folder is missing or cannot be written to, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror or error})", field=target, remedy=remedy) from error
    finally:
        with suppress(OSError):  # gone after a success
            temporary.unlink()


def write_nrrd(
    path: str | PathLike[str],
    array: NDArray[np.generic],
    grid: Grid,
    *,
    metadata: Mapping[str, str] | None = None,
    compress: bool = True,
    step: float | None = None,
) -> None:
    """Write a volume or a vector field as NRRD in LPS.

    The same input gives the same bytes. Memory use is a few slices beyond ``array``.

    Args:
        path: the file; an existing one is replaced in one step.
        array: ``[z, y, x]``, or ``[z, y, x, 3]`` for vectors in LPS; bool is written as uint8.
        grid: the grid of ``array``.
        metadata: further keys and values for the header.
        compress: compress with gzip, at its fastest setting.
        step: round to multiples of this, a power of two; the values stay floats, and compress three times better.

    Raises:
        InputError: the file cannot be written.
        ValueError: ``array`` does not fit ``grid``, or NRRD does not support its type.
    """
    if tuple(array.shape[:3]) != grid.shape or array.ndim > 4:
        raise ValueError(f"write_nrrd() 'array' must have shape {grid.shape} or (*{grid.shape}, c), got {array.shape}")
    kind = "u1" if array.dtype == bool else array.dtype.str[1:]
    if kind not in NRRD_TYPES:
        raise ValueError(f"write_nrrd() 'array' must be of one of {list(NRRD_TYPES.values())}, got {array.dtype}")
    header = _header(array, grid, NRRD_TYPES[kind], metadata or {}, compress)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(header.encode())
        _write_data(stream, array, f"<{kind}", compress, step)
        stream.flush()
        os.fsync(stream.fileno())


def rounded(values: NDArray[Any], step: float) -> NDArray[Any]:
    """Return values as :func:`write_nrrd` writes them with ``step``.

    Examples:
        >>> rounded(np.float32([0.3]), 0.25).tolist()
        [0.25]
    """
    result: NDArray[Any] = (np.rint(values / step) * step).astype(values.dtype, copy=False)
    return result


def write_displacement(
    path: str | PathLike[str],
    field: DisplacementField,
    *,
    compress: bool = True,
    lungs: NDArray[np.bool_] | None = None,
) -> None:
    """Write u as a float32 vector NRRD in mm, LPS, which Slicer loads as a (resampling) transform.

    Args:
        path: the file.
        field: u.
        compress: compress with gzip.
        lungs: bool ``[z, y, x]`` on the field's grid. With it only every second vector along each axis is written,
            which takes a twelfth of the space, if :func:`read_displacement` gives the others back: to 0.02 mm in the
            lungs, to 0.25 mm elsewhere. See :mod:`~ChangeMapJointLib.io.compact_field`.

    Raises:
        InputError: the file cannot be written.
    """
    vectors = field.vectors_mm.astype(np.float32, copy=False)
    part = None if lungs is None else compact(vectors, field.grid, lungs)
    if part is None:
        write_nrrd(path, vectors, field.grid, metadata=DISPLACEMENT_KEYS, compress=compress)
        return
    keys = DISPLACEMENT_KEYS | part.keys
    write_nrrd(path, part.vectors_mm, part.grid, metadata=keys, compress=compress, step=STEP_MM)


def read_displacement(path: str | PathLike[str]) -> DisplacementField:
    """Read a field written by :func:`write_displacement`, whole, or any vector image in mm, LPS.

    Raises:
        InputError: the file is not a volume of three-vectors.
    """
    from ChangeMapJointLib.core.displacement import DisplacementField

    return DisplacementField(*read_vectors(path))


def write_rigid(path: str | PathLike[str], rigid: FloatArray) -> None:
    """Write a 4x4 physical matrix (reference to template points, LPS) as an ITK transform file (``.tfm``).

    It is stored as an affine transform, which ITK and Slicer load as a resampling transform; storing angles would
    round it.
    """
    import SimpleITK as sitk

    if rigid.shape != (4, 4) or not np.allclose(rigid[3], (0, 0, 0, 1)):
        raise ValueError(f"write_rigid() 'rigid' must be 4x4 with last row (0, 0, 0, 1), got {rigid}")
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(rigid[:3, :3].ravel().tolist())
    transform.SetTranslation(rigid[:3, 3].tolist())
    with atomic_path(path) as temporary:
        try:
            sitk.WriteTransform(transform, str(temporary))
        except RuntimeError as error:
            raise OSError(str(error).strip().splitlines()[-1]) from error


def read_rigid(path: str | PathLike[str]) -> FloatArray:
    """Read the 4x4 physical matrix of a linear ITK transform file.

    Raises:
        InputError: the file is missing or damaged, or the transform is not linear.
    """
    import SimpleITK as sitk

    if not Path(path).is_file():  # ITK would print a page about HDF5
        raise InputError("no such file", field=Path(path))
    try:
        transform = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter from a message that quotes the file
        raise InputError("not a readable ITK transform file", field=Path(path)) from error
    if not transform.IsLinear() or transform.GetDimension() != 3:
        raise InputError(transform.GetName(), field=Path(path), expected="a linear transform of 3-D points")
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis, unit in enumerate(np.eye(3).tolist()):
        matrix[:3, axis] = np.array(transform.TransformPoint(unit)) - origin
    return matrix


def _header(array: NDArray[np.generic], grid: Grid, kind: str, metadata: Mapping[str, str], compress: bool) -> str:
    """Return the NRRD header in LPS, https://teem.sourceforge.net/nrrd/format.html."""
    vector = array.ndim == 4
    directions = [_vector(axis) for axis in (np.asarray(grid.direction) * np.asarray(grid.spacing_mm)).T]
    lines = [
        "NRRD0005",
        f"type: {kind}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(n) for n in array.shape[3:] + array.shape[2::-1])}",
        f"space directions: {' '.join(['none'] * vector + directions)}",
        f"kinds: {' '.join(['vector'] * vector + ['domain'] * 3)}",
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {_vector(grid.origin_mm)}",
    ]
    if vector:
        lines.append("measurement frame: (1,0,0) (0,1,0) (0,0,1)")
    lines += [f"{_escaped(key)}:={_escaped(value)}" for key, value in metadata.items()]
    return "\n".join(lines) + "\n\n"


def _vector(values: FloatArray | tuple[float, ...]) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _write_data(
    stream: BinaryIO, array: NDArray[np.generic], dtype: str, compress: bool, step: float | None = None
) -> None:
    # Measured on change maps, noise and CT: for floats, run-length encoding gives files of the same size three times
    # faster than searching for repeats, which only integers and rounded floats have.
    strategy = zlib.Z_RLE if dtype[1] == "f" and step is None else zlib.Z_DEFAULT_STRATEGY
    compressor = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, strategy)
    count = max(1, SLAB_BYTES // max(array[0].nbytes, 1))
    for z in range(0, array.shape[0], count):
        values = array[z : z + count]
        if step is not None:
            values = rounded(values, step)
        slab = np.ascontiguousarray(values.astype(dtype, copy=False)).data.cast("B")
        stream.write(compressor.compress(slab) if compress else slab)
    if compress:
        stream.write(compressor.flush())
