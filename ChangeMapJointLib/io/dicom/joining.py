"""Joins acquisitions of one series at different table positions, such as upper and lower chest, that overlap in part.

They are joined only where they agree in the overlap: between two breath-holds, the same height of the table may show
another part of the patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.io.dicom.headers import Frame
from ChangeMapJointLib.io.dicom.pixels import read_plane
from ChangeMapJointLib.io.dicom.spacing import SAME_POSITION_MM, SAME_STEP_FRACTION
from ChangeMapJointLib.io.dicom.stacks import Stack, build_joined_stack

MOST_SHARED = 0.5  # of the shorter one; those that share more are phases, or every other slice
COMPARED = 7  # slices of each overlap
BLOCK_MM = 5.0  # means over blocks of this size are free of noise
LEAST_TISSUE_HU = -500.0  # two blocks of lung or of air tell nothing of the position
DIFFERENT_HU = 100.0  # two blocks that differ by more show different tissue
# Parts of 13 scans in slices of 2.5 to 12.5 mm, with noise: none differ in step; half a slice out of step, up to 0.21
# times as many as between neighbouring slices. Phases of one breath in slices of 6 mm: 5 to 17 %, or 0.25 times as many
# and more. What is allowed in step leaves room for the beating heart.
MOST_DIFFERENT = 0.035
OF_NEIGHBOURS = 0.24  # of the share that differs between neighbouring slices, for stacks half a slice out of step


def join_stacks(stacks: Sequence[Stack]) -> Stack | str:
    """Join stacks that continue each other and overlap in part.

    Args:
        stacks: of one series, with the same pixels and directions, in any order.

    Returns:
        One stack with a note; or why they were not joined; or an empty string where they do not continue each other.

    Raises:
        InputError: pixel data cannot be read.
    """
    if len(stacks) < 2 or any(stack.shear_mm != (0.0, 0.0) or stack.grid_positions is not None for stack in stacks):
        return ""
    step_mm = stacks[0].grid.spacing_mm[2]
    if any(abs(stack.grid.spacing_mm[2] - step_mm) > SAME_STEP_FRACTION * step_mm for stack in stacks):
        return ""
    normal = np.asarray(stacks[0].grid.direction)[:, 2]
    ordered = sorted(((_along(stack, normal), stack) for stack in stacks), key=lambda item: float(item[0][0]))
    texts = [f"{along[0]:.0f} to {along[-1]:.0f} mm" for along, _ in ordered]
    frames, last_mm = list(ordered[0][1].frames), ordered[0][0]
    for (before_mm, before), (after_mm, after) in pairwise(ordered):
        shared_mm = before_mm[-1] - after_mm[0]
        if not (before_mm[0] < after_mm[0] <= before_mm[-1] < after_mm[-1]):
            return ""
        if shared_mm > MOST_SHARED * min(np.ptp(before_mm), np.ptp(after_mm)):
            return ""
        agree = _agree(before, before_mm, after, after_mm)
        if not agree:
            why = "too little to be compared" if agree is None else "but differ there: the patient moved or breathed"
            return f"{len(stacks)} acquisitions ({', '.join(texts)}) overlap, {why}"
        middle_mm = (after_mm[0] + before_mm[-1]) / 2
        frames = [frame for frame, mm in zip(frames, last_mm, strict=True) if mm <= middle_mm]
        last_mm = last_mm[last_mm <= middle_mm]
        kept = after_mm > last_mm[-1] + step_mm / 2
        frames += [frame for frame, keep in zip(after.frames, kept, strict=True) if keep]
        last_mm = np.concatenate([last_mm, after_mm[kept]])
    note = (
        f"{len(stacks)} acquisitions of the series ({', '.join(texts)}) overlap and agree there; they were joined in "
        "the middle of the overlap."
    )
    return _joined(frames, step_mm, note, f"{len(stacks)} acquisitions ({', '.join(texts)})")


def _joined(frames: Sequence[Frame], step_mm: float, note: str, acquisitions: str) -> Stack | str:
    """Return one stack; or why there is none: then each acquisition can still be chosen."""
    try:
        return build_joined_stack(frames, step_mm, note)
    except InputError:
        return f"{acquisitions} overlap, but are shifted sideways"


def _along(stack: Stack, normal: FloatArray) -> FloatArray:
    """Return the positions of the frames along the normal in mm, ascending."""
    return np.array([frame.position_mm for frame in stack.frames], dtype=float) @ normal


def _agree(before: Stack, before_mm: FloatArray, after: Stack, after_mm: FloatArray) -> bool | None:
    """Return whether two stacks show the same in their overlap, by the share of blocks of tissue that differ.

    None where nothing can be compared.

    Both are interpolated to the middle between a slice of one and the nearest slice of the other, so that both are
    equally blurred: else blur would look like motion. Stacks in step are not interpolated, and have to agree better.
    """
    descending_mm = before_mm[::-1]  # of two as near, the one further into the overlap
    nearest_mm = descending_mm[np.abs(descending_mm[:, None] - after_mm).argmin(axis=0)]
    middles_mm = (nearest_mm + after_mm) / 2
    seen = (after_mm <= before_mm[-1] + SAME_POSITION_MM) & (middles_mm >= after_mm[0] - SAME_POSITION_MM)
    shared = np.flatnonzero(seen)
    if not shared.size:
        return None
    block = max(1, round(BLOCK_MM / min(before.grid.spacing_mm[:2])))
    step_mm = after_mm[1] - after_mm[0]
    counts, neighbours, blurred = np.zeros(2), np.zeros(2), 0.0  # different blocks, all blocks
    for number in np.unique(np.linspace(0, len(shared) - 1, COMPARED).round().astype(int)):
        k = int(shared[number])
        middle_mm = float(middles_mm[k])
        one, other = (
            _block_means(_interpolated(stack.frames, along_mm, middle_mm), block)
            for stack, along_mm in ((before, before_mm), (after, after_mm))
        )
        counts += _different(one, other)
        here, above = (_block_means(read_plane(frame), block) for frame in after.frames[k : k + 2])
        neighbours += _different(here, above)
        blurred = max(blurred, _blur(abs(middle_mm - after_mm[k]) / step_mm))
    limit = max(MOST_DIFFERENT * counts[1], OF_NEIGHBOURS * blurred * neighbours[0])
    return bool(counts[1] > 0 and counts[0] <= limit)


def _blur(share: float) -> float:
    """Return the blur of an interpolation at ``share`` of the way to the next slice: 1 at a quarter, the most here."""
    return share * (1 - share) / (0.25 * 0.75)


def _different(one: FloatArray, other: FloatArray) -> tuple[int, int]:
    """Return how many blocks of tissue differ, and how many there are."""
    tissue = np.maximum(one, other) > LEAST_TISSUE_HU
    return int((np.abs(one - other)[tissue] > DIFFERENT_HU).sum()), int(tissue.sum())


def _interpolated(frames: Sequence[Frame], along_mm: FloatArray, mm: float) -> NDArray[np.float32]:
    """Return the slice at a position, interpolated linearly between two frames, HU ``[y, x]``."""
    above = min(max(int(np.searchsorted(along_mm, mm)), 1), len(along_mm) - 1)
    share = float(np.clip((mm - along_mm[above - 1]) / (along_mm[above] - along_mm[above - 1]), 0.0, 1.0))
    if share in (0.0, 1.0):
        return read_plane(frames[above - 1 if share == 0.0 else above])
    low, high = read_plane(frames[above - 1]), read_plane(frames[above])
    return ((1 - share) * low + share * high).astype(np.float32)


def _block_means(plane: NDArray[np.float32], block: int) -> FloatArray:
    ny, nx = (n // block for n in plane.shape)
    blocks = plane[: ny * block, : nx * block].astype(np.float64).reshape(ny, block, nx, block)
    means: FloatArray = blocks.mean(axis=(1, 3))
    return means
