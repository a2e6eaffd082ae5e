"""A list of findings against the truth: which lesions it names, by which kind, and how well it measures growth.

A finding belongs to a lesion when its centre lies within half the lesion's larger diameter of the lesion's centre, as
in LUNA16, or within 3 mm of it. Findings and lesions are matched one to one, so that as many lesions as possible have a
finding and the distances are smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ChangeMapJointLib.evaluation.known import KnownLesion
from ChangeMapJointLib.evaluation.lesion_table import TrueLesion
from ChangeMapJointLib.evaluation.outcome import Listed

LEAST_MM = 3.0
FAR = 1e9


@dataclass(frozen=True)
class Match:
    """A lesion, and the finding that names it; None where the list misses it."""

    lesion: TrueLesion
    finding: Listed | None

    @property
    def measured_percent(self) -> float | None:
        """The change of volume that the list states, in percent; None where it states none."""
        ratio = volume_ratio(self.finding)
        return None if ratio is None else 100.0 * (ratio - 1.0)


@dataclass(frozen=True)
class ListScore:
    """A list of one case.

    Attributes:
        changes: the true changes with their findings.
        stable: findings that name a stable lesion, by that lesion.
        false: findings that name nothing.
    """

    changes: tuple[Match, ...]
    stable: tuple[Match, ...]
    false: tuple[Listed, ...]


def volume_ratio(finding: Listed | None) -> float | None:
    """Volume now over volume before; None where the list does not have both."""
    if finding is None or not finding.reference_ml or not finding.template_ml:
        return None
    return finding.reference_ml / finding.template_ml


def doubling_days(ratio: float | None, days: float | None) -> float | None:
    """Volume doubling time: ``days / log2(ratio)``; None where nothing grew or the interval is not known.

    Examples:
        >>> doubling_days(4.0, 180.0)
        90.0
    """
    if ratio is None or days is None or ratio <= 1.0:
        return None
    return float(days / np.log2(ratio))


def score_list(findings: Sequence[Listed], lesions: Sequence[KnownLesion]) -> ListScore:
    """Match a list with the lesions of its case; lesions whose place is not known are left out."""
    placed = [known for known in lesions if known.placed and known.centre_mm is not None]
    partner: dict[int, Listed] = {}
    if placed and findings:
        centres = np.array([known.centre_mm for known in placed])
        distance = cdist(centres, np.array([finding.centre_mm for finding in findings]))
        reach = [max(k.lesion.diameter_reference_mm, k.lesion.diameter_template_mm) / 2 for k in placed]
        cost = np.where(distance <= np.maximum(reach, LEAST_MM)[:, None], distance, FAR)
        rows, columns = linear_sum_assignment(cost)
        partner = {r: findings[c] for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if cost[r, c] < FAR}
    matches = [Match(known.lesion, partner.get(row)) for row, known in enumerate(placed)]
    named = {id(finding) for finding in partner.values()}
    return ListScore(
        tuple(match for match in matches if match.lesion.is_change),
        tuple(match for match in matches if not match.lesion.is_change and match.finding is not None),
        tuple(finding for finding in findings if id(finding) not in named),
    )
