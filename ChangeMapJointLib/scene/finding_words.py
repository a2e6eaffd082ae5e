"""Words of the list of findings, for the Slicer panel and the browser viewer.

``tr`` translates a text; the panel passes Slicer's translation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ChangeMapJointLib.change.sections import reason_sentence
from ChangeMapJointLib.export.finding_text import growth_sentences, lesions, nodule_kind

Translate = Callable[[str], str]
_VOLUMES_AGAIN = re.compile(r"\b(Grown|Shrunk) from [^()]* ml \([^()]*\)\. ?")  # the figures stand before it


def probability_text(probability: Any) -> str:
    """Return a probability in percent; never 0 % or 100 %, which nothing measured can be.

    Examples:
        >>> probability_text(0.853), probability_text(0.9999), probability_text(0.0001)
        ('85 %', '> 99 %', '< 1 %')
    """
    if not isinstance(probability, (int, float)):
        return "?"
    percent = round(100 * probability)
    return "> 99 %" if percent > 99 else "< 1 %" if percent < 1 else f"{percent} %"


def size_text(change: Any, tr: Translate = str) -> str:
    """Return the axial diameters of the lesion now (if resolved, in the prior); else the volume of the change."""
    measured = change.measured or {}
    lesion = measured.get("lesion_reference") or measured.get("lesion_template")
    if lesion is None:
        return tr("{volume} ml").format(volume=f"{change.volume_ml:.2f}")
    long, across = lesion["long_diameter_mm"], lesion["perpendicular_diameter_mm"]
    return tr("{long} x {across} mm").format(long=f"{long:.0f}", across=f"{across:.0f}")


def change_text(measured: Any) -> str:
    """Return the change of the lesion's volume in percent; empty if it was not measured in both scans."""
    percent = (measured or {}).get("volume_change_percent")
    return "" if percent is None else f"{percent:+.0f} %"


def details_text(section: str, change: Any, threshold: float, tr: Translate = str, days: int | None = None) -> str:
    """Return what is known of a change beyond the table: why it is explained, both measurements, rules, remarks.

    Args:
        section: where the change is listed.
        change: a :class:`~ChangeMapJointLib.change.threshold_list.ListedChange`.
        threshold: of the map; a weaker change has no color in the views, and that is said.
        tr: translates a text.
        days: between the scans; None where unknown.
    """
    measured = change.measured
    if measured is None:
        return tr("{volume} ml changed; not measured as a lesion.").format(volume=f"{change.volume_ml:.2f}")
    entry = {**measured, "kind": change.kind, "section": section}
    reason = tr(reason_sentence(measured.get("reason"))) if section == "explained" else ""
    remark = str(measured.get("remark") or "")
    if reason:  # it comes first, and once
        remark = remark.replace(reason, "").strip()
    sizes = " ".join(growth_sentences(entry, days)) if any(lesions(entry)) else ""
    if sizes:
        remark = _VOLUMES_AGAIN.sub("", remark)
    kind = nodule_kind(entry)
    pale = ""
    if change.peak and change.peak < threshold:
        pale = tr("No color here: the map reaches {peak}, less than the threshold of {threshold}.")
        pale = pale.format(peak=f"{change.peak:.2f}", threshold=f"{threshold:.2f}")
    lines = (reason, f"{kind.capitalize()}. {sizes}" if kind else sizes, remark, pale)
    return "\n".join(line for line in lines if line)
