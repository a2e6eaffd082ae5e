"""What the chest wall side of a lung tells: it is convex, so a dent in it is a nodule, a mass or a plaque."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, label_slices

_DIRECTIONS = 32  # a hull of so many half-planes is too wide by 0.5 % of the lung's radius
_ON_HULL = 0.8  # share of a dent's mouth that lies on the hull of the thorax
_LEAST_ML = 0.1


def axial_hull(mask: Mask) -> Mask:
    """The convex hull of ``mask`` in each axial slice."""
    _, y, x = np.ogrid[tuple(slice(n) for n in mask.shape)]
    hull = mask.any(axis=(1, 2), keepdims=True) & np.ones(mask.shape, dtype=bool)
    for angle in np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS):
        along = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
        hull &= along <= np.where(mask, along, -np.inf).max(axis=(1, 2), keepdims=True)
    return hull


def thorax_hull(lungs: Mask, body: Mask) -> Mask:
    """The convex hull of both lungs and of the middle of the body in each axial slice that has lung.

    With the middle in it, no side of this hull looks at heart, liver or spleen.

    Args:
        lungs: both lungs, closed, ``[z, y, x]``.
        body: the patient with all hollows filled.
    """
    slices = np.flatnonzero(lungs.any(axis=(1, 2)) & body.any(axis=(1, 2)))
    voxels = body[slices].sum(axis=(1, 2))
    rows = (body[slices].sum(axis=2) * np.arange(body.shape[1])).sum(axis=1) // voxels
    columns = (body[slices].sum(axis=1) * np.arange(body.shape[2])).sum(axis=1) // voxels
    with_middle = lungs.copy()
    with_middle[slices, rows, columns] = True
    return axial_hull(with_middle)


def costal_dents(lung: Mask, thorax: Mask, spacing_mm: float) -> Mask:
    """Tissue in the dents of one lung that open towards the chest wall.

    In an axial slice the pieces between a lung and its convex hull are its concave sides: the large one
    towards heart, spine or diaphragm, and dents in the side towards the ribs. The mouth of a dent lies
    on the hull of the thorax.

    Args:
        lung: one lung, closed, ``[z, y, x]``.
        thorax: :func:`thorax_hull`.
        spacing_mm: of the arrays.
    """
    hull = axial_hull(lung)
    pieces, count = label_slices(hull & ~lung)
    mouth = np.where(ndimage.binary_erosion(hull, _plane(1), border_value=1), 0, pieces).ravel()
    on_thorax = ~ndimage.binary_erosion(thorax, _plane(2), border_value=1).ravel()
    voxels = np.maximum(np.bincount(mouth, minlength=count + 1), 1)
    costal = np.bincount(mouth, weights=on_thorax, minlength=count + 1) / voxels > _ON_HULL
    costal[0] = False
    dents, _ = ndimage.label(costal[pieces])
    large = np.bincount(dents.ravel()) * spacing_mm**3 / 1000 >= _LEAST_ML
    large[0] = False
    return large[dents]


def _plane(radius: int) -> Mask:
    """A square of 2 ``radius`` + 1 voxels within one slice."""
    return np.ones((1, 2 * radius + 1, 2 * radius + 1), dtype=bool)
