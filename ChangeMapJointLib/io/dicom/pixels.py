"""Decodes the pixel data of DICOM files to HU."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder  # type: ignore[attr-defined]  # pydicom's own public name
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEGExtended12Bit

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.hu import LOWEST_HU, NOT_SCANNED_HU, as_hu
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.dicom.headers import Frame, read_dataset
from ChangeMapJointLib.io.dicom.padding import padding_mask
from ChangeMapJointLib.io.dicom.stacks import Stack
from ChangeMapJointLib.io.dicom.values import one_line, parsing
from ChangeMapJointLib.io.sources import SourceFile
from ChangeMapJointLib.io.tilt import straighten_slice

INT16_MAX = 32767
MAX_PIXEL_BYTES = 4
MAX_COMPRESSION = 2000  # ratio for a whole scan; nothing but air may reach several hundred
HEADER_ALLOWANCE_BYTES = 64 * 2**20
PIXEL_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
]
MULTI_FRAME_TAGS = ("NumberOfFrames", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData")
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
_STDERR = threading.Lock()


def read_voxels(stack: Stack, *, progress: Progress = silent) -> NDArray[np.int16] | NDArray[np.float32]:
    """Read the voxels of a stack in HU, one file at a time.

    Returns:
        ``[z, y, x]`` on ``stack.grid``, int16 if all values are integers; -1024 for padding and all lower values.

    Raises:
        InputError: pixel data are missing, truncated or cannot be decoded; names the file.
    """
    _check_bytes(stack.frames)
    whole = all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in stack.frames)
    array: NDArray[np.generic] = np.empty(stack.grid.shape, dtype=np.int16 if whole else np.float32)
    by_file: dict[SourceFile, list[tuple[int, Frame]]] = defaultdict(list)
    for number, frame in enumerate(stack.frames):
        by_file[frame.file].append((number, frame))
    done = 0
    partial: dict[int, NDArray[np.float32]] = {}  # interpolated slices of the grid for which one of two frames is read
    for file, frames in by_file.items():
        for (number, frame), stored, is_padding in _decoded(file, frames):
            plane = _to_hu(stored, is_padding, frame)
            if whole and plane.max() > INT16_MAX:
                array, whole = array.astype(np.float32), False
            position = number if stack.grid_positions is None else stack.grid_positions[number]
            plane = straighten_slice(plane, position, len(array), stack.shear_mm, stack.grid.spacing_mm)
            for k, weight in _weights(number, stack):
                if weight == 1.0:
                    array[k] = plane
                elif k in partial:
                    total = partial.pop(k) + weight * plane.astype(np.float32)
                    array[k] = np.rint(total) if whole else total
                else:
                    partial[k] = weight * plane.astype(np.float32)
            done += 1
            progress(done / len(stack.frames), "reading slices")
    return as_hu(array)


def _weights(number: int, stack: Stack) -> list[tuple[int, float]]:
    """Return the slices of the grid to which a frame contributes, with its weights (linear interpolation)."""
    if stack.grid_positions is None:
        return [(number, 1.0)]
    position = stack.grid_positions[number]
    weights = [(int(position), 1.0)] if position.is_integer() and position < stack.grid.shape[0] else []
    for neighbour in (number - 1, number + 1):
        if 0 <= neighbour < len(stack.grid_positions):
            low, high = sorted((position, stack.grid_positions[neighbour]))
            between = range(int(np.floor(low)) + 1, min(int(np.ceil(high)), stack.grid.shape[0]))
            weights += [(k, 1.0 - abs(k - position) / (high - low)) for k in between]
    return weights


def _check_bytes(frames: Sequence[Frame]) -> None:
    """Check that compressed files do not claim more pixels than they can hold.

    Raises:
        InputError: they do.
    """
    declared = sum(frame.image_bytes for frame in frames if frame.compressed)
    present = sum(file.size for file in {frame.file for frame in frames if frame.compressed})
    if declared > MAX_COMPRESSION * present:
        raise InputError(
            f"{len(frames)} image(s) of {frames[0].shape[0]} x {frames[0].shape[1]} pixels are {declared} bytes, but "
            f"their compressed files have only {present}",
            remedy="export the series again, uncompressed",
        )


class Fingerprints:
    """Hashes of frames, equal exactly if their HU are.

    A file is read for the first of its frames that is requested, and once more, for all its frames, for the second.

    Args:
        frames: all frames that may be requested.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames: dict[SourceFile, list[tuple[int, Frame]]] = defaultdict(list)
        for frame in frames:
            self._frames[frame.file].append((frame.index, frame))
        self._digests: dict[tuple[SourceFile, int], bytes] = {}
        self._read_once: set[SourceFile] = set()

    def __call__(self, frame: Frame) -> bytes:
        """Return the fingerprint of a frame.

        Raises:
            InputError: the pixel data cannot be read.
        """
        key = (frame.file, frame.index)
        if key not in self._digests:
            requested = self._frames[frame.file] if frame.file in self._read_once else [(frame.index, frame)]
            self._read_once.add(frame.file)
            _check_bytes([item for _, item in requested])
            for (index, item), stored, is_padding in _decoded(frame.file, requested):
                digest = hashlib.sha256(_to_hu(stored, is_padding, item).tobytes()).digest()
                self._digests[frame.file, index] = digest
        return self._digests[key]


