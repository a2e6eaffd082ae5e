"""The overview of a cohort: one row and one small picture a pair, what needs attention first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.kinds import KIND_WORDS
from ChangeMapJointLib.cohort.page import png_uri, render
from ChangeMapJointLib.cohort.place import OVERVIEW, PairPlace
from ChangeMapJointLib.cohort.record import PairRecord
from ChangeMapJointLib.cohort.table import ATTENTION, Attention, attention_of, by_attention, row_of
from ChangeMapJointLib.export.wording import DASH, signed
from ChangeMapJointLib.io.write import atomic_path

PAGE_ROWS = 500  # a page of so many rows has a few MB with its pictures
CSS: dict[Attention, str] = {
    "not compared": "stop",
    "do not use": "stop",
    "look closely": "look",
    "findings": "found",
    "nothing found": "good",
}
WORDS = {"refused": "not compared", "fault": "fault", "lost": "worker died"}  # by status, where it is not done


def write_overview(out: Path, records: Sequence[PairRecord], *, total: int) -> Path:
    """Write the overview; with many pairs it goes on in ``overview-2.html`` and so on.

    Args:
        out: the cohort's folder.
        records: of all pairs that have ended.
        total: number of pairs in the list.

    Returns:
        The first page.

    Raises:
        InputError: a page cannot be written.
    """
    ordered = by_attention(records)
    parts = [ordered[i : i + PAGE_ROWS] for i in range(0, len(ordered), PAGE_ROWS)] or [[]]
    stem = Path(OVERVIEW).stem
    links = [OVERVIEW, *(f"{stem}-{number}.html" for number in range(2, len(parts) + 1))]
    for stale in out.glob(f"{stem}-*.html"):
        if stale.name not in links:
            stale.unlink()
    counts = Counter(attention_of(record) for record in records)
    shared = {
        "title": f"Overview of {total} {'pair' if total == 1 else 'pairs'}",
        "version": __version__,
        "counts": [(name, counts[name]) for name in ATTENTION] + [("still to do", total - len(records))],
        "summary": _summary(records),
        "links": links,
    }
    for number, (name, part) in enumerate(zip(links, parts, strict=True), start=1):
        page = render("overview.html.j2", rows=[_row(out, record) for record in part], page=number, **shared)
        with atomic_path(out / name) as temporary:
            temporary.write_text(page, "utf-8", errors="replace")
    return out / OVERVIEW


def _summary(records: Sequence[PairRecord]) -> str:
    """Time and memory of the pairs that were compared."""
    times = sorted(record.time_s for record in records if record.status == "done")
    if not times:
        return "No pair was compared."
    peaks = [record.peak_memory_mb for record in records if record.peak_memory_mb is not None]
    memory = f"; a worker used at most {max(peaks) / 1000:.1f} GB" if peaks else ""
    return f"A pair took {times[len(times) // 2]:.0f} s (median), {times[-1]:.0f} s at most{memory}."


def _row(out: Path, record: PairRecord) -> dict[str, Any]:
    values, figures = row_of(record), record.figures
    attention = attention_of(record)
    done = record.status == "done"
    kinds = [(figures.get(word.replace(" ", "_")) or 0, word) for word in KIND_WORDS.values()]
    dates = [figures.get(f"{side}_date") for side in ("template", "reference")]
    gate = "" if figures.get("gate") in (None, "fine") else "The gate asks to look at the inputs."
    count = figures.get("findings")
    possible = figures.get("possible") or 0
    return {
        "id": record.id,
        "picture": png_uri(PairPlace(out, record.id).thumbnail) if done else "",
        "alt": f"{record.id}: chest from the front, changes in colour",
        "report": quote(values["report"]) if values["report"] else "",
        "dates": " to ".join(date for date in dates if date),
        "words": WORDS.get(record.status, attention),
        "css": CSS[attention],
        "findings": DASH if count is None or figures.get("withheld") else count,
        "kinds": ", ".join([f"{n} {word}" for n, word in kinds if n] + ([f"{possible} possible"] if possible else [])),
        "growth": signed(figures.get("largest_growth_percent"), 0, "%"),
        "reasons": " ".join(filter(None, (record.message, gate, figures.get("reasons")))),
        "time": f"{record.time_s:.0f} s" if done else DASH,
    }
