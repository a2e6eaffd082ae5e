"""Transform parameter files of elastix (``TransformParameters.0.txt``).

Format: https://elastix.dev, manual, "Transform parameter file". The transforms map points of the fixed image (the
current scan) to the moving image (the prior), in mm, LPS.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.mappings import Added, Chain, Mapping, Spline, checked_linear
from ChangeMapJointLib.io.placing import LARGEST_MM

MOST_BYTES = 2**30
MOST_FILES = 16  # initial transforms of initial transforms
TEXT_AGAIN = "copy the file again, or give the field that transformix -def all writes"
LINEAR = {"TranslationTransform": 3, "EulerTransform": 6, "SimilarityTransform": 7, "AffineTransform": 12}
SPLINES = ("BSplineTransform", "RecursiveBSplineTransform")


class Parameters(dict[str, list[str]]):
    """Values by name."""

    def word(self, name: str, default: str = "") -> str:
        """Return the first value, or ``default``."""
        return (self.get(name) or [default])[0]

    def numbers(self, name: str, count: int, default: FloatArray | None = None) -> FloatArray:
        """Return exactly ``count`` finite numbers, none too large for a length.

        Raises:
            InputError: they are missing, or others were found.
        """
        if name not in self and default is not None:
            return default
        words = self.get(name, [])
        try:
            numbers = np.array([float(word) for word in words])
        except ValueError:
            numbers = np.array([np.nan])
        if len(words) != count or not (np.abs(numbers) < LARGEST_MM).all():
            raise InputError(f"{len(words)} value(s) in {name}", expected=f"{count} numbers", remedy=TEXT_AGAIN)
        return numbers


def looks_like_elastix(start: bytes) -> bool:
    """Return whether a file that begins with ``start`` is a parameter file of elastix."""
    return bool(re.match(rb"(?:\s|//[^\n]*\n)*\(\s*\w+\s", start))


def read_elastix(path: Path) -> tuple[Mapping, tuple[Path, ...]]:
    """Read a transform parameter file, and the initial transforms that it names.

    Those are looked for beside the file first, since they are named by the path at which elastix wrote them.

    Returns:
        The mapping, and all files that it was read from, in the order in which points pass through them.

    Raises:
        InputError: a file is missing or damaged, or of a kind that is not read here.
    """
    chain = [(path, _parsed(path))]
    while (initial := _initial_path(*chain[0])) is not None:
        if len(chain) > MOST_FILES:
            raise InputError(f"names more than {MOST_FILES} initial transforms", remedy=TEXT_AGAIN)
        chain.insert(0, (initial, _parsed(initial)))
    mapping = _mapping(chain[0][1])
    for _, values in chain[1:]:
        own = _mapping(values)
        add = values.word("HowToCombineTransforms", "Compose") == "Add"
        mapping = Added(mapping, own) if add else Chain((mapping, own))
    return mapping, tuple(file for file, _ in chain)


def _initial_path(path: Path, values: Parameters) -> Path | None:
    """Where the initial transform is that the file at ``path`` names; None where it names none.

    Raises:
        InputError: it is missing.
    """
    named = values.word("InitialTransformParameterFileName") or values.word("InitialTransformParametersFileName")
    if named in ("", "NoInitialTransform"):
        return None
    places = (path.parent / Path(named.replace("\\", "/")).name, Path(named))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"its initial transform {places[0].name} is missing", remedy="put it into the same folder")
    return found


def _parsed(path: Path) -> Parameters:
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path.stat().st_size} bytes", expected=f"at most {MOST_BYTES}", remedy=TEXT_AGAIN)
    values = Parameters()
    for line in path.read_text("utf-8", "replace").splitlines():
        entry = re.match(r'\s*\(\s*(\w+)\s+(.*)\)\s*(?://[^"]*)?$', line)
        if entry and entry[1] in values:  # elastix refuses it, too
            raise InputError(f"gives {entry[1][:60]} twice", remedy=TEXT_AGAIN)
        if entry:
            values[entry[1]] = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', entry[2])]
    if "Transform" not in values:
        raise InputError("not a transform parameter file of elastix (it names no Transform)", remedy=TEXT_AGAIN)
    if values.word("FixedImageDimension", "3") != "3" or values.word("MovingImageDimension", "3") != "3":
        raise InputError(f"a transform of {values.word('FixedImageDimension')[:9]}-D images", expected="of 3-D images")
    return values


def _mapping(values: Parameters) -> Mapping:
    kind = values.word("Transform")
    if values.word("UseBinaryFormatForTransformationParameters", "false") == "true":
        raise InputError("its parameters are in a binary file", expected="parameters as text", remedy=TEXT_AGAIN)
    if values.word("UseDirectionCosines", "true") == "false":
        raise InputError("UseDirectionCosines is false: positions are not those of the scans", remedy=TEXT_AGAIN)
    if kind in SPLINES:
        return _spline(values)
    if kind not in LINEAR:
        known = ", ".join((*LINEAR, *SPLINES))
        raise InputError(f"a transform of type {kind[:60]}", expected=f"one of {known}", remedy=TEXT_AGAIN)
    return checked_linear(_matrix(kind, values.numbers("TransformParameters", LINEAR[kind]), values))


def _matrix(kind: str, numbers: FloatArray, values: Parameters) -> FloatArray:
    """The 4x4 matrix of a linear transform, which acts about its centre."""
    # without it elastix reads no transform, either: older versions gave a voxel instead
    centre = np.zeros(3) if kind == "TranslationTransform" else values.numbers("CenterOfRotationPoint", 3)
    turn, shift = np.eye(3), numbers[-3:]
    if kind == "EulerTransform":
        x, y, z = numbers[:3]
        order, angles = ("ZYX", (z, y, x)) if values.word("ComputeZYX") == "true" else ("ZXY", (z, x, y))
        turn = Rotation.from_euler(order, angles).as_matrix()
    elif kind == "SimilarityTransform":
        shift = numbers[3:6]
        square = float(numbers[:3] @ numbers[:3])
        if square > 1.0 + 1e-6:
            raise InputError(f"a versor of length {square**0.5:.3g} in TransformParameters", expected="at most 1")
        rest = np.sqrt(max(0.0, 1.0 - square))
        turn = numbers[6] * Rotation.from_quat([*numbers[:3], rest]).as_matrix()
    elif kind == "AffineTransform":
        turn = numbers[:9].reshape(3, 3)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, centre + shift - turn @ centre
    return matrix


def _spline(values: Parameters) -> Spline:
    size, spacing = values.numbers("GridSize", 3).astype(int), values.numbers("GridSpacing", 3)
    order = int(values.numbers("BSplineTransformSplineOrder", 1, np.array([3.0]))[0])
    if size.min() < 2 or np.prod(size, dtype=float) > MOST_BYTES or spacing.min() <= 0 or not 1 <= order <= 3:
        raise InputError(
            f"a grid of {tuple(size.tolist())} control points and order {order}", expected="a B-spline of order 1 to 3"
        )
    if values.word("UseCyclicTransform", "false") == "true":
        raise InputError("a cyclic B-spline", expected="one of 3-D images", remedy=TEXT_AGAIN)
    direction = values.numbers("GridDirection", 9, np.eye(3).ravel()).reshape(3, 3).T  # written column by column
    first = values.numbers("GridIndex", 3, np.zeros(3))
    x, y, z = (values.numbers("GridOrigin", 3) + direction @ (spacing * first)).tolist()
    count = int(np.prod(size))
    numbers = values.numbers("TransformParameters", 3 * count).reshape(3, *size[::-1])
    (a, b, c), (d, e, f), (g, h, i) = direction.tolist()
    nx, ny, nz = size.tolist()
    try:
        grid = Grid((nz, ny, nx), tuple(spacing.tolist()), (x, y, z), ((a, b, c), (d, e, f), (g, h, i)))
    except ValueError as error:
        raise InputError("GridDirection is not a rotation", remedy=TEXT_AGAIN) from error
    return Spline(np.ascontiguousarray(np.moveaxis(numbers, 0, -1)), grid, order)
