"""Words of the list of findings: what stands in its cells, groups, tooltips and details; without Qt."""

from __future__ import annotations

from typing import Any, NamedTuple

from slicer.i18n import tr as _

from ChangeMapJointLib.change.kinds import KIND_WORDS
from ChangeMapJointLib.change.sections import (
    BY_MAP,
    OPERATING_POINT_HINTS,
    SECTION_HINTS,
    SECTION_TITLES,
    reason_sentence,
)
from ChangeMapJointLib.export import finding_text
from ChangeMapJointLib.export.unseen import UNSEEN_TITLE
from ChangeMapJointLib.scene.finding_words import details_text, probability_text

# columns; what a reader needs least is on the right
NUMBER, KIND, PLACE, SIZE, CHANGE, DOUBLING, TRUST, READER, STRENGTH, LISTED = range(10)


class FindingRow(NamedTuple):
    """One change as it is listed.

    Attributes:
        number: the run's number of a judged change, as in its report; else its place in the list.
        section: where it is listed, or, by the map, where the run lists it; empty where nothing judged it.
        change: what changed.
    """

    number: int
    section: str
    change: Any


def columnNames(judged: bool) -> list[str]:
    """Return the headers of the table."""
    names = [_("No."), _("Kind"), _("Where"), _("mm before \u2192 now"), _("Volume"), _("Doubling")]
    return [*names, _("Trust"), _("Reader"), _("Prob.") if judged else _("Peak"), _("Listed")]


def columnHints(judged: bool) -> dict[int, str]:
    """Return what the columns mean, by their number."""
    return {
        PLACE: _("Side, and stored slice of the current scan."),
        SIZE: _("Mean of long and perpendicular axial diameter, before and now."),
        CHANGE: _("Change of the lesion's volume with its 95 % interval."),
        DOUBLING: _("Volume doubling time, where both dates are known and growth exceeds the measurement error."),
        TRUST: _("How reliable the registration is there, from 0 to 1."),
        STRENGTH: strengthHint(judged),
    }


def strengthHint(judged: bool) -> str:
    """Return what the column of probabilities, or by the map that of peaks, means."""
    if judged:
        return _("Probability that a lesion really changed, judged from the measurements in both scans.")
    return _("Highest value of the change map in the region.")


def listNames() -> dict[str, str]:
    """Return the lists that can be chosen, by key; short, so that a narrow panel shows them whole."""
    return {"sensitive": _("Sensitive"), "standard": _("Standard"), "specific": _("Specific"), BY_MAP: _("By the map")}


def listHints() -> dict[str, str]:
    """Return what each of the lists holds, by key."""
    hints = {str(key): _(hint) for key, hint in OPERATING_POINT_HINTS.items()}
    return {**hints, BY_MAP: _("all regions of the map at the threshold above")}


def kindNames() -> dict[str, str]:
    """Return the kinds of change in the user's language."""
    return {**{kind: _(words) for kind, words in KIND_WORDS.items()}, "stable": _("stable")}


def sectionNames() -> dict[str, str]:
    """Return the titles of the sections in the user's language."""
    return {section: _(title) for section, title in SECTION_TITLES.items()}


def sectionHints() -> dict[str, str]:
    """Return what each section holds, in the user's language."""
    return {section: _(hint) for section, hint in SECTION_HINTS.items()}


def markNames() -> dict[str, str]:
    """Return the reader's possible verdicts on a finding in the user's language."""
    return {"accepted": _("accepted"), "rejected": _("rejected")}


def rowTexts(
    row: FindingRow, judged: bool, names: dict[str, str], sections: dict[str, str], facts: Any = None
) -> list[str]:
    """Return the cells of a row except the reader's.

    Args:
        row: the change.
        judged: whether the list is the judged one; else by the map.
        names: from :func:`kindNames`.
        sections: from :func:`sectionNames`.
        facts: of the two scans, see :class:`~ChangeMapJointGui.pair_facts.PairFacts`.
    """
    change, entry = row.change, entryOf(row)
    return [
        str(row.number),
        names["stable" if judged and row.section == "stable" else change.kind],
        finding_text.side_and_slice(entry, None if facts is None else facts.sliceOf(change.centre_mm)),
        finding_text.size_words(entry).removesuffix(" mm") or _("{volume} ml").format(volume=f"{change.volume_ml:.2f}"),
        finding_text.change_words(entry, short=True),
        finding_text.doubling_cell(entry, None if facts is None else facts.days),
        "?" if change.trust is None else f"{change.trust:.2f}",
        "",
        probabilityText((change.measured or {}).get("probability")) if judged else f"{change.peak:.2f}",
        "" if judged else sections.get(row.section, ""),
    ]


