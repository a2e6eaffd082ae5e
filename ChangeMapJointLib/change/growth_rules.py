"""Which published rules of growth a change of a nodule meets, by name; never what to do about it.

Fleischner Society 2017 (MacMahon et al., Radiology 284:228; measuring: Bankier et al., Radiology 285:584), Lung-RADS
2022 (American College of Radiology), British Thoracic Society 2015 (Callister et al., Thorax 70 Suppl 2:ii1).
"""

from __future__ import annotations

from dataclasses import dataclass

FLEISCHNER_MM = 2.0
LUNG_RADS_MM, LUNG_RADS_DAYS = 1.5, 366
BTS_PERCENT, BTS_FAST_DAYS, BTS_SLOW_DAYS = 25.0, 400, 600
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RuleAnswer:
    """Whether a rule is met.

    Attributes:
        rule: its name.
        met: None where it cannot be told.
        sentence: the rule and the answer in one sentence.
    """

    rule: str
    met: bool | None
    sentence: str

    @property
    def words(self) -> str:
        """Return for example ``Fleischner 2017: met``."""
        return f"{self.rule}: {'cannot be told' if self.met is None else 'met' if self.met else 'not met'}"


def growth_rules(
    diameter_change_mm: float | None,
    volume_change_percent: float | None,
    days: int | None,
    doubling_days: float | None = None,
) -> tuple[RuleAnswer, ...]:
    """Apply the three rules to a nodule that both scans show.

    Args:
        diameter_change_mm: change of the mean of long and perpendicular axial diameter; None if it was not measured.
        volume_change_percent: change of volume; None if it was not measured.
        days: from the prior scan to the current one; None where a date is unknown.
        doubling_days: volume doubling time; None where there is none.

    Returns:
        One answer for each rule; empty unless both scans show the nodule.

    Examples:
        >>> [answer.words for answer in growth_rules(1.8, 60.0, 200, 295.0)]
        ['Fleischner 2017: not met', 'Lung-RADS 2022: met', 'BTS 2015: met']
        >>> growth_rules(1.8, 60.0, None)[1].sentence
        'Lung-RADS 2022, more than 1.5 mm within 12 months: cannot be told without both dates.'
    """
    if diameter_change_mm is None and volume_change_percent is None:
        return ()
    return (
        _fleischner(diameter_change_mm),
        _lung_rads(diameter_change_mm, days),
        _bts(volume_change_percent, doubling_days),
    )


def _answer(rule: str, asks: str, met: bool | None, why: str = "") -> RuleAnswer:
    said = f"cannot be told {why}" if met is None else f"{'met' if met else 'not met'}{f' ({why})' if why else ''}"
    return RuleAnswer(rule, met, f"{rule}, {asks}: {said}.")


def _fleischner(change_mm: float | None) -> RuleAnswer:
    asks = f"mean diameter larger by {FLEISCHNER_MM:g} mm or more"
    met = None if change_mm is None else change_mm >= FLEISCHNER_MM - _ROUNDING
    return _answer("Fleischner 2017", asks, met, "without diameters" if met is None else f"{change_mm:+.1f} mm")


def _lung_rads(change_mm: float | None, days: int | None) -> RuleAnswer:
    asks = f"more than {LUNG_RADS_MM:g} mm within 12 months"
    if change_mm is None:
        return _answer("Lung-RADS 2022", asks, None, "without diameters")
    if change_mm <= LUNG_RADS_MM + _ROUNDING:  # whatever the interval
        return _answer("Lung-RADS 2022", asks, False, f"{change_mm:+.1f} mm")
    if days is None or days <= 0:
        return _answer("Lung-RADS 2022", asks, None, "without both dates")
    if days > LUNG_RADS_DAYS:
        return _answer("Lung-RADS 2022", asks, None, f"from scans {days} days apart: {change_mm:+.1f} mm")
    return _answer("Lung-RADS 2022", asks, True, f"{change_mm:+.1f} mm in {days} days")


def _bts(percent: float | None, doubling_days: float | None) -> RuleAnswer:
    asks = f"volume larger by {BTS_PERCENT:g} % or more"
    if percent is None:
        return _answer("BTS 2015", asks, None, "without volumes")
    why = f"{percent:+.0f} %"
    if doubling_days is not None and percent >= BTS_PERCENT - _ROUNDING:
        below = [limit for limit in (BTS_FAST_DAYS, BTS_SLOW_DAYS) if doubling_days < limit]
        range_words = f"below {below[0]}" if len(below) == 2 else "400 to 600" if below else "above 600"
        why += f", doubling time {doubling_days:.0f} days: {range_words}"
    return _answer("BTS 2015", asks, percent >= BTS_PERCENT - _ROUNDING, why)
