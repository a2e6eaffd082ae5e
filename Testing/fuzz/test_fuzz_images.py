"""Damaged NIfTI, NRRD and MetaImage files: an InputError of one line, or a scan that holds together."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzzing import answer, damaged, damaged_lines, empty, fuzz
from hypothesis import given
from hypothesis import strategies as st
from image_samples import nifti
from phantoms import random_scan

from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.scan.volume import Volume

ARRAY = random_scan().array
NRRD = (
    "type: int16",
    "dimension: 3",
    "space: left-posterior-superior",
    "sizes: 5 6 7",
    "space directions: (1,0,0) (0,2,0) (0,0.1,3)",
    "kinds: domain domain domain",
    "endian: little",
    "encoding: raw",
    "space origin: (1,2,3)",
    'space units: "mm" "mm" "mm"',
)
PLAIN_NRRD = ("type: int16", "dimension: 3", "sizes: 5 6 7", "spacings: 1 2 3", "endian: little", "encoding: gzip")
META = (
    "ObjectType = Image",
    "NDims = 3",
    "BinaryData = True",
    "BinaryDataByteOrderMSB = False",
    "CompressedData = False",
    "TransformMatrix = 1 0 0 0 1 0 0 0 1",
    "Offset = 0 0 0",
    "ElementSpacing = 1 2 3",
    "DimSize = 5 6 7",
    "ElementNumberOfChannels = 1",
    "HeaderSize = 0",
    "ElementType = MET_SHORT",
    "ElementDataFile = LOCAL",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(autouse=True)
def silent(capfd: pytest.CaptureFixture[str]):
    """Nothing is printed, whatever the library below says of damaged files."""
    yield
    assert capfd.readouterr() == ("", "")


def check(path: Path) -> None:
    """A valid scan or a refusal, from both readers."""
    found = answer(lambda: read_volume(path), path.parent)
    if found is not None:
        assert_valid(found)
    numbers = answer(lambda: read_array(path), path.parent)
    assert numbers is None or numbers[0].shape[:3] == numbers[1].shape


def assert_valid(found: Volume) -> None:
    assert found.array.dtype in (np.int16, np.float32)
    assert found.array.ndim == 3
    assert min(found.array.shape) >= 2
    assert np.isfinite(found.array).all()
    assert found.array.min() >= -1024
    assert np.isfinite(found.grid.affine).all()
    assert all(note.isprintable() and len(note) < 400 for note in found.notes)


@fuzz(120)
@given(data=st.data())
def test_nifti(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    version = data.draw(st.sampled_from((1, 2)))
    order = data.draw(st.sampled_from("<>"))
    plain = nifti(folder / "a.nii", ARRAY, version=version, order=order, qform=(0.1, 0.2, 0.3, 1, 2, 3), codes=(1, 1))
    content = data.draw(damaged(plain.read_bytes(), within=560))
    if data.draw(st.booleans()):
        content = data.draw(damaged(gzip.compress(content, mtime=0)))
    path = folder / data.draw(st.sampled_from(("a.nii", "a.nii.gz")))
    path.write_bytes(content)
    check(path)


@fuzz(120)
@given(data=st.data())
def test_nrrd(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    lines = list(data.draw(st.sampled_from((NRRD, PLAIN_NRRD))))
    content = gzip.compress(ARRAY.tobytes(), mtime=0) if lines[-1] == "encoding: gzip" else ARRAY.tobytes()
    if detached := data.draw(st.booleans()):
        lines.append(
            data.draw(st.sampled_from(("data file: a.raw", "data file: LIST\na.raw", "data file: a.%s 1 1 1")))
        )
        (folder / "a.raw").write_bytes(data.draw(damaged(content)))
    header = "\n".join(["NRRD0005", *data.draw(damaged_lines(lines, ":")), "", ""]).encode("utf-8", "replace")
    path = folder / ("a.nhdr" if detached else "a.nrrd")
    whole = header if detached else header + content
    path.write_bytes(data.draw(damaged(whole)) if data.draw(st.booleans()) else whole)
    check(path)


@fuzz(120)
@given(data=st.data())
def test_metaimage(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    lines = list(META)
    content = ARRAY.tobytes()
    if data.draw(st.booleans()):
        lines[4], content = "CompressedData = True", data.draw(damaged(zlib.compress(content)))
    if detached := data.draw(st.booleans()):
        lines[-1] = data.draw(st.sampled_from(("ElementDataFile = a.raw", "ElementDataFile = LIST\na.raw")))
        (folder / "a.raw").write_bytes(content)
    header = "\n".join([*data.draw(damaged_lines(lines, "=")), ""]).encode("utf-8", "replace")
    path = folder / ("a.mhd" if detached else "a.mha")
    whole = header if detached else header + content
    path.write_bytes(data.draw(damaged(whole)) if data.draw(st.booleans()) else whole)
    check(path)
