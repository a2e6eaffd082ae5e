"""Damaged DICOM series, as folders and as zip archives: an InputError of one line, or a scan that holds together."""

from __future__ import annotations

import struct
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from fuzzing import NASTY, answer, damaged, empty, fuzz
from hypothesis import given
from hypothesis import strategies as st
from phantoms import dicom_slices, random_scan
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from test_fuzz_images import assert_valid

from ChangeMapJointLib.io.dicom.series import list_series
from ChangeMapJointLib.io.read import read_volume

LONG = ("OB", "OW", "SQ", "UN", "UT")  # whose length takes four bytes behind two of nothing
NAMES = ("../../evil.dcm", "/evil.dcm", "C:\\evil.dcm", "a/../../b", "\0", "", ".", "x" * 300, "é\u2028.dcm", "a/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def slices() -> dict[str, list[bytes]]:
    """Four slices as they are, run-length encoded, and deflated."""
    whole: dict[str, list[bytes]] = {}
    scan = random_scan(shape=(4, 6, 5))
    for name, syntax in (("plain", None), ("rle", RLELossless), ("deflated", DeflatedExplicitVRLittleEndian)):
        datasets = dicom_slices(scan)
        for number, ds in enumerate(datasets):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
            ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
            if syntax == RLELossless:
                ds.compress(RLELossless, generate_instance_uid=False)
            elif syntax:
                ds.file_meta.TransferSyntaxUID = syntax
        whole[name] = [content_of(ds) for ds in datasets]
    return whole


def content_of(ds: Dataset) -> bytes:
    stream = BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def elements(content: bytes) -> list[tuple[int, int, int]]:
    """Where the length, the value and the end of every element of an explicit little-endian file are."""
    found, place = [], 132
    while place + 8 <= len(content):
        kind = content[place + 4 : place + 6].decode("ascii", "replace")
        where, code = (place + 8, "<I") if kind in LONG else (place + 6, "<H")
        (length,) = struct.unpack_from(code, content, where)
        start = where + struct.calcsize(code)
        if start + length > len(content):
            break
        found.append((where, start, start + length))
        place = start + length
    return found


@st.composite
def other_values(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with other values in up to three of its elements, or without these."""
    for _ in range(draw(st.integers(1, 3))):
        where, start, stop = draw(st.sampled_from(elements(content)[1:]))
        value = content[start:stop]
        kind = draw(st.sampled_from(("text", "text", "part", "bytes", "none", "remove")))
        if kind == "remove":
            begin = where - (8 if start - where == 4 else 6)
            content = content[:begin] + content[stop:]
            continue
        if kind == "text":
            value = draw(st.sampled_from(NASTY)).encode()
        elif kind == "part" and b"\\" in value:
            parts = value.split(b"\\")
            parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(NASTY)).encode()
            value = b"\\".join(parts)
        elif kind == "bytes":
            value = draw(st.binary(max_size=8) | st.sampled_from((b"\0\0", b"\xff\xff", b"\1\0", b"\x0c\0", b"\0\x80")))
        else:
            value = b""
        value += b" " * (len(value) % 2)
        code = "<I" if start - where == 4 else "<H"
        content = content[:where] + struct.pack(code, len(value)) + value + content[stop:]
    return content


def check(path: Path) -> None:
    answer(lambda: list_series(path), path.parent)
    found = answer(lambda: read_volume(path), path.parent)
    if found is not None:
        assert_valid(found)


def write(folder: Path, contents: list[bytes]) -> Path:
    series = empty(folder) / "series"
    series.mkdir()
    for number, content in enumerate(contents):
        (series / f"{number}.dcm").write_bytes(content)
    return series


@fuzz(25)
@given(data=st.data())
def test_headers(folder: Path, slices: dict[str, list[bytes]], data: st.DataObject) -> None:
    contents = list(slices["plain"])
    for number in data.draw(st.sets(st.integers(0, 3), min_size=1)):
        contents[number] = data.draw(other_values(contents[number]))
    check(write(folder, contents))


@fuzz(25)
@given(data=st.data())
def test_bytes(folder: Path, slices: dict[str, list[bytes]], data: st.DataObject) -> None:
    contents = list(slices[data.draw(st.sampled_from(sorted(slices)))])
    number = data.draw(st.integers(0, 3))
    head = data.draw(st.sampled_from((None, 700)))  # pixels as well, or the header alone
    contents[number] = data.draw(damaged(contents[number], within=head))
    check(write(folder, contents))


@fuzz(25)
@given(data=st.data())
def test_zip_members(folder: Path, slices: dict[str, list[bytes]], data: st.DataObject) -> None:
    empty(folder)
    stream = BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        for number, content in enumerate(slices["plain"]):
            name = data.draw(st.sampled_from((f"{number}.dcm", *NAMES)))
            method = data.draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
            info = zipfile.ZipInfo(name or "empty", (2020, 1, 1, 0, 0, 0))
            info.compress_type = method
            archive.writestr(info, data.draw(damaged(content)) if data.draw(st.booleans()) else content)
    path = folder / "series.zip"
    path.write_bytes(data.draw(damaged(stream.getvalue())))
    check(path)


def test_a_member_that_unpacks_to_far_more_than_a_slice(folder: Path, slices: dict[str, list[bytes]]) -> None:
    """Refused by its size, without being unpacked."""
    empty(folder)
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number, content in enumerate(slices["plain"]):
            archive.writestr(f"{number}.dcm", content + bytes(2**27 if number == 1 else 0))
    assert answer(lambda: read_volume(path), folder) is None
