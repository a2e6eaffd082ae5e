"""A reading session as its log tells it, event by event: what was read, and which event may come next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers.log import (
    Arm,
    CaseReading,
    Mark,
    SessionHeader,
    check_event,
    parse_time,
    session_of,
)


@dataclass
class OpenCase:
    """The case that is being read; see :class:`CaseReading` for what the values mean."""

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

    def reading(self, session: SessionHeader, submitted: datetime | None) -> CaseReading:
        """What was read up to now, as it would be if it were submitted at ``submitted``."""
        values = {
            name: getattr(self, name)
            for name in CaseReading.__dataclass_fields__
            if name in OpenCase.__dataclass_fields__
        }
        values["marks"] = tuple(self.marks[number] for number in sorted(self.marks))
        return CaseReading(session=session, submitted=submitted, **values)


class Replay:
    """The state of a session after its events so far; refuses an event that cannot follow.

    Attributes:
        session: of the log; None before its first event.
        readings: cases that were submitted, in order.
        withdrawn: cases that were given up.
        open: the case that is being read; None between cases.
    """

    def __init__(self) -> None:
        self.session: SessionHeader | None = None
        self.readings: list[CaseReading] = []
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
        """Begin the session, or resume it after an interruption, which counts as a pause."""
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
