"""Transforms of ITK: of files (``.tfm``, ``.h5``, ``.mat``, ``.txt``) and of SimpleITK.

They map points of the fixed image (the current scan) to the moving image (the prior), in mm, LPS. ANTs, Slicer,
uniGradICON and BRAINS write such files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.mappings import Chain, Dense, Linear, Mapping, Spline

if TYPE_CHECKING:
    import SimpleITK as sitk

KINDS = "a linear, B-spline or displacement field transform, or a composite of these"
NEEDS = "install the Python package SimpleITK, which reads ITK transform files, or give a displacement field"


def read_itk_transform(path: Path) -> Mapping:
    """Read an ITK transform file.

    Raises:
        InputError: it is damaged, not of 3-D points, or of a kind that is not read here.
    """
    try:
        import SimpleITK as sitk
    except ModuleNotFoundError as error:
        raise InputError("SimpleITK is not installed", remedy=NEEDS) from error
    try:
        transform = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter from a message that quotes the file
        raise InputError(
            "not a readable transform file", expected="a file of ITK, or 4 x 4 numbers", remedy="export it again"
        ) from error
    return mapping_of(transform)


def mapping_of(transform: sitk.Transform) -> Mapping:
    """Convert a SimpleITK transform.

    Raises:
        InputError: it is not of 3-D points, or of a kind that is not converted here.
    """
    if transform.GetDimension() != 3:
        raise InputError(f"a transform of {transform.GetDimension()}-D points", expected="of 3-D points")
    typed: Any = transform.Downcast()
    name = typed.GetName()
    if name == "CompositeTransform":  # the last of its transforms acts first
        parts = [mapping_of(typed.GetNthTransform(n)) for n in reversed(range(typed.GetNumberOfTransforms()))]
        return Chain(tuple(parts))
    if typed.IsLinear():
        return Linear(_matrix(typed))
    if name == "DisplacementFieldTransform":
        return Dense(field_of(typed.GetDisplacementField()))
    if name == "BSplineTransform" and typed.GetOrder() > 0:
        return _spline(typed)
    raise InputError(f"a transform of type {name}", expected=KINDS, remedy="convert it to a displacement field")


def field_of(image: sitk.Image) -> DisplacementField:
    """Convert an image of three-vectors in mm, LPS.

    Raises:
        InputError: it has another number of dimensions or components.
    """
    import SimpleITK as sitk

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
        layout = f"{image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} component(s)"
        raise InputError(f"found {layout}", expected="3 dimensions and 3 components (x, y, z in mm)")
    vectors = np.ascontiguousarray(sitk.GetArrayViewFromImage(image), dtype=np.float32)
    if np.shares_memory(vectors, sitk.GetArrayViewFromImage(image)):
        vectors = vectors.copy()  # the image may be changed or freed
    return DisplacementField(vectors, _grid(image))


def _grid(image: sitk.Image) -> Grid:
    try:
        return Grid.of_image(image)
    except ValueError as error:
        raise InputError("axes that are not perpendicular", remedy="resample it to a straight grid") from error


def _matrix(transform: sitk.Transform) -> FloatArray:
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis, unit in enumerate(np.eye(3).tolist()):
        matrix[:3, axis] = np.array(transform.TransformPoint(unit)) - origin
    if not np.isfinite(matrix).all():
        raise InputError("numbers that are not finite", expected="a matrix", remedy="export it again")
    return matrix


def _spline(transform: sitk.BSplineTransform) -> Spline:
    import SimpleITK as sitk

    images = transform.GetCoefficientImages()
    coefficients = np.stack([sitk.GetArrayFromImage(image) for image in images], -1)
    return Spline(coefficients, _grid(images[0]), int(transform.GetOrder()))
