"""A finding in the words of a reader, from its entry in ``findings.json``: cells of a list, and text for a dictation.

One source for the module's panel, the report and the browser viewer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from ChangeMapJointLib.change.growth_rules import RuleAnswer, growth_rules
from ChangeMapJointLib.change.kinds import KIND_WORDS

Entry = Mapping[str, Any]  # of findings.json or candidates.json
READING_ORDER = ("new", "grown", "increase", "shrunk", "resolved", "decrease")
UNKNOWN = "?"


# -- dates ----------------------------------------------------------------------------------
def scan_dates(records: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the dates of the current and the prior scan (ISO) from the records of a run; None where unknown."""
    run = records.get("run", {})
    dates = [(run.get(side) or {}).get("acquisition", {}).get("date") for side in ("reference", "template")]
    return dates[0] or None, dates[1] or None


def interval_days(current: str | None, prior: str | None) -> int | None:
    """Return the days from the prior scan to the current one; None where a date is unknown.

    Examples:
        >>> interval_days("2024-03-01", "2023-03-01"), interval_days(None, "2023-03-01")
        (366, None)
    """
    try:
        return (date.fromisoformat(current or "") - date.fromisoformat(prior or "")).days
    except ValueError:
        return None


# -- figures --------------------------------------------------------------------------------
def lesions(entry: Entry) -> tuple[Entry | None, Entry | None]:
    """Return the lesion in the current and in the prior scan; None where it was not measured."""
    return entry.get("lesion_reference"), entry.get("lesion_template")


def mean_diameter_mm(lesion: Entry | None) -> float | None:
    """Return the mean of long and perpendicular axial diameter; None without a lesion."""
    if lesion is None:
        return None
    known = lesion.get("mean_diameter_mm")
    return float(known) if known else 0.5 * (lesion["long_diameter_mm"] + lesion["perpendicular_diameter_mm"])


def mean_diameter_change_mm(entry: Entry) -> float | None:
    """Return the change of the mean diameter; None unless both scans show the lesion."""
    now, before = (mean_diameter_mm(lesion) for lesion in lesions(entry))
    return None if now is None or before is None else now - before


def listed_doubling_days(entry: Entry, days: int | None = None) -> float | None:
    """Return the volume doubling time; None where the lesion did not grow, or the interval is unknown.

    Args:
        entry: of the finding; what the run has computed is taken.
        days: between the scans, for runs that have not computed it.

    Examples:
        >>> listed_doubling_days({"volume_change_percent": 300.0}, 100)
        50.0
    """
    known, percent = entry.get("doubling_time_days"), entry.get("volume_change_percent")
    if known is not None:
        return float(known)
    days = entry.get("interval_days") or days
    if not days or days <= 0 or percent is None or percent <= 0:
        return None
    return float(days * math.log(2.0) / math.log1p(percent / 100.0))


def rules_of(entry: Entry, days: int | None = None) -> tuple[RuleAnswer, ...]:
    """Return which rules of growth the finding meets; empty unless both scans show the lesion."""
    if None in lesions(entry):
        return ()
    days = entry.get("interval_days") or days
    return growth_rules(
        mean_diameter_change_mm(entry), entry.get("volume_change_percent"), days, listed_doubling_days(entry, days)
    )


# -- cells ----------------------------------------------------------------------------------
def side_and_slice(entry: Entry, slice_number: int | None = None) -> str:
    """Return side and slice, for example ``R 63``; no lobe, which nothing measures.

    Examples:
        >>> side_and_slice({"lung": "right"}, 63), side_and_slice({}, 63), side_and_slice({})
        ('R 63', '63', '')
    """
    side = {"right": "R", "left": "L"}.get(str(entry.get("lung") or ""), "")
    return " ".join(filter(None, [side, "" if slice_number is None else str(slice_number)]))


def size_words(entry: Entry) -> str:
    """Return the mean diameters, prior to current, in mm; empty where no scan shows a measured lesion.

    Examples:
        >>> ball = {"long_diameter_mm": 8.4, "perpendicular_diameter_mm": 7.6}
        >>> size_words({"kind": "new", "lesion_reference": ball}), size_words({"kind": "increase"})
        ('0 \u2192 8.0 mm', '')
    """
    now, before = (mean_diameter_mm(lesion) for lesion in lesions(entry))
    if now is None and before is None:
        return ""
    absent = {"new": (None, "0"), "resolved": ("0", None)}.get(str(entry.get("kind")), (None, None))
    texts = [
        f"{size:.1f}" if size is not None else none or UNKNOWN for size, none in zip((now, before), absent, strict=True)
    ]
    return f"{texts[1]} \u2192 {texts[0]} mm"


def change_words(entry: Entry, *, short: bool = False) -> str:
    """Return the change of volume with its 95 % interval; empty where it was not measured in both scans.

    Args:
        entry: of the finding.
        short: for a narrow column.

    Examples:
        >>> change_words({"volume_change_percent": 146.2, "volume_change_interval_percent": [80.0, 212.4]})
        '+146 % (+80 to +212)'
        >>> change_words({"volume_change_percent": 146.2, "volume_change_interval_percent": [80.0, 212.4]}, short=True)
        '+146 % (80..212)'
    """
    percent, interval = entry.get("volume_change_percent"), entry.get("volume_change_interval_percent")
    if percent is None:
        return ""
    text = f"{percent:+.0f} %"
    if not interval:
        return text
    low, high = interval
    return f"{text} ({low:.0f}..{high:.0f})" if short else f"{text} ({low:+.0f} to {high:+.0f})"


