"""Damaged deformations of other programs: an InputError of one line, or a mapping of points to points."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from fuzzing import answer, damaged, damaged_lines, empty, fuzz
from hypothesis import given
from hypothesis import strategies as st

from ChangeMapJointLib.io.deformation_files import read_deformation

POINTS = np.random.default_rng(0).uniform(-5, 20, (20, 3))
ELASTIX = (
    'Transform "BSplineTransform"',
    "GridSize 4 4 4",
    "GridSpacing 5 5 5",
    "GridOrigin 0 0 0",
    "GridDirection 1 0 0 0 1 0 0 0 1",
    f"TransformParameters {'0.5 ' * 192}",
    'InitialTransformParameterFileName "a.0.txt"',
    'HowToCombineTransforms "Compose"',
    "FixedImageDimension 3",
    "MovingImageDimension 3",
)
EULER = ('Transform "EulerTransform"', "CenterOfRotationPoint 1 2 3", "TransformParameters 0.1 0.2 0.3 4 5 6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def check(path: Path) -> None:
    mapping = answer(lambda: read_deformation([path]), path.parent)
    if mapping is not None:
        assert mapping.apply(POINTS).shape == POINTS.shape
        assert mapping.covers(POINTS).shape == POINTS.shape[:1]


@fuzz(80)
@given(data=st.data())
def test_elastix(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    for name, lines in (("a.0.txt", EULER), ("a.1.txt", ELASTIX)):
        found = data.draw(damaged_lines(lines, " "))
        (folder / name).write_text("\n".join(f"({line})" for line in found), "utf-8", "replace")
    check(folder / "a.1.txt")


@fuzz(60)
@given(data=st.data())
def test_matrices(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    (folder / "a.mat").write_bytes(data.draw(damaged(b"1 0 0 4\n0 1 0 5\n0 0 1 6\n0 0 0 1\n")))
    check(folder / "a.mat")


@fuzz(60)
@given(data=st.data())
def test_transform_files(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    suffix = data.draw(st.sampled_from((".tfm", ".mat")))
    sitk.WriteTransform(
        sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.2, 0.3, (4.0, 5.0, 6.0)), str(folder / f"b{suffix}")
    )
    (folder / f"a{suffix}").write_bytes(data.draw(damaged((folder / f"b{suffix}").read_bytes())))
    check(folder / f"a{suffix}")


@fuzz(80)
@given(data=st.data())
def test_niftyreg(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    image = nibabel.Nifti1Image(np.ones((5, 6, 7, 1, 3), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header.set_intent(1007, (), "NREG_TRANS")
    image.header["intent_p1"] = data.draw(st.sampled_from((0, 1, 2, 6)))
    content = data.draw(damaged(image.to_bytes(), within=360))
    packed = data.draw(st.booleans())
    path = folder / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    check(path)
