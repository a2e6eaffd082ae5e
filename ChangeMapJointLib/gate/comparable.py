"""What lungs and alignment say of a pair: orientation, coverage, breathing, noise, contrast agent, conditions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray, apply_affine
from ChangeMapJointLib.gate.anatomy import ChestView, chest_view, orientation
from ChangeMapJointLib.gate.conditions import condition_reasons
from ChangeMapJointLib.gate.rules import BY_NAME, GateReason, reason
from ChangeMapJointLib.gate.scan_figures import blood_hu, noise_hu
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.volume import Volume

NAMES = ("Reference", "Template")
POINTS = 20_000  # of each half of a lung
QUIET_HU = 25.0  # two scans with less noise are alike, whatever its ratio
LEAST_ML = 20.0  # smaller halves of lungs are not worth a word
Scans = tuple[Volume, Volume]
Pair = tuple[Lungs, Lungs]


def lung_reasons(scans: Scans, lungs: Pair) -> Iterator[GateReason | None]:
    """What the anatomy of each scan says, and how the two differ in it.

    Args:
        scans: reference and template.
        lungs: theirs.
    """
    views: list[ChestView | None] = []
    for volume, found, name in zip(scans, lungs, NAMES, strict=True):
        view = chest_view(volume, found)
        views.append(view)
        if view is None:
            continue
        turned = orientation(view)
        yield reason("head_feet", turned.head_feet, scan=name)
        yield reason("front_back", turned.front_back, scan=name)
        if turned.left_right is not None:
            yield reason("left_right", turned.left_right, scan=name)
        yield from condition_reasons(volume, found, view, turned, name)
    if views[0] is None or views[1] is None:
        return
    blood = [blood_hu(view) for view in (views[0], views[1])]
    if blood[0] is not None and blood[1] is not None:
        yield reason("blood_hu", abs(blood[0] - blood[1]), new=f"{blood[0]:.0f}", old=f"{blood[1]:.0f}")
    noise = [noise_hu(volume, found) for volume, found in zip(scans, lungs, strict=True)]
    for value, name in zip(noise, NAMES, strict=True):
        if value is not None:
            yield reason("noise_hu", value, scan=name, hu=f"{value:.0f}")
    if noise[0] is not None and noise[1] is not None and max(noise[0], noise[1]) > QUIET_HU:
        ratio = max(noise[0], noise[1]) / max(min(noise[0], noise[1]), 1.0)
        yield reason("noise_ratio", ratio, new=f"{noise[0]:.0f}", old=f"{noise[1]:.0f}")


def coverage_reasons(scans: Scans, lungs: Pair, matrix: FloatArray) -> Iterator[GateReason | None]:
    """Which parts of the lungs only one scan saw, and whether the lungs are as full where both did.

    Args:
        scans: reference and template.
        lungs: theirs.
        matrix: 4x4, reference points to template points in mm.
    """
    seen_ml = []
    both = (matrix, np.asarray(np.linalg.inv(matrix), dtype=float))
    shares = [covered_fractions(found, other, way) for found, other, way in zip(lungs, scans[::-1], both, strict=True)]
    # nothing at all in common is the alignment's to refuse: it knows both overlaps
    for share, name, other in zip(shares, NAMES, NAMES[::-1], strict=True):
        lacking = {part: 100 * seen for part, (seen, ml) in share.items() if ml >= LEAST_ML}
        lacking = {part: seen for part, seen in lacking.items() if BY_NAME["coverage"].answer(seen) != "fine"}
        if lacking:
            parts = ", ".join(f"{seen:.0f} % of the {part}" for part, seen in lacking.items())
            yield reason("coverage", min(lacking.values()), parts=parts, whose=name.lower(), other=other.lower())
        seen_ml.append(sum(seen * ml for seen, ml in share.values()))
    if min(seen_ml) > LEAST_ML:
        liters = {"new": f"{seen_ml[0] / 1000:.1f}", "old": f"{seen_ml[1] / 1000:.1f}"}
        yield reason("breathing", max(seen_ml) / min(seen_ml), **liters)


def covered_fractions(lungs: Lungs, other: Volume, matrix: FloatArray) -> dict[str, tuple[float, float]]:
    """By part, as in "right lung's upper half": the share, in [0, 1], that the other scan saw, and the part's ml.

    Args:
        lungs: of one scan.
        other: the other scan.
        matrix: 4x4, points of the one to points of the other in mm.
    """
    found: dict[str, tuple[float, float]] = {}
    view, grid = lungs.grid.lps_view(lungs.labels)
    for side, name in ((RIGHT, "right lung"), (LEFT, "left lung")):
        mask = view == side
        heights = np.flatnonzero(mask.any(axis=(1, 2)))
        if heights.size == 0:
            continue
        middle = (int(heights[0]) + int(heights[-1]) + 1) // 2
        for half, part in (("upper", slice(middle, None)), ("lower", slice(0, middle))):
            index = np.argwhere(mask[part])
            ml = len(index) * grid.voxel_volume_ml
            index = index[:: max(1, len(index) // POINTS)]
            index[:, 0] += part.start or 0
            points = apply_affine(matrix, grid.to_physical(index[:, ::-1]))
            found[f"{name}'s {half} half"] = (float(_seen(other, points).mean()) if len(index) else 0.0, ml)
    return found


def _seen(volume: Volume, points_mm: FloatArray) -> NDArray[np.bool_]:
    """For points ``[n, 3]``: inside the scan, and measured there?"""
    index = np.rint(volume.grid.to_index(points_mm)).astype(int)[:, ::-1]
    found: NDArray[np.bool_] = np.asarray(((index >= 0) & (index < volume.grid.shape)).all(axis=1))
    if volume.unseen is not None:
        found[found] = ~volume.unseen[tuple(index[found].T)]
    return found
