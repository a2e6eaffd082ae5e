"""Deformations of other programs: every format against its closed form, bad ones refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import rotation, voxel_points

import ChangeMapJointLib as cmj
from ChangeMapJointLib.comparison.given import (
    read_given,
)
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray, Grid, apply_affine
from ChangeMapJointLib.io.deformation_files import read_deformation
from ChangeMapJointLib.io.mappings import Linear, sampled
from ChangeMapJointLib.io.write import write_displacement, write_nrrd

GRID = Grid((14, 12, 13), (8.0, 9.0, 10.0), (-40.0, -60.0, 500.0), rotation(10.0, -5.0, 20.0))
POINTS = GRID.to_physical(np.random.default_rng(3).uniform(3.0, 8.0, (60, 3)))
MATRIX = np.eye(4)
MATRIX[:3, :3] = np.asarray(rotation(3.0, -2.0, 4.0)) @ np.diag([1.03, 0.98, 1.05])
MATRIX[:3, 3] = (4.0, -7.0, 2.5)
TRUE = apply_affine(MATRIX, POINTS)


def nifti(path: Path, vectors: FloatArray, grid: Grid, *, kind: int | None = None, code: int = 1007) -> Path:
    """A NIfTI file of ``vectors`` [z, y, x, c] as they are; of NiftyReg if ``kind`` is given."""
    data = np.ascontiguousarray(vectors.transpose(2, 1, 0, 3)[:, :, :, None], dtype=np.float32)
    image = nibabel.Nifti1Image(data, LPS_TO_RAS @ grid.affine)
    image.header.set_intent(code, (), "" if kind is None else "NREG_TRANS", allow_unknown=True)
    image.header["intent_p1"] = kind or 0
    nibabel.save(image, path)
    return path


# -- one writer a format ----------------------------------------------------------------------
def displacement(folder: Path) -> Path:
    write_displacement(folder / "y.nrrd", sampled(Linear(MATRIX), GRID))
    return folder / "y.nrrd"


def itk_image(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        image = GRID.to_image(sampled(Linear(MATRIX), GRID).vectors_mm)
        sitk.WriteImage(image, str(folder / f"1Warp{suffix}"))
        return folder / f"1Warp{suffix}"

    return make


def ras_displacements(folder: Path) -> Path:
    """The standard's displacements, which ITK turns to LPS, and writes when it converts our ``deformation.nrrd``."""
    lps = sampled(Linear(MATRIX), GRID).vectors_mm
    path = nifti(folder / "y.nii.gz", lps * (-1, -1, 1), GRID, code=1006)
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == pytest.approx(lps, abs=1e-5)
    return path


