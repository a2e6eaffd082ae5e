"""What is said of the list of findings as a whole; one source for HTML page, PDF, text, FHIR and the DICOM pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ChangeMapJointLib.change.sections import OPERATING_POINT_HINTS, SECTION_TITLES, Section

FOLDED: tuple[Section, ...] = ("possible", "explained", "stable")
RIGID_ONLY = "Rigid alignment only: no change was looked for."
CANNOT_EXCLUDE = "Smaller or fainter changes cannot be excluded."
UNRELIABLE = (
    "No finding is listed, but this does not rule out change: changes can be missed where the registration is "
    "not reliable. Compare both scans by eye."
)
FAILED = "Nothing is listed, since the registration failed: this does not rule out change. Compare both scans by eye."


def no_finding_words(verdict: str, *, judged: bool, threshold: float | None = None, withheld: int = 0) -> str:
    """Return what a list without findings means.

    Args:
        verdict: on the registration.
        judged: whether the changes were judged; otherwise the map's regions are listed.
        threshold: of the change map, where they are; None where unknown.
        withheld: number of regions that are not listed because the registration failed.

    Examples:
        >>> no_finding_words("good", judged=False, threshold=0.5)
        'No finding: no change reached 0.50 on the map. Smaller or fainter changes cannot be excluded.'
    """
    if verdict == "do not use":  # never a sentence that begins like "no change"
        words = FAILED
    elif verdict != "good":
        words = UNRELIABLE
    elif judged:
        words = f"No finding: no change was probable enough to be listed. {CANNOT_EXCLUDE}"
    elif threshold is None:
        words = f"No finding was listed. {CANNOT_EXCLUDE}"
    else:
        words = f"No finding: no change reached {threshold:.2f} on the map. {CANNOT_EXCLUDE}"
    if withheld:
        regions = "region of remaining difference is" if withheld == 1 else "regions of remaining difference are"
        words = f"{withheld} {regions} withheld. {words}"
    return words


def rejected_words(count: int) -> str:
    """Return how many findings the reader rejected, which the list then lacks."""
    return f"{count} finding(s) were rejected by the reader."


def operating_point_words(point: str | None) -> str:
    """Return how probable a finding had to be; empty where nothing judged the changes.

    Examples:
        >>> operating_point_words("standard")
        'Operating point: standard (0.1 false findings in a scan when tested).'
    """
    if point is None:
        return ""
    hint = next((hint for name, hint in OPERATING_POINT_HINTS.items() if name == point), "")
    return f"Operating point: {point} ({hint})." if hint else f"Operating point: {point}."


def section_count_words(counts: Mapping[Section, int]) -> str:
    """Return how many changes were measured but are no findings.

    Examples:
        >>> section_count_words({"possible": 2, "explained": 9})
        'Also measured: 2 possible, 9 explained, 0 stable.'
    """
    parts = [f"{counts.get(name, 0)} {SECTION_TITLES[name].lower()}" for name in FOLDED]
    return f"Also measured: {', '.join(parts)}."


def list_words(
    verdict: str,
    *,
    listed: int,
    point: str | None = None,
    threshold: float | None = None,
    withheld: int = 0,
    counts: Mapping[Section, int] | None = None,
) -> tuple[str, ...]:
    """Return what is said of a list as a whole, one paragraph each.

    Args:
        verdict: on the registration.
        listed: number of findings.
        point: operating point; None where nothing judged the changes.
        threshold: of the change map; None where unknown.
        withheld: number of regions that are not listed because the registration failed.
        counts: of the other changes, by section; None where unknown.
    """
    failed, said = verdict == "do not use", []
    if failed or not listed:
        said.append(no_finding_words(verdict, judged=point is not None, threshold=threshold, withheld=withheld))
    if point is not None and not failed:
        said.append(operating_point_words(point))
        if counts is not None:
            said.append(section_count_words(counts))
    return tuple(said)


def list_words_of_records(records: Mapping[str, Any], verdict: str) -> tuple[str, ...]:
    """As :func:`list_words`, from the JSON files of a run.

    Args:
        records: ``findings`` and ``candidates``, as far as the run has them.
        verdict: on the registration.
    """
    if "findings" not in records:
        return (RIGID_ONLY,)
    findings, others = records["findings"], records.get("candidates", {}).get("findings") or []
    point, listed = findings.get("operating_point"), len(findings.get("findings") or [])
    withheld = findings.get("withheld")
    withheld = withheld if isinstance(withheld, int) and withheld else listed
    sections = [entry.get("section") for entry in others if isinstance(entry, Mapping)]
    return list_words(
        verdict,
        listed=listed,
        point=None if point is None else str(point),
        threshold=findings.get("threshold"),
        withheld=withheld if verdict == "do not use" else 0,
        counts={name: sections.count(name) for name in FOLDED} if "candidates" in records else None,
    )
