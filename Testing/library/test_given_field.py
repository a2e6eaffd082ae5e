"""Deformations of other programs: every format against its closed form, bad ones refused in one line, whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from job_samples import QUICK
from pair_samples import phantom
from phantoms import Sphere, chest_phantom, rotation
from test_cli import changemap

import ChangeMapJointLib as cmj
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison import steps
from ChangeMapJointLib.comparison.assess import warp_and_map
from ChangeMapJointLib.comparison.config import config_from
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.given import (
    GivenReport,
    PlacedDeformation,
    Source,
    how_computed,
    place_given,
    read_given,
)
from ChangeMapJointLib.comparison.given_check import look_for_a_better_reading
from ChangeMapJointLib.comparison.methods import register_given
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.comparison.swallowed import find_swallowed, sentence
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray, Grid, apply_affine
from ChangeMapJointLib.io.deformation_files import read_deformation
from ChangeMapJointLib.io.mappings import Dense, Linear, sampled
from ChangeMapJointLib.io.write import read_rigid, write_displacement, write_nrrd
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions
from ChangeMapJointLib.registration.quality import Figures, assess_quality, dice
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.rigid.any_size import align_any_size
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair

GRID = Grid((14, 12, 13), (8.0, 9.0, 10.0), (-40.0, -60.0, 500.0), rotation(10.0, -5.0, 20.0))
POINTS = GRID.to_physical(np.random.default_rng(3).uniform(3.0, 8.0, (60, 3)))
MATRIX = np.eye(4)
MATRIX[:3, :3] = np.asarray(rotation(3.0, -2.0, 4.0)) @ np.diag([1.03, 0.98, 1.05])
MATRIX[:3, 3] = (4.0, -7.0, 2.5)
TRUE = apply_affine(MATRIX, POINTS)


def positions(grid: Grid) -> FloatArray:
    return grid.to_physical(np.indices(grid.shape)[::-1].transpose(1, 2, 3, 0).astype(float))


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


def niftyreg(kind: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        there = apply_affine(MATRIX, positions(GRID))
        ras = (there - positions(GRID) if kind == 1 else there) * (-1, -1, 1)
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
    at = positions(shifted) - there
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
def broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be used, and words of the error."""
    vectors = sampled(Linear(MATRIX), GRID).vectors_mm
    holes = vectors.copy()
    holes[3] = np.nan
    texts = {
        "empty.h5": ("", "an empty file"),
        "words.txt": ("a matrix of words", "not a readable transform file"),
        "mirror.mat": ("-1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "no affine matrix"),
        "nan.mat": ("nan " * 16, "no affine matrix"),
        "field.png": ("x", "unknown file format"),
        "cut.nii.gz": ("x" * 20, "20 bytes"),
        "kind.txt": ('(Transform "SplineKernelTransform")', "SplineKernelTransform"),
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
    cases = {}
    for name, (text, words) in texts.items():
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
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(folder / "plane.tfm"))
    one = itk_transform(".tfm")(folder).read_text()
    (folder / "two.tfm").write_text(one + one.partition("\n")[2].replace("#Transform 0", "#Transform 1"))
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
        "two.tfm": (folder / "two.tfm", "2 transforms"),
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


# -- on a pair of scans ---------------------------------------------------------------------------
SHIFT_MM = np.array([9.0, -8.0, 6.0])
GOOD = Figures(20, 60, 0, 0.7, 1.3, 0.1, 0.99, 0.9, 0.5, 1.0, 0.5, 900, 100, 1.0, 99.0)


def stretched(points: FloatArray) -> FloatArray:
    """Y of the current scan."""
    return points + SHIFT_MM + 0.03 * points * (0, 0, 1)


@pytest.fixture(scope="module")
def scans() -> tuple[cmj.Scan, cmj.Scan]:
    """A chest with nodules that moved, and its lungs."""

    def back(points: FloatArray) -> FloatArray:
        return (points - SHIFT_MM) / (1, 1, 1.03)

    nodules = [Sphere((x, y, z), 6.0) for x in (-80, -45, 45, 85) for y in (-30, 25) for z in (-60, -25, 40, 60)]
    volumes = [
        chest_phantom(edge_mm=5.0, lesions=nodules, noise_hu=8.0),
        chest_phantom(edge_mm=5.0, lesions=nodules, noise_hu=8.0, seed=1, moved=back),
    ]
    lungs = chest_phantom(table=False).array < -600
    lungs &= np.abs(positions(volumes[0].grid)[..., 0]) < 125  # not the air round the body
    there = warp_back(lungs, volumes[0].grid)
    return cmj.Scan.of(volumes[0], lungs), cmj.Scan.of(volumes[1], there)


def warp_back(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """A mask of the current scan, moved to where the prior shows it."""
    at = positions(grid)
    return (
        warp(mask, grid, grid, DisplacementField(((at - SHIFT_MM) / (1, 1, 1.03) - at).astype(np.float32), grid)) >= 0.5
    )


@pytest.fixture(scope="module")
def pair(scans: tuple[cmj.Scan, cmj.Scan]) -> cmj.ScanPair:
    return cmj.ScanPair(*scans)


@pytest.fixture(scope="module")
def rigid(scans: tuple[cmj.Scan, cmj.Scan]) -> RigidAlignment:
    return align_any_size(*scans, options=RigidOptions(starts=1))


@pytest.fixture
def aligned(rigid: RigidAlignment, monkeypatch: pytest.MonkeyPatch) -> RigidAlignment:
    """The rigid stage has its result already: it takes longest, and is tested elsewhere."""
    monkeypatch.setattr(steps, "align_any_size", lambda *scans, **options: rigid)
    return rigid


def true_field(
    scans: tuple[cmj.Scan, cmj.Scan], y: Callable[[FloatArray], FloatArray] = stretched
) -> DisplacementField:
    at = positions(scans[0].grid)
    return DisplacementField((y(at) - at).astype(np.float32), scans[0].grid)


def test_the_right_reading_is_taken_in_silence(pair: cmj.ScanPair, scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    assert look_for_a_better_reading(Dense(true_field(scans)), pair) == ""
    assert look_for_a_better_reading(Linear(np.eye(4)), pair) == ""  # nothing is better than no registration


def test_wrong_readings_are_named(pair: cmj.ScanPair, scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    field = true_field(scans)
    there, spacing = positions(field.grid), np.asarray(field.grid.spacing_mm)
    backward = positions(scans[1].grid)
    inverse = (backward - SHIFT_MM) / (1, 1, 1.03) - backward
    wrong = {
        "mapping of the prior to the current": DisplacementField(inverse.astype(np.float32), scans[1].grid),
        "looks like RAS": replace(field, vectors_mm=field.vectors_mm * np.float32([-1, -1, 1])),
        "looks like voxels": replace(field, vectors_mm=(field.vectors_mm / spacing).astype(np.float32)),
        "looks like positions;": replace(field, vectors_mm=(field.vectors_mm + there).astype(np.float32)),
        "positions in RAS": replace(field, vectors_mm=((field.vectors_mm + there) * (-1, -1, 1)).astype(np.float32)),
    }
    for words, given in wrong.items():
        assert words in look_for_a_better_reading(Dense(given), pair)


def test_where_a_field_ends(pair: cmj.ScanPair, scans: tuple[cmj.Scan, cmj.Scan], rigid: RigidAlignment) -> None:
    field = true_field(scans)
    aligned = pair.aligned(rigid.matrix)

    def cropped(slices: int) -> DisplacementField:
        grid = field.grid.crop((slices, 0, 0), field.grid.shape)
        return DisplacementField(np.ascontiguousarray(field.vectors_mm[slices:]), grid)

    kept = place_given(read_given(field, field.grid), aligned, rigid)
    assert kept.field is field
    assert kept.notes == ()
    bottom = int(np.flatnonzero(scans[0].mask.any(axis=(1, 2)))[0])
    part = place_given(read_given(cropped(bottom + 4), field.grid), aligned, rigid)
    assert part.field.grid.same_as(field.grid)
    assert "covers 9" in part.notes[0]
    inside = positions(field.grid)[scans[0].mask]
    assert part.field.apply(inside)[:, :2] == pytest.approx(stretched(inside)[:, :2], abs=1e-3)
    with pytest.raises(cmj.InputError, match=r"deformation: covers \d\d% of the current scan's lungs, expected"):
        place_given(read_given(cropped(bottom + 15), field.grid), aligned, rigid)
    away = np.eye(4)
    away[:3, 3] = (500.0, 0.0, 0.0)
    with pytest.raises(cmj.InputError, match="takes 100% of the current scan's lungs out of the prior"):
        place_given(read_given(sitk.TranslationTransform(3, (500.0, 0.0, 0.0)), field.grid), aligned, rigid)


@pytest.fixture(scope="module")
def known() -> KnownPair:
    """A chest that breathed out, in which a lesion grew: its motion is known."""
    volume, lungs, _ = phantom((52.0, 66.0, 100.0))
    options = PairOptions(
        motion=MotionOptions(diaphragm_mm=12.0, ventral_mm=3.0, bump_mm=2.0),
        lesions=(LesionPlan("grown", 22.0, 13.0),),
        reference_spacing_mm=(2.5,) * 3,
        template_spacing_mm=(2.5,) * 3,
    )
    return make_pair(volume, lungs, seed=4, options=options)


def with_growth_deformed_away(pair: KnownPair) -> DisplacementField:
    """The true motion, but the lesion of now is mapped onto that of before."""
    true, change = pair.field(), pair.changes[0]
    now, before = 11.0, 6.5
    away = positions(true.grid) - np.array(change.centre_reference_mm)
    distance = np.linalg.norm(away, axis=-1, keepdims=True)
    far = 2.2 * now
    radius = np.where(distance > far, distance, np.interp(distance, (0.0, now, far), (0.0, before, far)))
    points = np.array(change.centre_reference_mm) + away * radius / np.maximum(distance, 1e-6)
    there = true.apply(points.reshape(-1, 3)).reshape(points.shape)
    return DisplacementField((there - positions(true.grid)).astype(np.float32), true.grid)


def test_growth_that_a_field_deforms_away_comes_back(known: KnownPair) -> None:
    """It is gone from the map with the field as given, which the verdict says, and back once it is refined."""
    lungs = known.lungs_reference, known.lungs_template
    pair = cmj.ScanPair.of(known.reference, known.template, *lungs)
    field = with_growth_deformed_away(known)
    options = RegistrationOptions(iterations=(12, 8, 5), working_mm=2.5, compiled=False)
    config, device = replace(config_from(QUICK), registration=options), DeviceFallback(torch.device("cpu"))
    placed = PlacedDeformation(field, (Source("warp.nii.gz"),), (), "")
    lesion, grids = known.lesions_template > 0, (known.template.grid, known.reference.grid)
    true = float(warp(lesion, *grids, known.field()).sum())
    grown = (known.lesions_reference > 0) & (warp(lesion, *grids, known.field()) < 0.5)
    shares, maps = {}, {}
    for refine in (False, True):
        stages = Stages(METHODS["sequential"].shares)
        output = register_given(pair, placed, config, device, stages, refine=refine)
        y = output.registration.field
        shares[refine] = float(warp(lesion, *grids, y).sum()) / true
        trust = np.ones(y.grid.shape, np.float32)
        maps[refine] = float(warp_and_map(pair, output, trust, device)[1].change_map[grown].mean())
        assert output.given is not None
        assert len(output.given.swallowed) == 1
        place = output.given.swallowed[0]
        assert place.centre_mm == pytest.approx(known.changes[0].centre_reference_mm, abs=3.0)
        assert place.factor < 0.5
        judged = output.given.on_verdict(assess_quality(GOOD))
        assert judged.verdict == ("good" if refine else "look closely")
        assert ("hides it from the map" in judged.reasons[0]) is not refine
    assert shares[False] > 2.5
    assert shares[True] < 1.3
    assert maps[True] > 2 * maps[False]


def test_breathing_swallows_nothing(known: KnownPair) -> None:
    assert find_swallowed(known.field(), known.lungs_reference, known.reference.grid) == ()
    assert sentence((), refined=False) == ""


@pytest.mark.usefixtures("aligned")
def test_a_field_given_the_wrong_way_round_must_not_be_used(scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    at = positions(scans[0].grid)
    inverse = ((at - SHIFT_MM) / (1, 1, 1.03) - at).astype(np.float32)
    result = cmj.compare(*scans, config=QUICK, device="cpu", deformation=inverse)
    assert result.quality.verdict == "do not use"
    assert "give its inverse" in result.quality.reasons[0]
    assert result.findings is not None
    assert not result.findings.items


# -- the command ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(scans: tuple[cmj.Scan, cmj.Scan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    (folder / "quick.json").write_text(json.dumps(QUICK))
    for name, scan in zip(("now", "before"), scans, strict=True):
        write_nrrd(folder / f"{name}.nrrd", scan.array, scan.grid)
    sitk.WriteImage(scans[0].grid.to_image(true_field(scans).vectors_mm), str(folder / "1Warp.nii.gz"))
    return folder


def run(files: Path, out: Path, *more: object) -> int:
    inputs = ["--reference", files / "now.nrrd", "--template", files / "before.nrrd", "--out", out]
    return changemap("run", *inputs, "--config", files / "quick.json", "--progress", "none", *more)


@pytest.mark.usefixtures("aligned")
def test_run_with_a_field(files: Path, scans: tuple[cmj.Scan, cmj.Scan], tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(files, out, "--field", files / "1Warp.nii.gz") == 0
    printed = capsys.readouterr().out
    assert "The deformation was given (1Warp.nii.gz) and used as it is." in printed
    saved = cmj.load_result(out)
    source = saved.record["deformation"]["sources"][0]
    assert source["name"] == "1Warp.nii.gz"
    assert len(source["sha256"]) == 64
    assert saved.record["deformation"]["refined"] is False
    assert saved.record["registration"]["levels"] == []
    assert saved.deformation.field.vectors_mm == pytest.approx(true_field(scans).vectors_mm, abs=0.005)
    report = (out / "report.html").read_text("utf-8")
    assert "The deformation of another program was given (1Warp.nii.gz)" in report
    assert source["sha256"] in report
    assert "variational registration" not in report
    warped = saved.deformation.warp(scans[1].mask, labels=True)
    assert dice(warped, scans[0].mask) > 0.9  # the prior shows 92 % of the lungs
    given = read_given(files / "1Warp.nii.gz", scans[0].grid)
    assert given.sources[0].sha256 == source["sha256"]
    assert read_rigid(out / "rigid.tfm")[:3, 3] == pytest.approx(SHIFT_MM, abs=3.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--refine"], "--refine: there is nothing to refine; give --field"),
        (["--field", "1Warp.nii.gz", "--method", "joint"], "--method joint: expected sequential"),
        (["--field", "1Warp.nii.gz", "--method", "rigid"], "--method rigid: expected sequential"),
        (["--field", "now.nrrd"], "now.nrrd: 1 component(s) per voxel"),
        (["--field", "none.nrrd"], "none.nrrd: no such file"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], words: str, files: Path, tmp_path: Path, capsys) -> None:
    given = [files / word if word.startswith(("1", "n")) else word for word in options]
    assert run(files, tmp_path / "out", *given) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_result_may_not_replace_the_given_field(files: Path, tmp_path: Path, capsys) -> None:
    assert run(files, files, "--field", files / "1Warp.nii.gz", "--overwrite") == 2
    assert "contains the input" in capsys.readouterr().err


def test_the_report_says_how_the_map_is_computed(scans: tuple[cmj.Scan, cmj.Scan]) -> None:
    given = read_given(sitk.Euler3DTransform(), scans[0].grid)
    assert given.sources[0].name == "SimpleITK transform"
    deformation = cmj.Deformation(true_field(scans), scans[0].grid, scans[1].grid)
    assert read_given(deformation, scans[0].grid).sources[0].sha256 is None
    text = how_computed(GivenReport(given.sources, refined=True, keypoint_error_mm=None, folding_percent=0.0))
    assert "went on from it. The map is the difference" in text
    assert text.endswith(".")
    assert "pipeline" not in text
