"""Keep several CTs in one window: what the reader changes on one, the others follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ChangeMapJointLib.scene.nodes import Node


class SharedWindow:
    """Copies window and level from the CT that was changed to the others; :meth:`remove` ends it."""

    def __init__(self, nodes: Iterable[Node | None]) -> None:
        """Observe the display nodes of these volume nodes; None is skipped."""
        shown = [node.GetDisplayNode() for node in nodes if node is not None]
        self._displays = [display for display in dict.fromkeys(shown) if display is not None]
        self._observed = [(one, one.AddObserver("ModifiedEvent", self._on_modified)) for one in self._displays]
        self._busy = False

    def _on_modified(self, changed: Node, _event: Any) -> None:
        if self._busy:
            return
        self._busy = True
        values = changed.GetWindow(), changed.GetLevel()
        for display in self._displays:
            if display.GetScene() is not None and (display.GetWindow(), display.GetLevel()) != values:
                was = display.StartModify()
                display.AutoWindowLevelOff()
                display.SetWindowLevel(*values)
                display.EndModify(was)
        self._busy = False

    def remove(self) -> None:
        """Stop observing."""
        for display, observer in self._observed:
            display.RemoveObserver(observer)
        self._observed, self._displays = [], []
