"""Checks of a pair by its lungs and alignment: orientation, coverage, breathing, noise, contrast agent, conditions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray, apply_affine
from ChangeMapJointLib.gate.anatomy import ChestView, chest_view, orientation
from ChangeMapJointLib.gate.answer import SCANS, GateReason, reason
from ChangeMapJointLib.gate.conditions import condition_reasons
from ChangeMapJointLib.gate.rules import BY_NAME
from ChangeMapJointLib.gate.scan_figures import blood_hu, noise_hu
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.volume import Volume

NAMES = ("Reference", "Template")
POINTS = 20_000  # sampled in each half of a lung
QUIET_HU = 25.0  # below this noise in both scans, its ratio does not matter
LEAST_ML = 20.0  # smaller halves of lungs are ignored
Scans = tuple[Volume, Volume]
Pair = tuple[Lungs, Lungs]


def lung_reasons(scans: Scans, lungs: Pair) -> Iterator[GateReason | None]:
    """Check orientation and conditions of each scan, and how the two differ in contrast agent and noise.

    Args:
        scans: reference and template.
        lungs: of reference and template.
    """
    views: list[ChestView | None] = []
    for volume, scan_lungs, name in zip(scans, lungs, NAMES, strict=True):
        view = chest_view(volume, scan_lungs)
        views.append(view)
        if view is None:
            continue
        agreement = orientation(view)
        yield reason("head_feet", agreement.head_feet, scan=name)
        yield reason("front_back", agreement.front_back, scan=name)
        if agreement.left_right is not None:
            yield reason("left_right", agreement.left_right, scan=name)
        yield from condition_reasons(volume, scan_lungs, view, agreement, name)
    if views[0] is None or views[1] is None:
        return
    blood = [blood_hu(view) for view in (views[0], views[1])]
    if blood[0] is not None and blood[1] is not None:
        yield reason("blood_hu", abs(blood[0] - blood[1]), current=f"{blood[0]:.0f}", prior=f"{blood[1]:.0f}")
    noise = [noise_hu(volume, scan_lungs) for volume, scan_lungs in zip(scans, lungs, strict=True)]
    for value, name in zip(noise, NAMES, strict=True):
        if value is not None:
            yield reason("noise_hu", value, scan=name, hu=f"{value:.0f}")
    if noise[0] is not None and noise[1] is not None and max(noise[0], noise[1]) > QUIET_HU:
        ratio = max(noise[0], noise[1]) / max(min(noise[0], noise[1]), 1.0)
        yield reason("noise_ratio", ratio, current=f"{noise[0]:.0f}", prior=f"{noise[1]:.0f}")


def coverage_reasons(scans: Scans, lungs: Pair, rigid: FloatArray) -> Iterator[GateReason | None]:
    """Check which parts of the lungs only one scan covers, and whether inspiration is the same where both do.

    Args:
        scans: reference and template.
        lungs: of reference and template.
        rigid: 4x4, reference points to template points in mm.
    """
    seen_ml = []
    matrices = (rigid, np.asarray(np.linalg.inv(rigid), dtype=float))
    coverages = [covered_fractions(*parts) for parts in zip(lungs, scans[::-1], matrices, strict=True)]
    # scans without any overlap are refused by the alignment, which knows both overlaps
    for coverage, name, other in zip(coverages, NAMES, NAMES[::-1], strict=True):
        percent = {part: 100 * fraction for part, (fraction, ml) in coverage.items() if ml >= LEAST_ML}
        percent = {part: value for part, value in percent.items() if BY_NAME["coverage"].answer(value) != "fine"}
        if percent:
            parts = ", ".join(f"{value:.0f} % of the {part}" for part, value in percent.items())
            yield reason(
                "coverage", min(percent.values()), parts=parts, whose=SCANS[name].lower(), other=SCANS[other].lower()
            )
        seen_ml.append(sum(fraction * ml for fraction, ml in coverage.values()))
    if min(seen_ml) > LEAST_ML:
        liters = {"current": f"{seen_ml[0] / 1000:.1f}", "prior": f"{seen_ml[1] / 1000:.1f}"}
        yield reason("breathing", max(seen_ml) / min(seen_ml), **liters)


def covered_fractions(lungs: Lungs, other: Volume, matrix: FloatArray) -> dict[str, tuple[float, float]]:
    """Measure which fraction of each half of each lung lies in the field of view of another scan.

    Args:
        lungs: of one scan.
        other: the other scan.
        matrix: 4x4, points of the first scan to points of the other in mm.

    Returns:
        By part, such as "right lung's upper half": the covered fraction in [0, 1], and the volume of the part in ml.
    """
    fractions: dict[str, tuple[float, float]] = {}
    view, grid = lungs.grid.lps_view(lungs.labels)
    for side, name in ((RIGHT, "right lung"), (LEFT, "left lung")):
        mask = view == side
        heights = np.flatnonzero(mask.any(axis=(1, 2)))
        if heights.size == 0:
            continue
        middle = (int(heights[0]) + int(heights[-1]) + 1) // 2
        for half, part in (("upper", slice(middle, None)), ("lower", slice(0, middle))):
            flat = np.flatnonzero(mask[part])
            ml = len(flat) * grid.voxel_volume_ml
            flat = flat[:: max(1, len(flat) // POINTS)]
            index = np.stack(np.unravel_index(flat, mask[part].shape), axis=1)
            index[:, 0] += part.start or 0
            points_mm = apply_affine(matrix, grid.to_physical(index[:, ::-1]))
            fractions[f"{name}'s {half} half"] = (
                float(_measured_at(other, points_mm).mean()) if len(index) else 0.0,
                ml,
            )
    return fractions


def _measured_at(volume: Volume, points_mm: FloatArray) -> NDArray[np.bool_]:
    """Return whether points ``[n, 3]`` in mm lie inside the scan and were measured, bool ``[n]``."""
    index = np.rint(volume.grid.to_index(points_mm)).astype(int)[:, ::-1]
    measured: NDArray[np.bool_] = np.asarray(((index >= 0) & (index < volume.grid.shape)).all(axis=1))
    if volume.unseen is not None:
        measured[measured] = ~volume.unseen[tuple(index[measured].T)]
    return measured
