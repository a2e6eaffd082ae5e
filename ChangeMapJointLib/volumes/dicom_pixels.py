"""From the pixel data of DICOM files to HU."""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ImplicitVRLittleEndian

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.volumes.dicom_headers import Frame, read_dataset
from ChangeMapJointLib.volumes.dicom_stacks import Stack
from ChangeMapJointLib.volumes.dicom_values import one_line, parsing
from ChangeMapJointLib.volumes.hu import LOWEST_HU, as_hu
from ChangeMapJointLib.volumes.sources import SourceFile
from ChangeMapJointLib.volumes.tilt import straightened

INT16_MAX = 32767
MAX_PIXEL_BYTES = 4
HEADER_ALLOWANCE_BYTES = 64 * 2**20
PIXEL_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
]
DECODE_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    RuntimeError,
    NotImplementedError,
    OSError,
)

Stored = NDArray[np.integer]


def read_voxels(stack: Stack, *, progress: Progress = silent) -> NDArray[np.int16] | NDArray[np.float32]:
    """HU of a stack, ``[z, y, x]`` on ``stack.grid``; int16 where every value is a whole number.

    Padding and everything below -1024 becomes -1024. One file is in memory at a time.

    Raises:
        InputError: pixel data that are missing, truncated or cannot be decoded; names the file.
    """
    whole = all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in stack.frames)
    array: NDArray[np.generic] = np.empty(stack.grid.shape, dtype=np.int16 if whole else np.float32)
    by_file: dict[SourceFile, list[tuple[int, Frame]]] = defaultdict(list)
    for k, frame in enumerate(stack.frames):
        by_file[frame.file].append((k, frame))
    done = 0
    for file, wanted in by_file.items():
        for (k, frame), stored, is_padding in _decoded(file, wanted):
            picture = _to_hu(stored, is_padding, frame)
            if whole and picture.max() > INT16_MAX:
                array, whole = array.astype(np.float32), False
            array[k] = straightened(picture, k, len(stack.frames), stack.shear_mm, stack.grid.spacing_mm)
            done += 1
            progress(done / len(stack.frames), "reading slices")
    return as_hu(array)


def fingerprint(frame: Frame) -> bytes:
    """Equal for two frames exactly when their HU are."""
    (_, stored, is_padding), *_ = _decoded(frame.file, [(0, frame)])
    return hashlib.sha256(_to_hu(stored, is_padding, frame).tobytes()).digest()


def _decoded(
    file: SourceFile, wanted: Sequence[tuple[int, Frame]]
) -> Iterator[tuple[tuple[int, Frame], Stored, NDArray[np.bool_] | None]]:
    """Stored values ``[y, x]`` of the wanted frames of a file, and where they are padding."""
    frame = wanted[0][1]
    pixels = frame.shape[0] * frame.shape[1] * frame.frames_in_file
    if file.size > MAX_PIXEL_BYTES * pixels + HEADER_ALLOWANCE_BYTES:
        raise InputError(f"{file.name}: {file.size} bytes are far too many for {pixels} pixels")
    dataset = read_dataset(file, PIXEL_TAGS)
    for item in wanted:
        with parsing(file.name):
            stored = _decode(file, dataset, item[1])
            limits = _padding_limits(dataset)
            is_padding = None if limits is None else (stored >= limits[0]) & (stored <= limits[1])
            stored = _used_bits(stored, dataset)
        yield item, stored, is_padding


def _decode(file: SourceFile, dataset: Dataset, frame: Frame) -> Stored:
    """One frame as it is stored, all bits.

    Raises:
        InputError: with the file and, where a decoder is missing, the transfer syntax.
    """
    syntax = UID(str(getattr(dataset.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian)))
    if "PixelData" not in dataset:
        raise InputError(f"{file.name}: no pixel data; export the series again")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    try:
        if decoder is None or not decoder.is_available:
            stored = _decode_with_itk(dataset)
        else:
            options: Any = {"correct_unused_bits": False}  # done here, after padding is found
            stored, _ = decoder.as_array(dataset, index=frame.index, raw=True, **options)
    except DECODE_ERRORS as error:
        reason = f"{syntax.name}: {one_line(error)}"
        raise InputError(
            f"{file.name}: pixel data cannot be decoded ({reason}); export the series again, uncompressed"
        ) from error
    if stored.shape != frame.shape or not np.issubdtype(stored.dtype, np.integer):
        raise InputError(f"{file.name}: pixels {stored.dtype}{stored.shape}, expected integers {frame.shape}")
    return stored


def _decode_with_itk(dataset: Dataset) -> Stored:
    """Single-frame syntaxes that only SimpleITK's GDCM knows, such as lossless JPEG.

    ``dataset`` has no RescaleSlope, so GDCM gives stored values.
    """
    import SimpleITK as sitk

    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise NotImplementedError("no decoder for several frames")
    with tempfile.TemporaryDirectory(prefix="changemap-") as folder:
        path = Path(folder) / "slice.dcm"
        dataset.save_as(path, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        stored: Stored = sitk.GetArrayFromImage(reader.Execute())
    return stored.reshape(stored.shape[-2:])


def _padding_limits(dataset: Dataset) -> tuple[int, int] | None:
    """The range of stored values that mean "no image here" (PixelPaddingValue, PixelPaddingRangeLimit)."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [value, limit if isinstance(limit, int) else value]
    bits = int(dataset.BitsAllocated)
    if int(dataset.PixelRepresentation):  # some writers store the negative value as unsigned, and the reverse
        ends = [end - 2**bits if end >= 2 ** (bits - 1) else end for end in ends]
    else:
        ends = [end + 2**bits if end < 0 else end for end in ends]
    return min(ends), max(ends)


def _used_bits(stored: Stored, dataset: Dataset) -> Stored:
    """Stored values without what old scanners kept in the bits above HighBit (overlays)."""
    if int(dataset.HighBit) != int(dataset.BitsStored) - 1:
        raise InputError(f"HighBit is {dataset.HighBit} with {dataset.BitsStored} bits stored, expected one less")
    unused = stored.dtype.itemsize * 8 - int(dataset.BitsStored)
    if unused <= 0:
        return stored
    used = np.left_shift(stored, unused)  # the right shift brings the sign back for signed types
    return np.right_shift(used, unused)


def _to_hu(stored: Stored, is_padding: NDArray[np.bool_] | None, frame: Frame) -> NDArray[np.generic]:
    """``slope * stored + intercept``, at least -1024, int32 or float32."""
    if frame.slope.is_integer() and frame.intercept.is_integer():
        hu: NDArray[np.generic] = stored.astype(np.int32) * int(frame.slope) + int(frame.intercept)
    else:
        hu = (stored * frame.slope + frame.intercept).astype(np.float32)
    if is_padding is not None:
        hu[is_padding] = LOWEST_HU
    return np.maximum(hu, LOWEST_HU)  # type: ignore[call-overload,no-any-return]
