"""How much of a result a document of four pages has room for; what is left out is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ChangeMapJointLib.export.document.content import MOST_PICTURED
from ChangeMapJointLib.export.document.time_points import TimePoints

MOST_PAGES = 4
MOST_DATES = 7  # columns of the table of time points


@dataclass(frozen=True)
class Room:
    """How much of each part a document has room for; what is left out is said.

    Attributes:
        pictured: findings with key images.
        listed: findings with a row of their own; the next ones share a paragraph.
        named: findings in that paragraph.
        reasons: on the registration.
        reason_length: letters of a reason or note.
        comment_length: letters of a reader's comment.
        tracks: lesions in the table of time points.
    """

    pictured: int = MOST_PICTURED
    listed: int = 18
    named: int = 60
    reasons: int = 12
    reason_length: int = 600
    comment_length: int = 400
    tracks: int = 18


# pictures go first, since they are in the HTML report, too; the last one fits whatever a result holds
ROOMS = (
    Room(),
    Room(pictured=4, tracks=12),
    Room(pictured=4, listed=12, tracks=12, reasons=8, reason_length=300),
    Room(pictured=4, listed=12, named=40, reasons=8, reason_length=200, comment_length=200, tracks=6),
    Room(pictured=2, listed=8, named=20, reasons=6, reason_length=150, comment_length=80, tracks=3),
)


def cut(text: str, length: int) -> str:
    """A text of at most that many letters, which says so if it was longer."""
    return text if len(text) <= length else f"{text[:length].rstrip()}... (the rest is in the HTML report)"


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in words.

    Examples:
        >>> ranges([9, 10, 11, 14])
        '9 to 11, 14'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in parts)


def fitted(points: TimePoints, most: int) -> tuple[list[list[str]], list[str]]:
    """The table of time points with its sentences: the targets first, the first scan and the last ones."""
    head, *tracks, total, change, category = points.rows()
    last = len(head) - 1
    columns = [*range(last + 1)] if last <= MOST_DATES else [0, 1, *range(last + 2 - MOST_DATES, last + 1)]
    targets = {id(track) for track in points.targets}
    order = sorted(range(len(tracks)), key=lambda number: id(points.tracks[number]) not in targets)
    rows = [head, *(tracks[number] for number in order[:most]), total, change, category]
    left_out = [(len(tracks) - most, "lesions"), (last + 1 - len(columns), "scans")]
    words = " and ".join(f"{count} {name}" for count, name in left_out if count > 0)
    more = [f"{words} more are not shown here; the report as text lists all."] if words else []
    return [[row[column] for column in columns] for row in rows], [*points.sentences(), *more]
