"""The kind of a change, whether two changes are one displaced structure, and the remark for the reader."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from ChangeMapJointLib.change.kinds import Kind
from ChangeMapJointLib.change.lesion_pairs import Change, LesionPair
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.hu import METAL_HU
from ChangeMapJointLib.lesions.measure import LesionMeasure
from ChangeMapJointLib.registration.quality import LOW_TRUST

_LONG = 4.0  # elongation from which a region without a lesion is called vessel-like
_MOST_POINTS = 5000  # of a region, for distances
_SIMILAR = 3.0  # largest ratio of the volumes of a dipole's two sides


def classify_change(sign: int, pair: LesionPair, *, displaced: bool = False) -> Kind:
    """Determine the kind of a change; 'increase' or 'decrease' unless the change exceeds the measurement error.

    Args:
        sign: +1 for an increase, -1 for a decrease.
        pair: the lesion in the two scans.
        displaced: whether it is one side of a dipole, so that no lesion changed.
    """
    plain: Kind = "increase" if sign > 0 else "decrease"
    if displaced:
        return plain
    if pair.both is not None:
        _, low, high = pair.both[0].volume_change_since(pair.both[1])
        grown, shrunk = sign > 0 and low > 0, sign < 0 and high < 0
        return "grown" if grown else "shrunk" if shrunk else plain
    if pair.primary(sign) is None or not pair.other_empty:
        return plain
    return "new" if sign > 0 else "resolved"


def dipole_partners(changes: list[Change], grid: Grid, *, farthest_mm: float) -> dict[int, int]:
    """Pair increases and decreases that are probably one structure, which the registration left displaced.

    Either a lesion of the reference and one of the template are near each other and of equal size within the
    measurement error, or neither side is a lesion, and the regions are of similar size and at most half as far apart.

    Args:
        changes: all changes.
        grid: grid of the change map.
        farthest_mm: largest distance between the centres of the two lesions.

    Returns:
        From the index of a change to that of its partner, in both directions. Each change has at most one partner; the
        nearest pairs are formed first.
    """
    points = [c.region.points_mm(grid)[:: len(c.region.voxels) // _MOST_POINTS + 1] for c in changes]
    candidates = []
    for i, now in enumerate(changes):
        for j, before in enumerate(changes):
            if now.region.sign > 0 > before.region.sign:
                distance = _lesion_distance_mm(now, before, farthest_mm)
                if _without_lesions(now, before):
                    distance = _gap_mm(points[i], points[j], farthest_mm / 2)
                if distance is not None:
                    candidates.append((distance, i, j))
    partners: dict[int, int] = {}
    for _, i, j in sorted(candidates):
        if i not in partners and j not in partners:
            partners[i], partners[j] = j, i
    return partners


def _lesion_distance_mm(now: Change, before: Change, farthest_mm: float) -> float | None:
    """Distance between a lesion of the reference and one of the template that may be the same; otherwise None."""
    lesion, earlier = now.pair.reference, before.pair.template
    if lesion is None or earlier is None:
        return None
    if classify_change(1, now.pair) == "grown" or classify_change(-1, before.pair) == "shrunk":
        return None
    here = before.motion.to_reference(np.array([earlier.measure.centre_mm]))[0]
    distance = float(np.linalg.norm(here - lesion.measure.centre_mm))
    _, low, high = lesion.measure.volume_change_since(earlier.measure)
    return distance if distance <= farthest_mm and low <= 0 <= high else None


def _without_lesions(now: Change, before: Change) -> bool:
    """Whether two changes are of similar size and neither has a lesion behind it."""
    ratio = len(now.region.voxels) / len(before.region.voxels)
    return now.pair.reference is None and before.pair.template is None and 1 / _SIMILAR <= ratio <= _SIMILAR


def _gap_mm(a_mm: FloatArray, b_mm: FloatArray, farthest_mm: float) -> float | None:
    """Smallest distance between two sets of points; None beyond ``farthest_mm``."""
    between_boxes = np.maximum(a_mm.min(axis=0), b_mm.min(axis=0)) - np.minimum(a_mm.max(axis=0), b_mm.max(axis=0))
    if between_boxes.max() > farthest_mm:
        return None
    gap = float(np.min(KDTree(a_mm).query(b_mm, distance_upper_bound=farthest_mm)[0]))
    return gap if np.isfinite(gap) else None


def write_remark(kind: Kind, change: Change, *, elongation: float, partner: int | None, trust: float | None) -> str:
    """Write the remark on a finding for the reader, in a few sentences.

    Args:
        kind: the kind of the finding.
        change: its region and lesion.
        elongation: longest over shortest extent of the region.
        partner: id of the other side of a dipole; None where there is none.
        trust: trust in the registration there, 0 to 1; None where unknown.
    """
    if kind == "new":
        sentences = ["A lesion that the prior scan does not show."]
    elif kind == "resolved":
        sentences = ["A lesion of the prior scan that is gone."]
    elif change.pair.both is not None:
        sentences = [_size_sentence(kind, *change.pair.both)]
    else:
        sentences = [_plain_sentence(change, elongation)]
    lesion = change.pair.primary(change.region.sign)
    if lesion is not None and lesion.measure.mean_hu > METAL_HU:
        sentences.append("As dense as metal: probably an implant or a clip with its artefacts.")
    if partner is not None:
        sentences.append(
            f"Next to an opposite change of similar size (finding {partner}): probably one structure that the "
            "registration did not align."
        )
    if trust is not None and trust < LOW_TRUST:
        sentences.append("The registration is uncertain here.")
    return " ".join(sentences)


def _size_sentence(kind: Kind, now: LesionMeasure, before: LesionMeasure) -> str:
    """The remark on a lesion that is measured in both scans."""
    percent, low, high = now.volume_change_since(before)
    volumes = f"from {before.volume_ml:.2f} to {now.volume_ml:.2f} ml"
    size = f"{volumes} ({percent:+.0f} %, with measurement error {low:+.0f} to {high:+.0f} %)"
    if kind in {"grown", "shrunk"}:
        return f"{kind.capitalize()} {size}."
    return f"A lesion in both scans, {size}: a change in size is not proven."


def _plain_sentence(change: Change, elongation: float) -> str:
    """The remark on a change that is not new, grown, shrunk or resolved."""
    word = "Denser" if change.region.sign > 0 else "Less dense"
    if change.pair.primary(change.region.sign) is not None:
        return f"{word} than before; a lesion whose counterpart in the other scan cannot be told from its surroundings."
    if elongation >= _LONG:
        return f"{word} than before; long and thin, like a vessel or a rim that the registration did not match exactly."
    return f"{word} than before; no lesion could be segmented."