def read_plane(frame: Frame) -> NDArray[np.float32]:
    """Read one frame in HU, ``[y, x]``.

    Raises:
        InputError: the pixel data cannot be read.
    """
    _check_bytes([frame])
    ((_, stored, is_padding),) = _decoded(frame.file, [(frame.index, frame)])
    return _to_hu(stored, is_padding, frame).astype(np.float32)


def _decoded(
    file: SourceFile, requested: Sequence[tuple[int, Frame]]
) -> Iterator[tuple[tuple[int, Frame], Stored, NDArray[np.bool_] | None]]:
    """Decode the requested frames of a file: stored values ``[y, x]``, and where they are padding."""
    frame = requested[0][1]
    pixels = frame.shape[0] * frame.shape[1] * frame.frames_in_file
    if file.size > MAX_PIXEL_BYTES * pixels + HEADER_ALLOWANCE_BYTES:
        raise InputError(f"{file.size} bytes are far too many for {pixels} pixels", field=Path(file.name))
    dataset = read_dataset(file, PIXEL_TAGS)
    for item in requested:
        with parsing(file.name):
            stored = _decode(file, dataset, item[1])
            used = _used_bits(stored, dataset)
            is_padding = padding_mask(stored, used, dataset, item[1].slope, item[1].intercept)
        yield item, used, is_padding


def _decode(file: SourceFile, dataset: Dataset, frame: Frame) -> Stored:
    """Decode the stored values of one frame, with all bits.

    Raises:
        InputError: names the file and, if decoding fails, the transfer syntax.
    """
    syntax = UID(str(getattr(dataset.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian)))
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise InputError(
            "pixels are floating-point numbers, which no CT image has",
            field=Path(file.name),
            remedy="export the series again as CT images with 16 bits",
        )
    if "PixelData" not in dataset:
        raise InputError("no pixel data", field=Path(file.name), remedy="export the series again")
    if not syntax.is_transfer_syntax or syntax.is_private:
        raise InputError(
            f"pixels in an unknown transfer syntax ({syntax})",
            field=Path(file.name),
            remedy="export the series again, uncompressed",
        )
    try:
        _add_defaults(dataset)
        stored = _decode_frame(syntax, dataset, frame)
    except DECODE_ERRORS as error:
        reason = f"{syntax.name}: {one_line(error)}"
        raise InputError(
            f"pixel data cannot be decoded ({reason})",
            field=Path(file.name),
            remedy="export the series again, uncompressed",
        ) from error
    if stored.shape != frame.shape or not np.issubdtype(stored.dtype, np.integer):
        raise InputError(
            f"pixels {stored.dtype}{stored.shape}", field=Path(file.name), expected=f"integers {frame.shape}"
        )
    return stored


