"""The judge: how probable it is that a lesion really changed, and what explains a change where none did."""

from __future__ import annotations

from ChangeMapJointLib.change.judgement import Judgement
from ChangeMapJointLib.change.lesion_pairs import Change
from ChangeMapJointLib.change.naming import classify_change
from ChangeMapJointLib.change.sections import OperatingPoint, Reason
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.lesions.segment import elongation
from ChangeMapJointLib.registration.quality import LOW_TRUST

LISTED_FROM: dict[OperatingPoint, float] = {"sensitive": 0.25, "standard": 0.5, "specific": 0.8}
_LONG = 3.0  # elongation of a rim or a vessel
_RIM = 0.35  # share of a region in the rim that only one mask holds


def judge_change(
    change: Change,
    grid: Grid,
    *,
    rim_share: float,
    trust: float | None,
    displaced: bool,
    operating_point: OperatingPoint,
) -> Judgement:
    """Judge one change.

    Args:
        change: its region and the lesion behind it.
        grid: grid of the change map.
        rim_share: share of the region where only one of the two lung masks has lung.
        trust: mean trust in the registration over the region; None where unknown.
        displaced: whether an opposite change of the same size lies beside it.
        operating_point: how probable a finding must be.
    """
    kind = classify_change(change.region.sign, change.pair)
    lesion = change.pair.primary(change.region.sign)
    shape = elongation(change.region.points_mm(grid), min(grid.spacing_mm))
    proven = kind not in ("increase", "decrease")
    probability = 0.85 if proven else 0.2 if lesion is not None else 0.1
    reason: Reason | None = None
    if displaced:
        probability, reason = 0.5 * probability, "displaced"
    elif shape >= _LONG and not proven:
        reason = "wall" if rim_share > 0 else "vessel"
    elif rim_share >= _RIM and not proven:
        reason = "wall"
    elif trust is not None and trust < LOW_TRUST:
        probability *= 0.5
        reason = None if proven else "registration"
    if probability >= LISTED_FROM[operating_point]:
        return Judgement(probability, "finding")
    if reason is not None:
        return Judgement(probability, "explained", reason)
    if change.pair.both is not None and lesion is not None and lesion.nodule.compact:
        return Judgement(probability, "stable")
    return Judgement(probability, "possible")
