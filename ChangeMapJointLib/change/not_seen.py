"""What a comparison cannot see, in words and numbers, whether or not anything was found.

The limits follow from the noise of these two scans and from what a candidate must reach
(:class:`~ChangeMapJointLib.change.candidates.CandidateOptions`); they hold in well-registered lung. What is above a
limit may still be missed, see ``docs/validation.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ChangeMapJointLib.change.candidates import CandidateOptions
from ChangeMapJointLib.change.evidence import WIDE, ChangeEvidence
from ChangeMapJointLib.change.sections import NOTHING_SEEN
from ChangeMapJointLib.core.blur import voxel_variance_mm2
from ChangeMapJointLib.lesions.growth import REPEAT_SCAN_UPPER, voxel_error
from ChangeMapJointLib.lesions.segment import NoduleOptions

NotSeenKey = Literal["ground_glass", "small", "growth", "outside", "distrusted", "not_lung", "unusable"]

SOLID_CONTRAST_HU = 850.0  # contrast of a solid nodule in lung
GLASS_MM = 8.0  # diameter of the ground glass that a limit is given for
OFTEN_MISSED_MM = 6.0  # changes of solid nodules below it: 3 of 7 were listed on pairs of another generator
GROWTH_MM = 6.0  # diameter of the nodule that a limit of growth is given for


@dataclass(frozen=True)
class NotSeen:
    """One thing that the comparison cannot see.

    Attributes:
        key: what it is about.
        sentence: for the reader.
        value: its number; None where it has none.
        unit: of the number, empty where it has none.
    """

    key: NotSeenKey
    sentence: str
    value: float | None = None
    unit: str = ""


def not_seen(
    evidence: ChangeEvidence,
    *,
    shared_percent: float,
    trusted_percent: float,
    options: CandidateOptions | None = None,
    nodule: NoduleOptions | None = None,
) -> tuple[NotSeen, ...]:
    """State what this comparison cannot see.

    Args:
        evidence: of the comparison.
        shared_percent: percentage of the current scan's lungs that both scans show.
        trusted_percent: percentage of them that is registered with confidence.
        options: what counts as a candidate.
        nodule: what counts as a nodule.

    Returns:
        One statement for each limit. Those on regions are left out where all of the lungs is seen and trusted.
    """
    options, nodule = options or CandidateOptions(), nodule or NoduleOptions()
    statements = []
    if evidence.responses:
        glass_hu = faintest_hu(evidence, GLASS_MM, options)
        small_mm = max(smallest_mm(evidence, SOLID_CONTRAST_HU, options), 2 * nodule.min_radius_mm)
        growth = smallest_growth_percent(evidence, GROWTH_MM)
        glass = (
            f"Ground glass of {GLASS_MM:g} mm that differs from the lung around it by less than about "
            f"{glass_hu:.0f} HU, and fainter or smaller ground glass."
        )
        growth_sentence = (
            f"Growth of a nodule of {GROWTH_MM:g} mm by less than about {growth:.0f} % of its volume: it is within the "
            "measurement error."
        )
        statements = [
            NotSeen("ground_glass", glass, round(glass_hu, 1), "HU"),
            NotSeen("small", _small_sentence(small_mm), round(small_mm, 2), "mm"),
            NotSeen("growth", growth_sentence, round(growth, 1), "percent"),
        ]
    if shared_percent < 99.5:
        sentence = f"{100 - shared_percent:.0f} % of the current scan's lungs: the prior scan does not show them."
        statements.append(NotSeen("outside", sentence, round(100 - shared_percent, 1), "percent"))
    if trusted_percent < 99.5:
        sentence = f"Small changes in {100 - trusted_percent:.0f} % of the lungs, where the registration is uncertain."
        statements.append(NotSeen("distrusted", sentence, round(100 - trusted_percent, 1), "percent"))
    statements.append(NotSeen("not_lung", "Anything outside the lungs: mediastinum, hila, chest wall, bones, pleura."))
    return tuple(statements)


def nothing_seen() -> tuple[NotSeen, ...]:
    """What a comparison cannot see whose registration failed: no limit of size or density holds there.

    Examples:
        >>> [statement.key for statement in nothing_seen()]
        ['unusable']
    """
    return (NotSeen("unusable", NOTHING_SEEN),)


def faintest_hu(evidence: ChangeEvidence, diameter_mm: float, options: CandidateOptions) -> float:
    """The least difference in HU by which a ball of a given diameter becomes a candidate."""
    limits = []
    for response, floor in zip(evidence.responses, options.floor_hu, strict=False):
        share = ball_response(diameter_mm, math.hypot(response.scale_mm, _blur_mm(evidence)), response.scale_mm)
        limits.append(max(options.noise * response.noise_hu, floor) / max(share, 1e-6))
    return min(limits)


def smallest_mm(evidence: ChangeEvidence, contrast_hu: float, options: CandidateOptions) -> float:
    """The least diameter at which a ball of a given contrast becomes a candidate."""
    low, high = 0.5, 30.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        if faintest_hu(evidence, middle, options) > contrast_hu:
            low = middle
        else:
            high = middle
    return high


def smallest_growth_percent(evidence: ChangeEvidence, diameter_mm: float) -> float:
    """The least growth in volume that exceeds the measurement error, for a nodule of a given diameter."""
    volume_ml = math.pi / 6000.0 * diameter_mm**3
    grids = evidence.pair.reference.grid, evidence.pair.template.grid
    errors = [voxel_error(volume_ml, grid.spacing_mm) for grid in grids]
    return 100.0 * (math.exp(math.hypot(math.log(REPEAT_SCAN_UPPER), *errors)) - 1.0)


def ball_response(diameter_mm: float, sigma_mm: float, scale_mm: float) -> float:
    """Share of its contrast that a ball keeps in its middle, smoothed and less its surroundings.

    Examples:
        >>> ball_response(50.0, 1.0, 1.0) < 0.01, ball_response(8.0, 2.0, 2.0) > 0.5
        (True, True)
    """
    wide = math.sqrt(sigma_mm**2 + (WIDE**2 - 1) * scale_mm**2)
    return max(_ball_mean(0.5 * diameter_mm / sigma_mm) - _ball_mean(0.5 * diameter_mm / wide), 0.0)


def _ball_mean(radius: float) -> float:
    """Mass of a Gaussian in space within ``radius`` standard deviations."""
    return math.erf(radius / math.sqrt(2.0)) - math.sqrt(2.0 / math.pi) * radius * math.exp(-0.5 * radius**2)


def _blur_mm(evidence: ChangeEvidence) -> float:
    """Blur of the voxels of both scans, the larger one, as one sigma."""
    grids = evidence.pair.reference.grid, evidence.pair.template.grid
    return math.sqrt(max(float(voxel_variance_mm2(grid.spacing_mm).mean()) for grid in grids))


def _small_sentence(small_mm: float) -> str:
    """What is below the resolution cannot be seen; somewhat larger nodules are often missed."""
    often = f" Of those below {OFTEN_MISSED_MM:g} mm many are missed." if small_mm < OFTEN_MISSED_MM else ""
    return f"Solid nodules below about {small_mm:.1f} mm.{often}"
