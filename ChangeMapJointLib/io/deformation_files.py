"""Deformations that other registration programs write.

All of them map points of the current scan (fixed, reference) to the prior (moving, template), as a transform with which
the prior is resampled. These kinds are read:

- displacement fields in mm: NRRD, MetaImage and NIfTI of ITK, ANTs, greedy, elastix, plastimatch and Slicer (LPS);
  NIfTI whose intent is a displacement (1006, RAS by the standard, as ITK reads it since 5.3), and of NiftyReg (RAS,
  displacements or positions, or a grid of B-spline control points);
- transforms of ITK, ANTs, Slicer and uniGradICON: ``.tfm``, ``.txt``, ``.h5``, ``.mat``, composites too;
- parameter files of elastix (``TransformParameters.1.txt``);
- 4 x 4 matrices as text, in RAS, of greedy, c3d and NiftyReg.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray, Grid
from ChangeMapJointLib.io.compact_field import read_vectors
from ChangeMapJointLib.io.data_files import read_header_bytes
from ChangeMapJointLib.io.elastix import looks_like_elastix, read_elastix
from ChangeMapJointLib.io.itk_transforms import HDF5, read_itk_transform
from ChangeMapJointLib.io.mappings import Chain, Dense, Mapping, Spline, checked_linear
from ChangeMapJointLib.io.nifti import Intent, read_intent
from ChangeMapJointLib.io.nrrd import frame_of_vectors
from ChangeMapJointLib.io.read import META, NIFTI, NRRD, read_array
from ChangeMapJointLib.io.sources import reason_of

MATRICES = (".mat", ".txt", ".tfm", *HDF5)
FORMATS = (
    "a displacement field (.nrrd, .nii.gz, .mha), an ITK transform (.tfm, .h5, .mat, .txt), "
    "TransformParameters.txt of elastix, or a 4 x 4 matrix"
)
NOT_A_FIELD = "give the displacement field, in mm, and not a scan or a map"
MATRIX_BYTES = 4096  # of a text with 16 numbers
# of NIfTI's intents
NO_INTENT, RAS_DISPLACEMENTS, VECTORS, FNIRT = 0, 1006, 1007, range(2006, 2010)
UNCLEAR = "which does not say whether it holds mm or voxels, LPS or RAS"
NIFTYREG, NIFTYREG_ANY = "NREG_TRANS", "NREG"  # versions before 1.5 used other names and other numbers
# NiftyReg's kinds of transforms, in intent_p1
POSITIONS, DISPLACEMENTS, CUBIC_SPLINE, LINEAR_SPLINE = 0, 1, 2, 6
NIFTYREG_DENSE = "convert it with reg_transform -disp"


def read_deformation(paths: Sequence[Path]) -> Mapping:
    """Read a deformation; see :func:`read_with_files`."""
    return read_with_files(paths)[0]


def read_with_files(paths: Sequence[Path]) -> tuple[Mapping, tuple[Path, ...]]:
    """Read a deformation from one file, or from several that act one after another.

    Args:
        paths: in the order in which the points of the current scan pass through them: the warp before the affine
            matrix, as for ``antsApplyTransforms -t`` and ``greedy -r``.

    Returns:
        The mapping of points (x, y, z in mm, LPS) of the current scan to the prior, and all files that it was read
        from: elastix names its initial transforms.

    Raises:
        InputError: a file is missing or damaged, or holds no deformation that is read here.
    """
    parts: list[Mapping] = []
    files: list[Path] = []
    elastix = 0
    for path in paths:
        try:
            if not path.exists():
                raise InputError("no such file", expected=FORMATS)
            if not path.is_file():
                raise InputError("not a file", expected=FORMATS)
            if path.stat().st_size == 0:
                raise InputError("an empty file", expected=FORMATS, remedy="export or copy it again")
            part, of_elastix = _read(path)
            elastix += bool(of_elastix)
            if elastix > 1:
                raise InputError("a second file of elastix", remedy="give the last one only, it names those before")
            parts.append(part)
            files += of_elastix or [path]
        except InputError as error:
            raise error.at(path) from error
        except (MemoryError, OSError) as error:
            raise InputError(f"cannot be read ({reason_of(error)})", field=path) from error
    return parts[0] if len(parts) == 1 else Chain(tuple(parts)), tuple(files)


def _read(path: Path) -> tuple[Mapping, tuple[Path, ...]]:
    """The mapping of one file; and of elastix all files that belong to it."""
    name = path.name.lower()
    if name.endswith(NIFTI):
        return _read_nifti(path), ()
    if name.endswith((*NRRD, *META)):
        if name.endswith(NRRD):
            _check_nrrd(path)
        return Dense(_field(path)), ()
    if not name.endswith(MATRICES):
        raise InputError("unknown file format", expected=FORMATS)
    with path.open("rb") as stream:
        start = stream.read(MATRIX_BYTES)
    if looks_like_elastix(start):
        return read_elastix(path)
    matrix = _ras_matrix(start) if path.stat().st_size <= MATRIX_BYTES else None
    return (read_itk_transform(path) if matrix is None else checked_linear(matrix)), ()


def _ras_matrix(content: bytes) -> FloatArray | None:
    """A matrix of 4 x 4 numbers in RAS, in LPS; None where the text is anything else.

    Raises:
        InputError: sixteen numbers that are no affine matrix.
    """
    try:
        numbers = np.array([float(word) for word in content.decode("ascii").split()])
    except ValueError:
        return None
    if numbers.size != 16:
        return None
    matrix = numbers.reshape(4, 4)
    if not (np.isfinite(matrix).all() and np.allclose(matrix[3], (0, 0, 0, 1))):
        raise InputError("4 x 4 numbers that are not an affine matrix", expected="a last row of 0 0 0 1")
    moved: FloatArray = LPS_TO_RAS @ matrix @ LPS_TO_RAS
    return moved


def _check_nrrd(path: Path) -> None:
    """Refuse a field of Slicer that moves points the other way, and vectors that programs read in different frames.

    Raises:
        InputError: it is one.
    """
    if re.search(rb"\ndisplacement field type:=\s*modeling", read_header_bytes(path)[:65536]):
        raise InputError(
            "a modeling field, which maps the prior to the current scan",
            expected="a resampling field",
            remedy="invert the transform in Slicer and save it again",
        )
    frame = frame_of_vectors(path)
    if frame:
        raise InputError(
            f"vectors in {frame}, which programs read as LPS or as RAS",
            expected="the space left-posterior-superior, as ITK and 3D Slicer write it",
            remedy="convert vectors and header to LPS",
        )


def _vectors(path: Path) -> tuple[np.ndarray, Grid]:  # type: ignore[type-arg]
    """Vectors ``[z, y, x, 3]`` as the file holds them, finite, and their grid."""
    array, grid = read_array(path)
    count = 1 if array.ndim == 3 else array.shape[-1]
    if count == 3 and path.name.lower().endswith(NRRD):
        array, grid = read_vectors(path)  # of a run: every second vector
    if count != 3:
        raise InputError(
            f"{count} component(s) per voxel", expected="three (x, y, z of a displacement)", remedy=NOT_A_FIELD
        )
    check_finite(array)
    return array, grid


def check_finite(vectors: np.ndarray) -> None:  # type: ignore[type-arg]
    """Check that all vectors ``[z, y, x, 3]`` are finite.

    Raises:
        InputError: some are not.
    """
    wrong = sum(int((~np.isfinite(plane).all(axis=-1)).sum()) for plane in vectors)
    if wrong:
        share = 100 * wrong / (vectors.size // 3)
        raise InputError(
            f"{float(f'{share:.2g}'):g} % of the vectors are not finite numbers",
            remedy="set them to 0, or export again",
        )


def _field(path: Path) -> DisplacementField:
    array, grid = _vectors(path)
    return DisplacementField(np.ascontiguousarray(array, dtype=np.float32), grid)


def _read_nifti(path: Path) -> Mapping:
    intent = read_intent(path)
    if len(intent.sizes) == 4 and intent.sizes[3] == 3:
        raise InputError(
            f"a 4-dimensional image, {UNCLEAR}",
            expected="a 5-dimensional image of vectors, as ITK, ANTs and greedy write",
            remedy="convert it to a displacement field in mm, for example with SimpleITK",
        )
    if intent.code in FNIRT:
        raise InputError("a field of FSL fnirt", expected=FORMATS, remedy="convert it to an ITK displacement field")
    if intent.name.startswith(NIFTYREG_ANY):
        return _read_niftyreg(path, intent)
    if intent.code == NO_INTENT and len(intent.sizes) == 5 and intent.sizes[4] == 3:
        raise InputError(
            f"a file without intent code, {UNCLEAR}",
            expected="1007 (vectors in mm, LPS, as ITK, ANTs and greedy write) or 1006 (displacements in mm, RAS)",
            remedy="set the intent code that is true of it",
        )
    if intent.code not in (NO_INTENT, RAS_DISPLACEMENTS, VECTORS):
        raise InputError(f"NIfTI intent code {intent.code}", expected="a vector (1007)", remedy=NOT_A_FIELD)
    field = _field(path)
    if intent.code == RAS_DISPLACEMENTS:
        field = replace(field, vectors_mm=field.vectors_mm * np.diag(LPS_TO_RAS)[:3].astype(np.float32))
    return Dense(field)


def _read_niftyreg(path: Path, intent: Intent) -> Mapping:
    """A field or a grid of control points of NiftyReg: in RAS, mostly positions instead of displacements."""
    if intent.name.strip() != NIFTYREG:
        raise InputError(f"a transform of an old NiftyReg ({intent.name[:20]})", remedy=NIFTYREG_DENSE)
    kind = int(intent.parameter) if np.isfinite(intent.parameter) else -1
    if kind not in (POSITIONS, DISPLACEMENTS, CUBIC_SPLINE, LINEAR_SPLINE):
        raise InputError(
            f"a transform of NiftyReg of kind {kind} (a velocity)", expected="a deformation", remedy=NIFTYREG_DENSE
        )
    if intent.extended and kind in (CUBIC_SPLINE, LINEAR_SPLINE):
        raise InputError("a symmetric control point grid of NiftyReg, with matrices", remedy=NIFTYREG_DENSE)
    array, grid = _vectors(path)
    vectors = np.array(array, dtype=np.float64) * np.diag(LPS_TO_RAS)[:3]
    if kind != DISPLACEMENTS:
        index = np.indices((1, *grid.shape[1:]))[::-1].reshape(3, -1).T.astype(float)
        for z in range(grid.shape[0]):  # slice by slice: positions of all voxels would need as much memory again
            index[:, 2] = z
            vectors[z] -= grid.to_physical(index).reshape(vectors[z].shape)
    if kind in (POSITIONS, DISPLACEMENTS):
        return Dense(DisplacementField(vectors.astype(np.float32), grid))
    return Spline(vectors, grid, 3 if kind == CUBIC_SPLINE else 1)
