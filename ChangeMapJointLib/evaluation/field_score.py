"""One deformation against what is known: landmarks, folding, lungs, and whether it deforms change away."""

from __future__ import annotations

from collections.abc import Mapping as Table
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.displacement import jacobian_determinant, warp
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.resample import index_points, sample_array
from ChangeMapJointLib.evaluation.known import KnownCase, KnownLesion, Mask
from ChangeMapJointLib.evaluation.outline import moved_outline
from ChangeMapJointLib.io.mappings import Dense, Mapping, sampled
from ChangeMapJointLib.registration.quality import dice

WORST = 0.3  # share of the landmarks whose mean is given beside the mean of all
FIELD_MM = 2.0  # voxels on which a transform that is no dense field is sampled
SLAB = 16  # slices whose Jacobian is computed at once, which bounds the memory
FINE_MM = 1.0  # largest voxels in which the volume of a moved lesion is counted


@dataclass(frozen=True, eq=False)
class FieldScore:
    """What was measured of one deformation; None where there is nothing to measure it with.

    Attributes:
        tre_mm: error at every landmark, ``[n]``; empty without landmarks.
        tre_before_mm: their distance without any registration, ``[n]``.
        folding_percent: of the voxels in the lungs, or of all without a mask, with det grad y <= 0.
        sd_log_jacobian: standard deviation of the logarithm of det grad y there, where it is above 0.
        lung_dice: overlap of the lungs of R with those of T(y).
        preserved: |L^T(y)| / |L^T| of every lesion in the prior, by its id; 1: its size is kept. Where the lung
            breathed out, it lies below 1 for any smooth y.
        preserved_of_true: |L^T(y)| over the same for the true y, by its id; empty where that is not known.
        trust: the method's trust at every landmark, ``[n]``; empty where it gives none.
    """

    tre_mm: FloatArray
    tre_before_mm: FloatArray
    folding_percent: float | None
    sd_log_jacobian: float | None
    lung_dice: float | None
    preserved: Table[int, float] = field(default_factory=dict)
    preserved_of_true: Table[int, float] = field(default_factory=dict)
    trust: FloatArray = field(default_factory=lambda: np.zeros(0))


def score_field(
    mapping: Mapping, known: KnownCase, lungs: tuple[Mask, Mask] | None, trust: tuple[NDArray[np.float32], Grid] | None
) -> FieldScore:
    """Score one deformation.

    Args:
        mapping: y, from points of the current scan to the prior.
        known: the truth of the case.
        lungs: of the current scan and the prior; None where there are no masks.
        trust: in [0, 1], ``[z, y, x]`` with its grid; None where the method gives none.
    """
    errors: FloatArray = np.zeros(0)
    before: FloatArray = np.zeros(0)
    believed: FloatArray = np.zeros(0)
    if known.points is not None:
        reference, template = known.points
        errors = np.linalg.norm(mapping.apply(reference) - template, axis=1)
        before = np.linalg.norm(reference - template, axis=1)
        if trust is not None:
            believed = sample_array(*trust, reference).astype(float)
    folding, spread = _folding(mapping, lungs[0] if lungs else known.lungs_reference)
    preserved = {
        lesion.lesion.id: ratio for lesion in known.lesions if (ratio := kept_volume(lesion, mapping)) is not None
    }
    of_true = {}
    if known.mapping is not None:
        for lesion in known.lesions:
            truly = kept_volume(lesion, known.mapping)
            if truly:
                of_true[lesion.lesion.id] = preserved[lesion.lesion.id] / truly
    overlap = None if lungs is None else _lung_dice(mapping, *lungs)
    return FieldScore(errors, before, folding, spread, overlap, preserved, of_true, believed)


def kept_volume(known: KnownLesion, mapping: Mapping) -> float | None:
    """|L^T(y)| / |L^T| of a lesion: below 1 y shrinks it, above 1 y swells it; None where it is not in the prior.

    A registration that makes a grown lesion of the prior as large as it is now deforms the growth away.
    """
    outline = known.template
    if outline is None:
        return None
    volumes = []
    spacing = min(FINE_MM, outline.radius_mm / 6)
    for each in (moved_outline(outline, mapping), outline):
        reach = each.radius_mm + spacing
        size = 2 * int(np.ceil(reach / spacing)) + 1
        corner = np.asarray(each.centre_mm) - spacing * (size - 1) / 2
        grid = Grid((size, size, size), (spacing,) * 3, tuple(corner.tolist()))
        volumes.append(
            sum(
                int(
                    each.inside(
                        index_points(grid, grid.affine, slice(z, z + SLAB)).reshape(-1, 3).double().numpy()
                    ).sum()
                )
                for z in range(0, size, SLAB)
            )
        )
    return volumes[0] / volumes[1] if volumes[1] else None


def worst_mean(errors: FloatArray) -> float | None:
    """Mean of the worst 30 % of the errors; None without any.

    Examples:
        >>> worst_mean(np.arange(10.0))
        8.0
    """
    if not len(errors):
        return None
    return float(np.sort(errors)[-max(1, round(WORST * len(errors))) :].mean())


def _folding(mapping: Mapping, lungs: Mask | None) -> tuple[float | None, float | None]:
    """Folded voxels in percent, and the spread of the logarithm of the Jacobian."""
    if isinstance(mapping, Dense):
        dense = mapping.field
    elif lungs is not None:
        dense = sampled(mapping, lungs.grid.with_spacing((FIELD_MM,) * 3))
    else:
        return None, None
    grid, folded, inside, logs = dense.grid, 0, 0, []
    vectors = torch.as_tensor(dense.vectors_mm)
    depth = grid.shape[0]
    for z in range(0, depth, SLAB):
        low, high = max(z - 1, 0), min(z + SLAB + 1, depth)
        part = grid.crop((low, 0, 0), (high, *grid.shape[1:]))
        own = slice(z - low, min(z + SLAB, depth) - low)
        det = jacobian_determinant(vectors[low:high], part).numpy()[own]
        if lungs is not None:
            det = det[_on(lungs, part.crop((own.start, 0, 0), (own.stop, *grid.shape[1:])))]
        folded, inside = folded + int((det <= 0).sum()), inside + det.size
        logs.append(np.log(det[det > 0]).astype(np.float32).ravel())
    every = np.concatenate(logs)
    return (100 * folded / inside if inside else None), (float(every.std(dtype=float)) if every.size else None)


def _on(mask: Mask, grid: Grid) -> NDArray[np.bool_]:
    """A mask at the voxels of another grid, by nearest neighbour."""
    if mask.grid.same_as(grid):
        return mask.array
    index = np.rint(index_points(grid, mask.grid.inverse_affine @ grid.affine).numpy()).astype(np.intp)
    within = ((index >= 0) & (index < mask.grid.size)).all(axis=-1)
    found = np.zeros(grid.shape, dtype=bool)
    i, j, k = index[within].T
    found[within] = mask.array[k, j, i]
    return found


def _lung_dice(mapping: Mapping, reference: Mask, template: Mask) -> float:
    """Dice of the lungs of R with those of T(y)."""
    dense = (
        mapping.field if isinstance(mapping, Dense) else sampled(mapping, reference.grid.with_spacing((FIELD_MM,) * 3))
    )
    moved = warp(template.array, template.grid, reference.grid, dense)
    return dice(reference.array, moved >= 0.5)
