"""What the judge says about one change."""

from __future__ import annotations

from dataclasses import dataclass

from ChangeMapJointLib.change.sections import Reason, Section


@dataclass(frozen=True)
class Judgement:
    """The answer of the judge.

    Attributes:
        probability: that a lesion really changed, 0 to 1.
        section: where the change is listed.
        reason: what explains it; None where nothing does.
    """

    probability: float
    section: Section
    reason: Reason | None = None
