"""The reading log: what a reader did in a reading session, one event on a line of JSON (UTF-8, JSON Lines).

A file holds one session: one reader, one arm (or several, case by case), in the order in which the cases were shown.
``docs/reading-log.md`` describes every event. :class:`~ChangeMapJointLib.evaluation.readers.writer.ReadingLog` writes
a log and :func:`~ChangeMapJointLib.evaluation.readers.load.read_log` reads it;
:class:`~ChangeMapJointLib.evaluation.readers.replay.Replay` holds the rules of both.
Only the standard library is needed, so that Slicer and a web server can write logs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, get_args

from ChangeMapJointLib.core.errors import InputError

FORMAT = "changemap-reading-log"
VERSION = 1
SUFFIX = ".jsonl"

Arm = Literal["unaided", "sequential", "joint"]
ARMS: tuple[Arm, ...] = get_args(Arm)
RATINGS = (1.0, 100.0)  # from "hardly a lesion" to "certainly a lesion"
MARGIN_MM = 3.0  # how far outside a lesion a mark may lie

Event = Literal[
    "session", "case", "mark", "unmark", "overlay", "threshold", "pause", "resume", "note", "submit", "withdraw"
]
EVENTS: tuple[Event, ...] = get_args(Event)
TEXT, NUMBER, WHOLE, POINT, FLAG = "a text", "a number", "a whole number", "three numbers", "true or false"
FIELDS: Mapping[Event, Mapping[str, str]] = {  # beside event, at and clock_s, which every event has
    "session": {
        **dict.fromkeys(("format", "study", "reader", "session", "software", "interface"), TEXT),
        "version": WHOLE,
        "seed": WHOLE,
        "planned": "a list of texts",
    },
    "case": {"case": TEXT, "order": WHOLE, "arm": TEXT, "model": TEXT, "threshold": NUMBER, "overlay": FLAG},
    "mark": {"case": TEXT, "mark": WHOLE, "position_mm": POINT, "rating": NUMBER, "label": TEXT},
    "unmark": {"case": TEXT, "mark": WHOLE},
    "overlay": {"case": TEXT, "shown": FLAG},
    "threshold": {"case": TEXT, "threshold": NUMBER},
    "pause": {"case": TEXT, "reason": TEXT},
    "resume": {"case": TEXT},
    "note": {"text": TEXT},
    "submit": {"case": TEXT},
    "withdraw": {"case": TEXT, "reason": TEXT},
}


@dataclass(frozen=True)
class SessionHeader:
    """What holds for a whole session.

    Attributes:
        study: name of the study.
        reader: the reader's name in the study.
        session: name of the session, such as ``1``; a reader has one log for each.
        software: program and version that showed the cases.
        interface: ``browser``, ``slicer``, or another.
        seed: of the random order of the cases.
        planned: the cases in the order in which they are to be shown; may be empty.
    """

    study: str
    reader: str
    session: str
    software: str
    interface: str = "browser"
    seed: int = 0
    planned: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("study", "reader", "session", "software"):
            if not getattr(self, name).strip():
                raise InputError("is empty", field=f"Session.{name}", expected=TEXT)
        if len(set(self.planned)) < len(self.planned):
            raise InputError("holds a case twice", field="Session.planned")


@dataclass(frozen=True)
class Mark:
    """A place that the reader took for a lesion.

    Attributes:
        number: from 1 within the case.
        position_mm: LPS, in the current scan as acquired.
        rating: how certain the reader is, from 1 to 100.
        label: the reader's words, such as ``new``; may be empty.
        active_s: active reading time at which it was first placed, in s.
        threshold: of the overlay at that time; None without an overlay.
        overlay: whether the overlay was shown at that time.
    """

    number: int
    position_mm: tuple[float, float, float]
    rating: float
    label: str = ""
    active_s: float = 0.0
    threshold: float | None = None
    overlay: bool = False


@dataclass(frozen=True)
class CaseReading:
    """One case read by one reader in one arm.

    Attributes:
        session: of the log.
        case: name of the case.
        arm: ``unaided``, ``sequential`` or ``joint``.
        order: position in the session, from 1.
        model: what made the overlay: method, or SHA-256 of the weights; empty when unaided.
        started: when the case was first shown (UTC).
        submitted: when it was submitted (UTC); None if it never was.
        active_s: reading time without pauses and interruptions, in s; the statistics use this one.
        first_mark_s: active time at the first mark that was placed, kept or not; None without one.
        paused_s: total of the pauses and interruptions, in s.
        pauses: number of pauses and interruptions.
        marks: that were kept, by number.
        removed: number of marks that were taken back.
        threshold: last threshold of the overlay; None when unaided.
        threshold_changes: how often it was changed.
        overlay_s: active time with the overlay shown, in s.
    """

    session: SessionHeader
    case: str
    arm: Arm
    order: int
    model: str
    started: datetime
    submitted: datetime | None
    active_s: float
    first_mark_s: float | None
    paused_s: float
    pauses: int
    marks: tuple[Mark, ...]
    removed: int
    threshold: float | None
    threshold_changes: int
    overlay_s: float


OPTIONAL = frozenset({"interface", "seed", "planned", "model", "threshold", "overlay", "label", "reason"})


def check_event(event: Mapping[str, Any]) -> Event:
    """Check an event's fields for themselves, and return its kind.

    Raises:
        InputError: the kind or a field is unknown, missing, of another type or out of range.

    Examples:
        >>> check_event({"event": "submit", "at": "2026-01-01T08:00:00.000Z", "clock_s": 1.5, "case": "c1"})
        'submit'
    """
    kind: Event = event.get("event", "")
    if kind not in EVENTS:
        raise InputError(f"found {kind!r}", field="event", expected=f"one of {', '.join(EVENTS)}")
    fields = {"at": TEXT, "clock_s": NUMBER, **FIELDS[kind]}
    for name, what in fields.items():
        if name not in event:
            if name not in OPTIONAL or (kind == "threshold" and name == "threshold"):
                raise InputError(f"{kind} without {name}", expected=what)
        elif not _fits(event[name], what) and not (kind == "case" and name == "threshold" and event[name] is None):
            raise InputError(f"found {event[name]!r}", field=name, expected=what)
    for name in event:
        if name not in fields and name != "event":
            raise InputError(f"{kind} with an unknown field {name!r}", expected=f"only {', '.join(fields)}")
    _check_ranges(kind, event)
    return kind


def _fits(value: Any, what: str) -> bool:
    """Whether ``value`` is what a field expects."""
    if what == TEXT:
        return isinstance(value, str)
    if what == FLAG:
        return isinstance(value, bool)
    if what == "a list of texts":
        return isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)
    if what == POINT:
        return isinstance(value, (list, tuple)) and len(value) == 3 and all(_fits(v, NUMBER) for v in value)
    if isinstance(value, bool) or not isinstance(value, int if what == WHOLE else (int, float)):
        return False
    return abs(value) < 1e12 and math.isfinite(value)


def _check_ranges(kind: Event, event: Mapping[str, Any]) -> None:
    """Check what a field's type does not say.

    Raises:
        InputError: a value is out of its range.
    """
    low, high = RATINGS
    rules = {
        "clock_s": (event["clock_s"] >= 0, "0 or more"),
        "case": (bool(str(event.get("case", "-")).strip()), "a name"),
        "arm": (event.get("arm", ARMS[0]) in ARMS, f"one of {', '.join(ARMS)}"),
        "order": (event.get("order", 1) >= 1, "1 or more"),
        "mark": (event.get("mark", 1) >= 1, "1 or more"),
        "rating": (low <= event.get("rating", low) <= high, f"from {low:g} to {high:g}"),
        "threshold": (0 <= (event.get("threshold") or 0.0) <= 1, "from 0 to 1"),
        "format": (event.get("format", FORMAT) == FORMAT, repr(FORMAT)),
        "version": (event.get("version", VERSION) == VERSION, f"{VERSION}, which this program reads"),
    }
    for name, (valid, expected) in rules.items():
        if not valid:
            raise InputError(f"{kind}: found {event[name]!r}", field=name, expected=expected)


def session_of(event: Mapping[str, Any]) -> SessionHeader:
    """The session that a session event describes."""
    values = {name: event[name] for name in SessionHeader.__dataclass_fields__ if name in event}
    values["planned"] = tuple(values.get("planned", ()))
    return SessionHeader(**values)


def parse_time(text: str) -> datetime:
    """Read a time as the log writes it.

    Raises:
        InputError: it is not a time, or has no time zone.

    Examples:
        >>> parse_time("2026-01-01T08:00:00.250Z").microsecond
        250000
    """
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if time.tzinfo is None:
            raise ValueError("no time zone")
        return time.astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise InputError(f"found {text!r}", field="at", expected="a time such as 2026-01-01T08:00:00.250Z") from error


def format_time(time: datetime) -> str:
    """Word a time as the log writes it.

    Examples:
        >>> format_time(datetime(2026, 1, 1, 8, tzinfo=timezone.utc))
        '2026-01-01T08:00:00.000Z'
    """
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