def niftyreg(kind: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        there = apply_affine(MATRIX, voxel_points(GRID))
        ras = (there - voxel_points(GRID) if kind == 1 else there) * (-1, -1, 1)
        return nifti(folder / "cpp.nii.gz", ras, GRID, kind=kind)

    return make


def itk_transform(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        affine = sitk.AffineTransform(MATRIX[:3, :3].ravel().tolist(), MATRIX[:3, 3].tolist())
        sitk.WriteTransform(affine, str(folder / f"0GenericAffine{suffix}"))
        return folder / f"0GenericAffine{suffix}"

    return make


def itk_composite(folder: Path) -> Path:
    """A shift, a field and a shift back, as uniGradICON writes its own space."""
    there = np.array([30.0, -20.0, 5.0])
    shifted = replace(GRID, origin_mm=tuple(np.add(GRID.origin_mm, there).tolist()))
    at = voxel_points(shifted) - there
    image = sitk.Cast(shifted.to_image(apply_affine(MATRIX, at) - at), sitk.sitkVectorFloat64)
    parts = [sitk.TranslationTransform(3, (-there).tolist()), sitk.DisplacementFieldTransform(image)]
    parts.append(sitk.TranslationTransform(3, there.tolist()))
    sitk.WriteTransform(sitk.CompositeTransform(parts), str(folder / "all.h5"))  # the last acts first
    return folder / "all.h5"


def greedy_matrix(folder: Path) -> Path:
    np.savetxt(folder / "affine.mat", LPS_TO_RAS @ MATRIX @ LPS_TO_RAS)
    return folder / "affine.mat"


def elastix_affine(folder: Path) -> Path:
    centre = np.array([10.0, 20.0, 30.0])
    shift = MATRIX[:3, 3] + MATRIX[:3, :3] @ centre - centre
    return elastix(folder / "TransformParameters.0.txt", "AffineTransform", [*MATRIX[:3, :3].ravel(), *shift], centre)


def elastix(path: Path, kind: str, parameters: object, centre: object = None, **more: str) -> Path:
    def words(values: object) -> str:
        return " ".join(repr(float(v)) for v in np.ravel(values))

    lines = [f'(Transform "{kind}")', f"(TransformParameters {words(parameters)})", "(FixedImageDimension 3)"]
    lines += [] if centre is None else [f"(CenterOfRotationPoint {words(centre)})"]
    lines += [f"({name} {value})" for name, value in more.items()]
    path.write_text("// of elastix\n" + "\n".join(lines) + "\n")
    return path


FORMATS = {
    "nrrd": displacement,
    "ITK .nii.gz": itk_image(".nii.gz"),
    "ITK .mha": itk_image(".mha"),
    "NIfTI displacements": ras_displacements,
    "NiftyReg positions": niftyreg(0),
    "NiftyReg displacements": niftyreg(1),
    "NiftyReg control points": niftyreg(2),
    "NiftyReg linear control points": niftyreg(6),
    "ITK .tfm": itk_transform(".tfm"),
    "ITK .h5": itk_transform(".h5"),
    "ANTs .mat": itk_transform(".mat"),
    "ITK composite": itk_composite,
    "greedy .mat": greedy_matrix,
    "elastix affine": elastix_affine,
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_mapping(make: Callable[[Path], Path], tmp_path: Path) -> None:
    mapping = read_deformation([make(tmp_path)])
    assert mapping.apply(POINTS) == pytest.approx(TRUE, abs=2e-3)
    assert mapping.covers(POINTS).all()


@pytest.mark.parametrize(
    ("kind", "transform"),
    [
        ("TranslationTransform", sitk.TranslationTransform(3, (1.0, -2.0, 3.0))),
        ("EulerTransform", sitk.Euler3DTransform((5.0, 6.0, 700.0), 0.1, -0.2, 0.3, (1.0, 2.0, -3.0))),
        (
            "SimilarityTransform",
            sitk.Similarity3DTransform(1.1, (0.1, -0.2, 0.3, 0.927362), (1.0, 2.0, 3.0), (4.0, 5.0, 600.0)),
        ),
    ],
)
def test_linear_transforms_of_elastix_are_those_of_itk(kind: str, transform: sitk.Transform, tmp_path: Path) -> None:
    centre = transform.GetFixedParameters()[:3] or None
    mapping = read_deformation([elastix(tmp_path / "t.txt", kind, transform.GetParameters(), centre)])
    assert mapping.apply(POINTS) == pytest.approx(
        np.array([transform.TransformPoint(p) for p in POINTS.tolist()]), abs=1e-6
    )


def test_euler_angles_in_the_other_order(tmp_path: Path) -> None:
    transform = sitk.Euler3DTransform((5.0, 6.0, 700.0), 0.1, -0.2, 0.3, (1.0, 2.0, -3.0))
    transform.SetComputeZYX(True)
    path = elastix(tmp_path / "t.txt", "EulerTransform", transform.GetParameters(), (5, 6, 700), ComputeZYX='"true"')
    found = read_deformation([path]).apply(POINTS)
    assert found == pytest.approx(np.array([transform.TransformPoint(p) for p in POINTS.tolist()]), abs=1e-6)


def bspline() -> sitk.BSplineTransform:
    image = GRID.to_image(np.zeros(GRID.shape, np.float32))
    transform = sitk.BSplineTransformInitializer(image, [5, 4, 6], order=3)
    transform.SetParameters(np.random.default_rng(5).normal(0, 6, len(transform.GetParameters())).tolist())
    return transform


def test_splines_of_itk_and_elastix(tmp_path: Path) -> None:
    transform = bspline()
    true = np.array([transform.TransformPoint(p) for p in POINTS.tolist()])
    sitk.WriteTransform(transform, str(tmp_path / "spline.h5"))
    control = Grid.of_image(transform.GetCoefficientImages()[0])
    more = {
        "GridSize": " ".join(map(str, control.size)),
        "GridSpacing": " ".join(map(repr, control.spacing_mm)),
        "GridOrigin": " ".join(map(repr, control.origin_mm)),
        "GridDirection": " ".join(map(repr, np.asarray(control.direction).T.ravel().tolist())),
        "BSplineTransformSplineOrder": "3",
    }
    elastix(tmp_path / "t.txt", "BSplineTransform", transform.GetParameters(), **more)
    for name in ("spline.h5", "t.txt"):
        mapping = read_deformation([tmp_path / name])
        assert mapping.apply(POINTS) == pytest.approx(true, abs=1e-5)
        assert mapping.covers(POINTS).all()
        assert not mapping.covers(np.array([[1e4, 0.0, 0.0]])).any()


@pytest.mark.parametrize("how", ["Compose", "Add"])
def test_initial_transforms_of_elastix(how: str, tmp_path: Path) -> None:
    elastix(tmp_path / "TransformParameters.0.txt", "AffineTransform", [*(2 * np.eye(3)).ravel(), 0, 0, 0], (0, 0, 0))
    more = {
        "InitialTransformParameterFileName": '"/gone/TransformParameters.0.txt"',
        "HowToCombineTransforms": f'"{how}"',
    }
    last = elastix(
        tmp_path / "TransformParameters.1.txt",
        "AffineTransform",
        [*(3 * np.eye(3)).ravel(), 1, 2, 3],
        (0, 0, 0),
        **more,
    )
    expected = 6 * POINTS + (1, 2, 3) if how == "Compose" else 4 * POINTS + (1, 2, 3)
    assert read_deformation([last]).apply(POINTS) == pytest.approx(expected)
    assert [source.name for source in read_given(last, GRID).sources] == [
        f"TransformParameters.{n}.txt" for n in (0, 1)
    ]


def test_files_act_in_their_order(tmp_path: Path) -> None:
    warped = DisplacementField(np.full((*GRID.shape, 3), 5.0, np.float32), GRID)
    write_displacement(tmp_path / "warp.nrrd", warped)
    mapping = read_deformation([tmp_path / "warp.nrrd", greedy_matrix(tmp_path)])
    assert mapping.apply(POINTS) == pytest.approx(apply_affine(MATRIX, POINTS + 5.0), abs=1e-3)


# -- what cannot be used ------------------------------------------------------------------------
TEXTS = {  # content of a file that cannot be used, and words of the error
    "empty.h5": ("", "an empty file"),
    "words.txt": ("a matrix of words", "not a readable transform file"),
    "mirror.mat": ("-1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "by -1 (left and right are exchanged)"),
    "nan.mat": ("nan " * 16, "not an affine matrix"),
    "field.png": ("x", "unknown file format"),
    "cut.nii.gz": ("x" * 20, "20 bytes"),
    "kind.txt": ('(Transform "SplineKernelTransform")', "SplineKernelTransform"),
    "minc.xfm": ("MNI Transform File\nTransform_Type = Linear;", "unknown file format"),
    "part.h5": ("x" * 90, "not a readable transform file, expected a file of HDF5"),
    "centre.txt": (
        '(Transform "EulerTransform")\n(TransformParameters 0 0 0 1 2 3)',
        "0 value(s) in CenterOfRotationPoint, expected 3 numbers",
    ),
    "twice.txt": ('(Transform "TranslationTransform")\n' + 2 * "(TransformParameters 1 2 3)\n", "twice"),
    "versor.txt": (
        '(Transform "SimilarityTransform")\n(CenterOfRotationPoint 0 0 0)\n(TransformParameters 1 1 0 1 2 3 1)',
        "a versor of length 1.41",
    ),
    "nothing.txt": (
        f'(Transform "AffineTransform")\n(CenterOfRotationPoint 0 0 0)\n(TransformParameters {12 * " 0"})',
        "a matrix that multiplies volumes by 0",
    ),
    "none.txt": ("(FixedImageDimension 3)", "names no Transform"),
    "few.txt": ('(Transform "EulerTransform")\n(TransformParameters 1 2)', "2 value(s) in TransformParameters"),
    "flat.txt": ('(Transform "EulerTransform")\n(FixedImageDimension 2)', "2-D images"),
    "alone.txt": (
        '(Transform "TranslationTransform")\n(TransformParameters 1 2 3)\n'
        '(InitialTransformParameterFileName "/x/first.txt")',
        "first.txt is missing",
    ),
    "loop.txt": (
        '(Transform "TranslationTransform")\n(TransformParameters 1 2 3)\n'
        '(InitialTransformParameterFileName "loop.txt")',
        "more than 16 initial",
    ),
}


def broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be used, and words of the error."""
    vectors = sampled(Linear(MATRIX), GRID).vectors_mm
    holes = vectors.copy()
    holes[3] = np.nan
    cases = {}
    for name, (text, words) in TEXTS.items():
        (folder / name).write_text(text)
        cases[name] = (folder / name, words)
    write_nrrd(folder / "scan.nrrd", vectors[..., 0].copy(), GRID)
    write_nrrd(folder / "two.nrrd", vectors[..., :2].copy(), GRID)
    write_nrrd(folder / "holes.nrrd", holes, GRID)
    write_nrrd(folder / "modeling.nrrd", vectors, GRID, metadata={"displacement field type": "modeling"})
    flat = nibabel.Nifti1Image(vectors.transpose(2, 1, 0, 3), LPS_TO_RAS @ GRID.affine)
    nibabel.save(flat, folder / "flat.nii.gz")
    velocity = nifti(folder / "velocity.nii.gz", vectors, GRID, kind=5)
    fnirt = nifti(folder / "fnirt.nii.gz", vectors, GRID, code=2006)
    labels = nifti(folder / "labels.nii.gz", vectors, GRID, code=1002)
    old = nibabel.load(nifti(folder / "new.nii.gz", vectors, GRID, kind=2))
    old.header["intent_name"] = "NREG_CPP_FILE"
    nibabel.save(old, folder / "old.nii.gz")
    unnamed = nifti(folder / "unnamed.nii.gz", vectors, GRID, code=0)
    write_nrrd(folder / "space.nrrd", vectors, GRID)
    content = (folder / "space.nrrd").read_bytes()
    in_ras = content.replace(b"left-posterior-sup", b"right-anterior-sup").replace(b"measurement", b"# measurement")
    (folder / "ras.nrrd").write_bytes(in_ras)
    (folder / "turned.nrrd").write_bytes(content.replace(b"frame: (1,0,0) (0,1,0)", b"frame: (0,1,0) (1,0,0)"))
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(folder / "plane.tfm"))
    one = itk_transform(".tfm")(folder).read_text()
    (folder / "two.tfm").write_text(one + one.partition("\n")[2].replace("#Transform 0", "#Transform 1"))
    sitk.WriteTransform(sitk.ScaleTransform(3, (1.0, 1.0, -1.0)), str(folder / "mirror.tfm"))
    composite = itk_composite(folder).read_bytes()
    (folder / "cut.h5").write_bytes(composite[: len(composite) // 2])
    matlab = itk_transform(".mat")(folder).read_bytes()
    (folder / "two.mat").write_bytes(2 * matlab)
    (folder / "cut.mat").write_bytes(matlab[:-30])
    (folder / "huge.mat").write_bytes(matlab[:4] + b"\xff\xff\xff\x7f" + matlab[8:])
    return cases | {
        "missing": (folder / "missing.nrrd", "no such file"),
        "folder": (folder, "not a file"),
        "scan": (folder / "scan.nrrd", "1 component(s)"),
        "two": (folder / "two.nrrd", "2 component(s)"),
        "holes": (folder / "holes.nrrd", "7.1 % of the vectors are not finite"),
        "modeling": (folder / "modeling.nrrd", "maps the prior to the current scan"),
        "flat": (folder / "flat.nii.gz", "4-dimensional image, which does not say"),
        "velocity": (velocity, "reg_transform -disp"),
        "fnirt": (fnirt, "FSL fnirt"),
        "labels": (labels, "intent code 1002"),
        "old": (folder / "old.nii.gz", "old NiftyReg (NREG_CPP_FILE); convert it with reg_transform"),
        "unnamed": (unnamed, "without intent code, which does not say"),
        "ras": (folder / "ras.nrrd", "vectors in the space right-anterior-superior"),
        "turned": (folder / "turned.nrrd", "vectors in a measurement frame (0,1,0) (1,0,0) (0,0,1)"),
        "two.tfm": (folder / "two.tfm", "2 transforms"),
        "mirror.tfm": (folder / "mirror.tfm", "by -1 (left and right are exchanged)"),
        "cut.h5": (folder / "cut.h5", "truncated"),
        "two.mat": (folder / "two.mat", "several transforms"),
        "cut.mat": (folder / "cut.mat", "truncated"),
        "huge.mat": (folder / "huge.mat", "truncated"),
        "plane": (folder / "plane.tfm", "2-D points"),
    }


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, (path, words) in broken(tmp_path).items():
        with pytest.raises(cmj.InputError) as caught:
            read_deformation([path])
        text = str(caught.value)
        assert words in text, name
        assert text.startswith(str(path)), name
        assert "\n" not in text, name


def test_a_chain_of_elastix_is_given_by_its_last_file(tmp_path: Path) -> None:
    first = elastix(tmp_path / "0.txt", "TranslationTransform", (1, 2, 3))
    with pytest.raises(cmj.InputError, match="give the last one only"):
        read_deformation([first, first])


@pytest.mark.parametrize(
    ("deformation", "words"),
    [
        (3, "found int"),
        ([], "expected one or more files"),
        (["a.nrrd", 3], "expected one or more files"),
        (np.zeros((2, 2, 2, 3)), r"found shape \(2, 2, 2, 3\)"),
        (np.zeros((*GRID.shape, 3), complex), "complex128"),
        (np.full((*GRID.shape, 3), np.inf), "not finite"),
        (sitk.Image(3, 3, 3, sitk.sitkFloat32), "1 component"),
        (sitk.TranslationTransform(2), "2-D points"),
    ],
)
def test_what_cannot_be_used_in_memory(deformation: object, words: str) -> None:
    with pytest.raises(cmj.InputError, match=f"^deformation: .*{words}"):
        read_given(deformation, GRID)  # type: ignore[arg-type]