def doubling_cell(entry: Entry, days: int | None = None) -> str:
    """Return the doubling time in days; empty where there is none or growth is not proven."""
    interval, value = entry.get("volume_change_interval_percent"), listed_doubling_days(entry, days)
    if value is None or (interval and interval[0] <= 0):
        return ""
    return f"{value:.0f} d" if value < 10000 else "> 9999 d"


# -- text -----------------------------------------------------------------------------------
def finding_text(entry: Entry, *, number: int, days: int | None = None, slice_number: int | None = None) -> str:
    """Return a finding as one paragraph for a dictation.

    Args:
        entry: of the finding.
        number: by which the report names it.
        days: between the scans; None where unknown.
        slice_number: stored slice of the current scan, from 1.

    Examples:
        >>> ball = {"long_diameter_mm": 8.4, "perpendicular_diameter_mm": 7.6, "volume_ml": 0.268}
        >>> finding_text({"kind": "new", "lung": "right", "lesion_reference": ball}, number=1, slice_number=63)
        'Finding 1: new, right lung, slice 63. Mean diameter now 8.0 mm (8.4 x 7.6 mm, 268 mm3).'
    """
    kind = KIND_WORDS.get(entry["kind"], str(entry["kind"]))
    if entry.get("section") == "stable":
        kind = "stable"
    place = [f"{entry['lung']} lung" if entry.get("lung") else "", f"{entry.get('third') or ''} third".strip()]
    place = [part for part in place if part and part != "third"]
    where = [*place, "" if slice_number is None else f"slice {slice_number}"]
    head = ", ".join(filter(None, [kind, nodule_kind(entry), *where]))
    return " ".join([f"Finding {number}: {head}.", *growth_sentences(entry, days)]).strip()


def nodule_kind(entry: Entry) -> str:
    """Return the kind of nodule where it was measured, for example ``part-solid``; else an empty text."""
    now, before = lesions(entry)
    lesion = now or before or {}
    parts = [str(lesion.get("texture") or ""), "calcified" if lesion.get("calcified") else ""]
    return ", ".join(filter(None, [*parts, "at the pleura" if lesion.get("juxtapleural") else ""]))


def growth_sentences(entry: Entry, days: int | None = None) -> list[str]:
    """Return sizes, change of volume with its interval, doubling time and the rules met, one sentence each."""
    now, before = lesions(entry)
    sentences = []
    if now is not None and before is not None:
        change = mean_diameter_change_mm(entry)
        sentences.append(f"Mean diameter {_size(before)} before, {_size(now)} now ({change:+.1f} mm).")
    elif now is not None or before is not None:
        sentences.append(f"Mean diameter {'now' if now is not None else 'before'} {_size(now or before or {})}.")
    else:
        sentences.append("Not measured as a nodule.")
    percent, interval = entry.get("volume_change_percent"), entry.get("volume_change_interval_percent")
    if percent is not None:
        words = f"Volume {percent:+.0f} %"
        if interval:
            words += f" (95 % interval {interval[0]:+.0f} to {interval[1]:+.0f} %)"
        days_words = f" in {days} days" if days is not None and days > 0 else ""
        proven = " Within measurement error." if interval and interval[0] <= 0 <= interval[1] else ""
        sentences.append(f"{words}{days_words}.{proven}")
    doubling = doubling_cell(entry, days)
    if doubling:
        sentences.append(f"Volume doubling time {doubling.replace(' d', ' days')}.")
    answers = rules_of(entry, days)
    if answers and (percent is None or percent > 0):
        sentences.append("Growth by rule: " + "; ".join(answer.words for answer in answers) + ".")
    return sentences


def _size(lesion: Entry) -> str:
    long, across = lesion["long_diameter_mm"], lesion["perpendicular_diameter_mm"]
    volume = lesion.get("volume_ml")
    text = f"{long:.1f} x {across:.1f} mm" + ("" if volume is None else f", {1000 * volume:.0f} mm3")
    return f"{mean_diameter_mm(lesion):.1f} mm ({text})"


def dictation(
    findings: Iterable[str],
    *,
    current: str | None,
    prior: str | None,
    registration: str,
    notes: Sequence[str] = (),
    without: str = "",
) -> str:
    """Return all findings as text for a dictation, with the dates, the verdict on the registration and a reminder.

    Args:
        findings: texts from :func:`finding_text`.
        current: date of the current scan, ISO; None if unknown.
        prior: date of the prior scan.
        registration: the verdict on the registration.
        notes: further sentences.
        without: what it means that there are no findings; empty where ``notes`` say it.
    """
    days = interval_days(current, prior)
    dates = f"Current {current or 'without date'}, prior {prior or 'without date'}"
    lines = [f"Chest CT compared: {dates}{'' if days is None else f', {days} days apart'}."]
    lines.append(f"Registration: {registration or 'not measured'}.")
    listed = list(findings) or [without] * bool(without)
    return "\n".join(
        [*lines, *notes, *listed, "Software for research, not a medical device; to be confirmed by the reader."]
    )
