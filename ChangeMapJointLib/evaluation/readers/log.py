"""The reading log: what a reader did in a reading session, one event on a line of JSON (UTF-8, JSON Lines).

A file holds one session: one reader, one arm (or several, case by case), in the order in which the cases were shown.
``docs/reading-log.md`` describes every event. :class:`~ChangeMapJointLib.evaluation.readers.writer.ReadingLog` writes
a log and :func:`~ChangeMapJointLib.evaluation.readers.load.read_log` reads it; :class:`Replay` holds the rules of both.
Only the standard library is needed, so that Slicer and a web server can write logs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
class Session:
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
class Reading:
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

    session: Session
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


@dataclass
class OpenCase:
    """The case that is being read; see :class:`Reading` for what the values mean."""

    case: str
    arm: Arm
    order: int
    model: str
    started: datetime
    threshold: float | None
    overlay: bool
    running: bool = True
    active_s: float = 0.0
    first_mark_s: float | None = None
    paused_s: float = 0.0
    pauses: int = 0
    marks: dict[int, Mark] = field(default_factory=dict)
    removed: int = 0
    threshold_changes: int = 0
    overlay_s: float = 0.0

    def reading(self, session: Session, submitted: datetime | None) -> Reading:
        """What was read up to now, as it would be if it were submitted at ``submitted``."""
        values = {
            name: getattr(self, name) for name in Reading.__dataclass_fields__ if name in OpenCase.__dataclass_fields__
        }
        values["marks"] = tuple(self.marks[number] for number in sorted(self.marks))
        return Reading(session=session, submitted=submitted, **values)


class Replay:
    """The state of a session after its events so far; refuses an event that cannot follow.

    Attributes:
        session: of the log; None before its first event.
        readings: cases that were submitted, in order.
        withdrawn: cases that were given up.
        open: the case that is being read; None between cases.
    """

    def __init__(self) -> None:
        self.session: Session | None = None
        self.readings: list[Reading] = []
        self.withdrawn: list[str] = []
        self.open: OpenCase | None = None
        self.at = datetime.fromtimestamp(0, timezone.utc)
        self.clock_s = 0.0

    def copy(self) -> Replay:
        """A copy that further events change on its own."""
        copied = Replay()
        copied.__dict__.update(self.__dict__, readings=[*self.readings], withdrawn=[*self.withdrawn])
        copied.open = None if self.open is None else replace(self.open, marks={**self.open.marks})
        return copied

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event.

        Raises:
            InputError: a field is missing or wrong, or the event cannot follow those before it.
        """
        kind = check_event(event)
        at, clock_s = parse_time(event["at"]), float(event["clock_s"])
        if kind == "session":
            self._session(event, at)
        elif self.session is None:
            raise InputError(f"begins with {kind!r}", expected="a session event first")
        else:
            if clock_s < self.clock_s:
                raise InputError(f"found {clock_s:g}", field="clock_s", expected=f"at least {self.clock_s:g}")
            self._spend(clock_s - self.clock_s)
            if kind == "case":
                self._case(event, at)
            elif kind != "note":
                self._in_case(kind, event, at)
        self.at, self.clock_s = at, clock_s

    def _spend(self, seconds: float) -> None:
        """Count ``seconds`` since the last event as reading time or as a pause."""
        if self.open is None:
            return
        if not self.open.running:
            self.open.paused_s += seconds
            return
        self.open.active_s += seconds
        self.open.overlay_s += seconds * self.open.overlay

    def _session(self, event: Mapping[str, Any], at: datetime) -> None:
        """Begin the session, or go on with it after an interruption, which counts as a pause."""
        session = session_of(event)
        if self.session is None:
            self.session = session
            return
        for name in ("study", "reader", "session", "seed", "planned"):
            known, found = getattr(self.session, name), getattr(session, name)
            if known != found:
                raise InputError(f"found {found!r}", field=name, expected=f"{known!r}, as the log begins with")
        self.session = session  # with the program that goes on
        if self.open is not None:
            self.open.paused_s += max((at - self.at).total_seconds(), 0.0)
            self.open.pauses += self.open.running  # else it was interrupted during a pause
            self.open.running = False

    def _case(self, event: Mapping[str, Any], at: datetime) -> None:
        if self.open is not None:
            raise InputError(f"case {event['case']!r} begins before {self.open.case!r} is submitted or withdrawn")
        if any(reading.case == event["case"] for reading in self.readings):
            raise InputError(f"case {event['case']!r} was submitted before")
        if any(reading.order == event["order"] for reading in self.readings):
            raise InputError(
                f"case {event['case']!r} has the order of a case above", field="order", value=event["order"]
            )
        if self.session and self.session.planned and event["case"] not in self.session.planned:
            raise InputError(f"case {event['case']!r} is not planned", expected=f"one of {self.session.planned}")
        arm: Arm = event["arm"]
        aided = arm != "unaided"
        if not aided and (event.get("threshold") is not None or event.get("overlay")):
            raise InputError(f"case {event['case']!r} is read unaided, but has an overlay")
        threshold = float(event["threshold"]) if event.get("threshold") is not None else None
        overlay = bool(event.get("overlay", aided))
        self.open = OpenCase(event["case"], arm, event["order"], event.get("model", ""), at, threshold, overlay)

    def _in_case(self, kind: str, event: Mapping[str, Any], at: datetime) -> None:
        """An event about the open case."""
        case = self.open
        if case is None or event["case"] != case.case:
            raise InputError(f"{kind} in case {event['case']!r}", expected=f"case {case.case!r}" if case else "a case")
        if kind in ("pause", "resume"):
            if case.running != (kind == "pause"):
                raise InputError(f"{kind} in case {case.case!r}, which {'runs' if case.running else 'is paused'}")
            case.running = kind == "resume"
            case.pauses += kind == "pause"
            return
        if kind not in ("submit", "withdraw") and not case.running:
            raise InputError(f"{kind} in case {case.case!r}, which is paused", expected="resume first")
        if kind in ("overlay", "threshold") and case.arm == "unaided":
            raise InputError(f"{kind} in case {case.case!r}, which is read unaided")
        if kind == "mark":
            self._mark(case, event)
        elif kind == "unmark":
            if case.marks.pop(event["mark"], None) is None:
                raise InputError(f"case {case.case!r} has no mark {event['mark']}", field="mark")
            case.removed += 1
        elif kind == "overlay":
            case.overlay = event["shown"]
        elif kind == "threshold":
            case.threshold, case.threshold_changes = float(event["threshold"]), case.threshold_changes + 1
        elif kind == "submit":
            assert self.session is not None
            self.readings.append(case.reading(self.session, at))
            self.open = None
        else:
            self.withdrawn.append(case.case)
            self.open = None

    @staticmethod
    def _mark(case: OpenCase, event: Mapping[str, Any]) -> None:
        """Place a mark, or move or rate again the one of that number."""
        x, y, z = (float(value) for value in event["position_mm"])
        before = case.marks.get(event["mark"])
        case.marks[event["mark"]] = Mark(
            event["mark"],
            (x, y, z),
            float(event["rating"]),
            event.get("label", before.label if before else ""),
            before.active_s if before else case.active_s,
            before.threshold if before else case.threshold,
            before.overlay if before else case.overlay,
        )
        if case.first_mark_s is None:
            case.first_mark_s = case.active_s


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


def session_of(event: Mapping[str, Any]) -> Session:
    """The session that a session event describes."""
    values = {name: event[name] for name in Session.__dataclass_fields__ if name in event}
    values["planned"] = tuple(values.get("planned", ()))
    return Session(**values)


def parse_time(text: str) -> datetime:
    """Read a time as the log writes it.

    Raises:
        InputError: it is none, or has no time zone.

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