def entryOf(row: FindingRow) -> dict[str, Any]:
    """Return what was measured of a change, with the kind and the section by which it is listed."""
    return {**(row.change.measured or {}), "kind": row.change.kind, "section": row.section}


def copyText(row: FindingRow, facts: Any) -> str:
    """Return a change as text for a dictation."""
    at = facts.sliceOf(row.change.centre_mm)
    return finding_text.finding_text(entryOf(row), number=row.number, days=facts.days, slice_number=at)


def probabilityText(probability: Any) -> str:
    """Return a probability in percent."""
    return probability_text(probability)


def details(row: FindingRow | None, threshold: float = 0.0, days: int | None = None) -> str:
    """Return what is known of a change beyond the table: why it is explained, both measurements, rules, remarks.

    Args:
        row: of the list; None without one.
        threshold: of the map; a weaker change has no color in the views, and that is said.
        days: between the scans; None where unknown.
    """
    return "" if row is None else details_text(row.section, row.change, threshold, _, days)


def rulesText(row: FindingRow | None, days: int | None) -> str:
    """Return each rule of growth with its answer on a line of its own; empty where none applies."""
    answers = () if row is None else finding_text.rules_of(entryOf(row), days)
    return "\n".join(answer.sentence for answer in answers)


def reasonText(row: FindingRow) -> str:
    """Return the sentence that explains a change away; empty for one that nothing explains."""
    return _(reason_sentence(row.change.measured.get("reason"))) if row.section == "explained" else ""


def tooltip(row: FindingRow) -> str:
    """Return the reason of an explained change; else an invitation to click."""
    return (reasonText(row) if row.change.measured else "") or _("Click to see it in all views.")


def countText(session: Any, judged: dict[str, list[Any]] | None, rows: list[FindingRow], threshold: float) -> str:
    """Return the sentence above the list.

    Args:
        session: the run on screen; None without one.
        judged: the changes by section; None for a list by the map.
        rows: what is listed: by the map its regions, else the findings.
        threshold: of the map.
    """
    if session is None:
        return _("No comparison yet.")
    if not session.hasFindings:
        return _("Rigid only: no change map and no findings.")
    if session.unusable:
        return _withheld(session)
    total, reviewed = len(rows), sum(bool(session.review(row.change.key)["verdict"]) for row in rows)
    if judged is None:
        return _byMap(session, total, reviewed, threshold)
    if total:
        text = _("1 finding, {reviewed} reviewed.") if total == 1 else _("{count} findings, {reviewed} reviewed.")
    else:
        text = _("No finding: nothing was probable enough. What was measured is below, folded.")
    if not total and not any(judged.values()):
        text = _("No finding: nothing was probable enough.")
    if threshold != session.mapThreshold:
        text += " " + _("The colors show the map from {threshold}; this list does not follow it.")
    return text.format(count=total, reviewed=reviewed, threshold=f"{threshold:.2f}")


def _byMap(session: Any, total: int, reviewed: int, threshold: float) -> str:
    if not total:
        text = _("No region reaches {threshold}. Lower the threshold to see weaker change.")
    elif session.lists.own is None:  # its regions are its findings
        text = _("1 finding, {reviewed} reviewed.") if total == 1 else _("{count} findings, {reviewed} reviewed.")
    elif total == 1:
        text = _("By the map at {threshold}: 1 region, {reviewed} reviewed.")
    else:
        text = _("By the map at {threshold}: {count} regions, {reviewed} reviewed.")
    return text.format(count=total, reviewed=reviewed, threshold=f"{threshold:.2f}")


def _withheld(session: Any) -> str:
    """Say why the list is empty; never "no change" if the registration cannot be used."""
    text = _(
        "No findings can be given: the registration cannot be used. {why} "
        "{count} regions of remaining difference are withheld; see above."
    )
    return text.format(why=" ".join(session.reasons), count=session.withheld)


def notSeenText(sentences: tuple[str, ...]) -> str:
    """Return what the comparison cannot see, as one paragraph; empty without sentences."""
    return f"{_(UNSEEN_TITLE)}: {' '.join(sentences)}" if sentences else ""
