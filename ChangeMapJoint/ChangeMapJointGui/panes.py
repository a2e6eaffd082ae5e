"""What the views say of themselves: which scan, of which date, warped or as acquired; one window for both scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.pair_facts import PairFacts
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR
from ChangeMapJointLib.scene.pane_labels import PaneLabels
from ChangeMapJointLib.scene.results import Results
from ChangeMapJointLib.scene.windows import SharedWindow


class Panes:
    """Titles, orientation letters and scale of the views, and the shared window."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._facts: PairFacts | None = None
        self._labels = PaneLabels(slicer.app.layoutManager())
        self._window: SharedWindow | None = None
        self._warped = True
        self._flickering = False
        self._current: Sequence[str] = CURRENT  # views that show the current scan, or the prior in its place

    def limit(self, views: Sequence[str]) -> None:
        """Write into these of the current scan's views alone: another scan was loaded into the rest."""
        self._current = tuple(views)
        if self._window is not None:
            self.show(warped=self._warped)

    def show(self, *, warped: bool) -> None:
        """Write the titles; ``warped`` says what the prior's views show."""
        self._warped = warped
        if self._window is None:
            run = self._results
            self._window = SharedWindow((run.reference, run.template, run.warped))
        if self._facts is None:
            self._facts = PairFacts(self._results)
        current, prior = _("CURRENT"), _("PRIOR")
        dates = self._facts.current or "", self._facts.prior or ""
        titles = [paneTitle(current, dates[0]), paneTitle(prior, dates[1], prior_words(warped=True))]
        below = paneTitle(prior, dates[1], prior_words(warped=warped))
        upper = titles[1] if self._flickering else titles[0]
        self._labels.show({**dict.fromkeys(self._current, upper), **dict.fromkeys(PRIOR, below)})

    def flicker(self, on: bool) -> None:
        """Say what the current scan's views show while the reader flickers."""
        self._flickering = on
        self.show(warped=self._warped)

    def divide(self, plane: Any) -> None:
        """Draw where a swipe cuts the current scan's views; None takes the line away."""
        self._labels.divide(CURRENT, plane, (_("CURRENT"), _("PRIOR, warped")))

    def title(self, view: str) -> str:
        """Return what stands in a view."""
        return self._labels.title(view)

    def remove(self) -> None:
        """Take everything out of the views, and part the windows of the scans."""
        self._labels.remove()
        if self._window is not None:
            self._window.remove()
        self._window = None
        self._flickering = False


def prior_words(*, warped: bool) -> str:
    """Return how the prior is shown."""
    return _("warped: sizes are not its own") if warped else _("as acquired")


def paneTitle(scan: str, date: str, how: str = "") -> str:
    """Return what stands in a view: which scan, of which date, and how it is shown."""
    return "\n".join(filter(None, [f"{scan} {date}".strip(), how]))
