"""Words of the list of findings, for the Slicer panel and the browser viewer.

``tr`` translates a text; the panel passes Slicer's translation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ChangeMapJointLib.change.sections import reason_sentence

Translate = Callable[[str], str]


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


def details_text(section: str, change: Any, threshold: float, tr: Translate = str) -> str:
    """Return what is known of a change beyond the table: why it is explained, both measurements, remarks.

    Args:
        section: where the change is listed.
        change: a :class:`~ChangeMapJointLib.change.threshold_list.ListedChange`.
        threshold: of the map; a weaker change has no color in the views, and that is said.
        tr: translates a text.
    """
    measured = change.measured
    if measured is None:
        return tr("{volume} ml changed; not measured as a lesion.").format(volume=f"{change.volume_ml:.2f}")
    reason = tr(reason_sentence(measured.get("reason"))) if section == "explained" else ""
    remark = str(measured.get("remark") or "")
    if reason:  # it comes first, and once
        remark = remark.replace(reason, "").strip()
    pale = ""
    if change.peak and change.peak < threshold:
        pale = tr("No color here: the map reaches {peak}, less than the threshold of {threshold}.")
        pale = pale.format(peak=f"{change.peak:.2f}", threshold=f"{threshold:.2f}")
    return "\n".join(line for line in (reason, _sizes(measured, tr), remark, pale) if line)


def _sizes(measured: Any, tr: Translate) -> str:
    """Return the lesion's diameters now and before; empty unless both scans show it. The remark holds its volumes."""
    sides = [measured.get("lesion_reference"), measured.get("lesion_template")]
    if None in sides:
        return ""
    now, before = (
        tr("{long} x {across} mm").format(
            long=f"{lesion['long_diameter_mm']:.1f}", across=f"{lesion['perpendicular_diameter_mm']:.1f}"
        )
        for lesion in sides
    )
    return tr("Now {now}; before {before}.").format(now=now, before=before)
