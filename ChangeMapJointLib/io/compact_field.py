"""Displacement fields on every second voxel, from which a cubic spline gives the others back.

A registration is smooth: an eighth of its vectors is enough. The file stays a displacement field in mm on a regular
grid, which other programs interpolate linearly; the keys ``changemap sizes`` and ``changemap steps`` of its header say
of which grid it holds every second voxel, and :func:`read_vectors` restores that grid: to :data:`EXACT_MM` in lungs,
and to :data:`OUTSIDE_MM` elsewhere, where a registration ends with a bend at the box that it worked on.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid, Shape3
from ChangeMapJointLib.io.nrrd import read_nrrd_keys
from ChangeMapJointLib.io.read import NRRD, read_array

EXACT_MM = 0.02  # longest difference of a vector that is given back; 0.005 on whole chests
OUTSIDE_MM = 0.25  # likewise outside the lungs
STEP_MM = 1 / 256  # to which vectors are rounded, so that they can be compressed
SHORTEST = 8  # voxels along an axis that is thinned
SIZES, STEPS = "changemap sizes", "changemap steps"
Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CompactField:
    """Every second vector of a field.

    Attributes:
        vectors_mm: float32 ``[z, y, x, 3]`` on :attr:`grid`.
        grid: covers the whole field's grid; its last voxels may lie one voxel outside.
        shape: of the whole field, (z, y, x).
        steps: voxels of the whole field per voxel of this one, along (z, y, x): 2, or 1 where an axis is short.
    """

    vectors_mm: Vectors
    grid: Grid
    shape: Shape3
    steps: Shape3

    @property
    def keys(self) -> dict[str, str]:
        """The keys and values of the header, in the order (x, y, z) of NRRD."""
        sizes, steps = (" ".join(str(n) for n in numbers[::-1]) for numbers in (self.shape, self.steps))
        return {SIZES: sizes, STEPS: steps}


def compact(vectors_mm: Vectors, grid: Grid, lungs: NDArray[np.bool_] | None = None) -> CompactField | None:
    """Return every second vector of a field, or None if the others do not follow from these.

    Args:
        vectors_mm: float32 ``[z, y, x, 3]`` on ``grid``.
        grid: of the field.
        lungs: bool ``[z, y, x]`` on ``grid``, where vectors must be given back to :data:`EXACT_MM`; everywhere by
            default.

    Examples:
        >>> z, y, x = np.indices((9, 8, 12), dtype=np.float32)
        >>> bent = np.stack([x * x / 50, z + y, 0 * x], -1)
        >>> compact(bent, Grid((9, 8, 12))).grid.shape
        (5, 5, 7)
        >>> compact(np.random.default_rng(0).normal(size=(9, 8, 12, 3)).astype(np.float32), Grid((9, 8, 12))) is None
        True
    """
    steps = tuple(2 if n >= SHORTEST else 1 for n in grid.shape)
    if steps == (1, 1, 1) or not np.isfinite(vectors_mm).all():
        return None
    thin = vectors_mm
    for axis, step in enumerate(steps):
        if step == 2:
            thin = _every_second(thin, axis)
    thin = (np.rint(thin / STEP_MM) * STEP_MM).astype(np.float32)
    x, y, z = (h * step for h, step in zip(grid.spacing_mm, steps[::-1], strict=True))
    thin_grid = Grid(thin.shape[:3], (x, y, z), grid.origin_mm, grid.direction)
    result = CompactField(thin, thin_grid, grid.shape, steps)  # type: ignore[arg-type]
    restored = _restored(thin, grid.shape, steps)  # type: ignore[arg-type]
    for z, (found, expected) in enumerate(zip(restored, vectors_mm, strict=True)):
        squared = np.square(found - expected).sum(-1)
        exact = squared if lungs is None else squared[lungs[z]]
        if squared.max() > OUTSIDE_MM**2 or exact.max(initial=0.0) > EXACT_MM**2:
            return None
    return result


def as_stored(vectors_mm: Vectors, grid: Grid, lungs: NDArray[np.bool_]) -> Vectors:
    """Return a field as :func:`read_vectors` gives it back after it was stored; the same where it is stored whole."""
    part = compact(vectors_mm, grid, lungs)
    return vectors_mm if part is None else _restored(part.vectors_mm, part.shape, part.steps)


def is_compact(path: Path) -> bool:
    """Return whether a file holds every second vector of a field."""
    return SIZES in read_nrrd_keys(path)


def read_vectors(path: str | PathLike[str]) -> tuple[Vectors, Grid]:
    """Read a displacement field in mm, LPS, whole also where the file holds every second vector.

    Returns:
        float32 ``[z, y, x, 3]`` and its grid.

    Raises:
        InputError: the file cannot be read, or is not a volume of three-vectors.
    """
    file = Path(path)
    array, grid = read_array(file)
    if array.ndim != 4 or array.shape[-1] != 3:
        raise InputError(f"shape {array.shape}", field=file, expected="a displacement field of three-vectors")
    vectors = np.ascontiguousarray(array, dtype=np.float32)
    keys = read_nrrd_keys(file) if file.name.lower().endswith(NRRD) else {}
    if SIZES not in keys:
        return vectors, grid
    shape, steps = (_numbers(keys.get(name, "")) for name in (SIZES, STEPS))
    if shape is None or steps is None or not set(steps) <= {1, 2} or _thin_shape(shape, steps) != grid.shape:
        raise InputError(
            f"'{SIZES}' and '{STEPS}' do not belong to {' x '.join(map(str, grid.size))} voxels",
            field=file,
            expected="a field as a run writes it",
            remedy="remove these two lines from its header, or run the comparison again",
        )
    x, y, z = (h / step for h, step in zip(grid.spacing_mm, steps[::-1], strict=True))
    return _restored(vectors, shape, steps), Grid(shape, (x, y, z), grid.origin_mm, grid.direction)


def _numbers(text: str) -> Shape3 | None:
    """Three whole numbers, turned to (z, y, x); None where there are others."""
    words = text.split()
    if len(words) != 3 or not all(word.isdecimal() and len(word) < 6 for word in words):
        return None
    x, y, z = map(int, words)
    return z, y, x


def _thin_shape(shape: Shape3, steps: Shape3) -> Shape3:
    z, y, x = (n if step == 1 else n // 2 + 1 for n, step in zip(shape, steps, strict=True))
    return z, y, x


def _every_second(vectors: Vectors, axis: int) -> Vectors:
    """Every second vector along an axis; where the last one would be left out, one that continues the curve."""
    moved = np.moveaxis(vectors, axis, 0)
    kept = moved[::2]
    if len(moved) % 2 == 0:
        kept = np.concatenate([kept, (3 * moved[-1] - 3 * moved[-2] + moved[-3])[None]])
    return np.moveaxis(kept, 0, axis)


def _restored(vectors: Vectors, shape: Shape3, steps: Shape3) -> Vectors:
    """The whole field, by a spline along each axis in turn."""
    z, y, x = (_weights(n, step) for n, step in zip(shape, steps, strict=True))
    flat = z @ vectors.reshape(len(vectors), -1)  # [z, thin y * thin x * 3]
    rows = np.matmul(y, flat.reshape(shape[0], vectors.shape[1], -1))  # [z, y, thin x * 3]
    whole: Vectors = np.empty((*shape, 3), dtype=np.float32)
    for plane, row in zip(whole, rows.reshape(shape[0], shape[1], vectors.shape[2], 3), strict=True):
        np.matmul(x, row, out=plane)
    return whole


def _weights(count: int, step: int) -> NDArray[np.float32]:
    """The weights of the vectors in the file for ``count`` voxels along an axis."""
    if step == 1:
        return np.eye(count, dtype=np.float32)
    from scipy.interpolate import make_interp_spline  # here: it takes a while, and most readers need none

    places = np.arange(0, count + 1, 2)
    spline = make_interp_spline(places, np.eye(len(places)), k=3)
    return np.asarray(spline(np.arange(count)), dtype=np.float32)
