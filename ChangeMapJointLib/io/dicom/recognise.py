"""Tells DICOM files by their first bytes, without pydicom, which may be too old where only other files are read."""

from __future__ import annotations

from pathlib import PurePath

from ChangeMapJointLib.io.sources import SourceFile

DICOMDIR = "DICOMDIR"
HEADER_BYTES = 2048  # enough for the group that names the transfer syntax
_META = (b"\x00\x00", b"\x01\x00", b"\x02\x00")  # elements with which the file meta information may start
_FIRST = (b"\x00\x00", b"\x01\x00", b"\x05\x00", b"\x08\x00", b"\x12\x00", b"\x16\x00")  # and a bare data set
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"  # SOP class UID, Media Storage Directory Storage


def looks_like_dicom(start: bytes) -> bool:
    """Return whether a file starts like DICOM: a part-10 file with any preamble, or a bare little-endian data set."""
    if start[128:132] == b"DICM":
        return True
    group, element = start[:2], start[2:4]
    return (group == b"\x02\x00" and element in _META) or (group == b"\x08\x00" and element in _FIRST)


def is_dicomdir(file: SourceFile) -> bool:
    """Return whether a file is a DICOMDIR, by its name or its SOP class."""
    if PurePath(file.name).name.upper() == DICOMDIR:
        return True
    start = file.read(HEADER_BYTES)
    return looks_like_dicom(start) and _DIRECTORY_CLASS in start
