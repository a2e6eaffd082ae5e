"""Reader studies of known content: the paper's Table 1, and one whose every figure is worked out by hand."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from ChangeMapJointLib.evaluation.readers.log import ARMS, SessionHeader
from ChangeMapJointLib.evaluation.readers.writer import ReadingLog

# Table 1 of the paper: mean, minimum and maximum of five reading times, by arm and reader
TABLE_1 = {
    "unaided": ((235.6, 137.0, 329.5), (348.0, 298.8, 450.4), (422.5, 324.3, 617.7)),
    "sequential": ((173.6, 112.6, 267.5), (268.3, 175.9, 360.5), (331.8, 226.3, 392.5)),
    "joint": ((258.6, 221.2, 293.6), (215.3, 149.5, 279.4), (286.7, 248.2, 305.8)),
}
CASES = ("c1", "c2", "c3", "c4", "c5")


def five_times(mean: float, least: float, most: float) -> list[float]:
    """Five times with these three figures: the other three lie evenly around their own mean."""
    middle = (5 * mean - least - most) / 3
    step = min(middle - least, most - middle) / 2
    return [least, middle - step, middle, middle + step, most]


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s

    def now(self) -> datetime:
        return datetime(2026, 3, 2, 8, tzinfo=timezone.utc) + timedelta(seconds=self.s)


def write_log(folder: Path, reader: str, session: int, arm: str, cases, week: float = 0.0) -> Path:
    """Write a log; ``cases`` gives for each case its name, seconds, and marks (x, y, z, rating)."""
    clock = Clock()
    clock.s = week * 7 * 86400.0
    path = folder / f"lungs_{reader}_{session}.jsonl"
    with ReadingLog(
        path, SessionHeader("lungs", reader, str(session), "viewer 1.0"), clock=clock, now=clock.now
    ) as log:
        for order, (case, seconds, marks) in enumerate(cases, 1):
            aided = arm != "unaided"
            log.begin(case, order=order, arm=arm, model="m1" if aided else "", threshold=0.3 if aided else None)
            for number, (x, y, z, rating) in enumerate(marks, 1):
                clock.s += seconds / (2 * len(marks))
                log.mark(number, (x, y, z), rating)
            clock.s += seconds / (2 if marks else 1)
            log.submit()
            clock.s += 20.0
    return path


def write_paper_study(folder: Path) -> Path:
    """The logs of the paper's study, as far as its Table 1 tells; three arms, a week apart."""
    for session, arm in enumerate(ARMS, 1):
        for k, figures in enumerate(TABLE_1[arm]):
            order = CASES[session:] + CASES[:session]
            times = dict(zip(CASES, five_times(*figures), strict=True))
            write_log(folder, f"Reader {k + 1}", session, arm, [(c, times[c], ()) for c in order], week=session)
    return folder


HAND_TRUTH = """case,lesion,x_mm,y_mm,z_mm,diameter_mm
a,1,0,0,0,10
a,2,40,0,0,6
b,1,0,50,0,8
n,,,,,
"""
HAND = {  # reader 1 and 2, unaided and joint; marks of every case with their ratings
    ("R1", "unaided"): {"a": [(0, 0, 0, 70)], "b": [(0, 90, 0, 60)], "n": [(5, 5, 5, 50)]},
    ("R1", "joint"): {"a": [(7.9, 0, 0, 80), (1, 0, 0, 90), (40, 0, 0, 40)], "b": [(0, 50, 0, 95)], "n": []},
    ("R2", "unaided"): {"a": [], "b": [(0, 50, 6.9, 30)], "n": []},
    ("R2", "joint"): {"a": [(0, 0, 0, 60), (40, 6.1, 0, 20)], "b": [(0, 50, 0, 50)], "n": [(9, 9, 9, 55)]},
}


def write_hand_study(folder: Path) -> tuple[Path, Path]:
    """The logs and the truth of a small study: joint takes half of the time."""
    logs = folder / "logs"
    logs.mkdir()
    for (reader, arm), marks in HAND.items():
        first = (arm == "unaided") == (reader == "R1")  # R2 begins with the joint map
        seconds = {"a": 100.0, "b": 60.0, "n": 20.0}
        scale = 1.0 if arm == "unaided" else 0.5
        order = "abn" if first else "nba"
        cases = [(c, seconds[c] * scale, marks[c]) for c in order]
        write_log(logs, reader, 1 if first else 2, arm, cases, week=0 if first else 1)
    truth = folder / "truth.csv"
    truth.write_text(HAND_TRUTH)
    return logs, truth
