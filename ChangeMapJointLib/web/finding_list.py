"""The list of what changed: its rows, the chosen one, and which of them are marked in the views."""

from __future__ import annotations

from typing import Any

from ChangeMapJointLib.change.sections import BY_MAP
from ChangeMapJointLib.web.rows import Row, marked, rows_of, sections_of
from ChangeMapJointLib.web.settings import Settings
from ChangeMapJointLib.web.shown_run import ShownRun


class FindingList:
    """The list of the run on screen, on trame's shared state.

    Attributes:
        rows: of the list, as :func:`~ChangeMapJointLib.web.rows.rows_of` returns them.
    """

    def __init__(self, state: Any) -> None:
        """Make an empty list.

        Args:
            state: of the trame server.
        """
        self._state = state
        self._shown: ShownRun | None = None
        self.rows: list[Row] = []

    def show(self, shown: ShownRun | None) -> None:
        """List what changed in a run; nothing in a reading session, and without a run."""
        self._shown = shown
        self._state.selected = ""
        self.fill()

    def fill(self) -> None:
        """List what the settings choose, and mark it in the views."""
        self.rows = [] if self._shown is None else rows_of(self._shown, self._shown.settings)
        self._state.rows, self._state.sections = self.rows, sections_of(self.rows)
        if self.row(self._state.selected) is None:
            self._state.selected = ""
        self.mark()

    def row(self, key: str) -> Row | None:
        """Return a row by its key; None where the list has none."""
        return next((row for row in self.rows if row["key"] == key), None)

    def choose(self, key: str) -> Row | None:
        """Choose a row and return it; None, and nothing is done, where the list has none."""
        row = self.row(key)
        if row is not None:
            self._state.selected = key
            self.mark()
        return row

    def beside(self, by: int) -> str:
        """Return the key of the row that follows (+1) or precedes (-1) the chosen one; empty for an empty list."""
        keys = [row["key"] for row in self._visible()]
        if not keys:
            return ""
        at = keys.index(self._state.selected) if self._state.selected in keys else (-1 if by > 0 else 0)
        return str(keys[(at + by) % len(keys)])

    def unfold(self) -> None:
        """Unfold all sections; fold them if they are unfolded already."""
        groups = [part["name"] for part in self._state.sections if part["folds"]]
        self._state.unfolded = [] if set(groups) <= set(self._state.unfolded) else groups

    def mark(self) -> None:
        """Mark the listed rows in the views, apart from the chosen one, which is in the middle of them."""
        if self._shown is not None:
            on = self._shown.settings.overlay
            rows = [row for row in self._visible() if row["key"] != self._state.selected] if on else []
            self._shown.mark([marked(row) for row in rows])

    def _visible(self) -> list[Row]:
        folded = {part["name"] for part in self._state.sections if part["folds"]} - set(self._state.unfolded)
        return [row for row in self.rows if row["section"] not in folded]


def lists_again(old: Settings, new: Settings) -> bool:
    """Return whether other settings make another list."""
    names = ["listed", "increases", "decreases"]
    if new.listed == BY_MAP:
        names += ["map", "threshold", "smallest"]
    return any(getattr(old, name) != getattr(new, name) for name in names)