def _add_defaults(dataset: Dataset) -> None:
    """Add the elements on which the others leave no choice, where a program has left them out."""
    for keyword, value in (
        ("SamplesPerPixel", 1),
        ("PhotometricInterpretation", "MONOCHROME2"),
        ("BitsStored", dataset.get("BitsAllocated")),
        ("HighBit", int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 0) - 1),
    ):
        if dataset.get(keyword) in (None, "") and value not in (None, -1):
            setattr(dataset, keyword, value)


def _decode_frame(syntax: UID, dataset: Dataset, frame: Frame) -> Stored:
    """Decode with pydicom or, where it cannot, with SimpleITK's GDCM."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    jpeg_of_12_bits = syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8  # pillow reads 8 bits only
    if decoder is None or not decoder.is_available or jpeg_of_12_bits:
        return _decode_with_itk(dataset, frame)
    options: Any = {"correct_unused_bits": False}  # done here, after padding is found
    stored, _ = decoder.as_array(dataset, index=frame.index, raw=True, **options)
    return stored


def _decode_with_itk(dataset: Dataset, frame: Frame) -> Stored:
    """Decode transfer syntaxes that only SimpleITK's GDCM supports, such as lossless JPEG and JPEG of 12 bits.

    ``dataset`` has no RescaleSlope, so GDCM returns stored values.
    """
    import SimpleITK as sitk

    single = _single_frame(dataset, frame) if frame.frames_in_file > 1 else dataset
    with tempfile.TemporaryDirectory(prefix="changemap-") as folder:
        path = Path(folder) / "slice.dcm"
        single.save_as(path, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        with _silent_library():
            stored: Stored = sitk.GetArrayFromImage(reader.Execute())
    return stored.reshape(stored.shape[-2:])


@contextmanager
def _silent_library() -> Iterator[None]:
    """Discard what a library writes to standard error: GDCM tries JPEG of 8 bits first, and says so for each slice."""
    with _STDERR:  # the descriptor belongs to the whole process
        try:
            kept = os.dup(2)
        except OSError:  # closed, as in programs without a console
            yield
            return
        try:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _single_frame(dataset: Dataset, frame: Frame) -> Dataset:
    """Make a dataset with only ``frame``, still compressed."""
    single = Dataset()
    for element in dataset:
        if element.keyword not in MULTI_FRAME_TAGS:
            single.add(element)
    single.file_meta = dataset.file_meta
    tables: Any = (dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths"))
    encoded = get_frame(
        dataset.PixelData,
        frame.index,
        number_of_frames=frame.frames_in_file,
        extended_offsets=tables if all(tables) else None,
    )
    single.PixelData = encapsulate([encoded])
    return single


def _used_bits(stored: Stored, dataset: Dataset) -> Stored:
    """Remove unused bits from stored values: overlays of old scanners above HighBit, anything below the lowest bit.

    Raises:
        InputError: the bits do not fit those allocated.
    """
    bits, highest = int(dataset.BitsStored), int(dataset.HighBit)
    allocated = stored.dtype.itemsize * 8
    if not (0 < bits <= highest + 1 <= int(dataset.BitsAllocated)):
        raise InputError(
            f"HighBit is {highest} with {bits} of {dataset.BitsAllocated} bits stored, which is impossible",
            remedy="export the series again",
        )
    above, below = allocated - highest - 1, highest + 1 - bits
    if above <= 0 and below == 0:
        return stored
    used = np.left_shift(stored, max(above, 0))  # the right shift restores the sign of signed types
    shifted: Stored = np.right_shift(used, max(above, 0) + below)
    return shifted


def _to_hu(stored: Stored, is_padding: NDArray[np.bool_] | None, frame: Frame) -> NDArray[np.generic]:
    """Return ``slope * stored + intercept``, at least -1024, as int32 or float32."""
    if frame.slope.is_integer() and frame.intercept.is_integer():
        hu: NDArray[np.generic] = stored.astype(np.int32) * int(frame.slope) + int(frame.intercept)
    else:
        hu = (stored * frame.slope + frame.intercept).astype(np.float32)
    if is_padding is not None:
        hu[is_padding] = NOT_SCANNED_HU
    return np.maximum(hu, LOWEST_HU)  # type: ignore[no-any-return]
