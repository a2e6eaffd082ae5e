"""The values of map, difference and trust under the cursor: Slicer's own data probe does not show added layers."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ChangeMapJointLib.scene.nodes import CURRENT

HINT = "Point at a place in the current scan to read its values."


class CursorSection(VTKObservationMixin):
    """Follows the cursor in the views of the current scan."""

    def __init__(self, panel: Any) -> None:
        VTKObservationMixin.__init__(self)
        self.panel, self.ui = panel, panel.ui
        self._probe: Any = None
        self._key = ""  # of the map that it reads

    def showResult(self) -> None:
        """Read the maps of the run on screen."""
        self.removeObservers()
        self._probe = None
        session = self.panel.session
        self.ui.cursorLabel.text = _(HINT) if session is not None and session.hasFindings else ""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if session is not None and session.hasFindings and crosshair is not None:
            self.addObserver(crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self.onCursor)

    def update(self) -> None:
        """Do nothing: the values do not depend on the parameter node."""

    def onCursor(self, crosshair: Any, event: Any = None) -> None:  # noqa: ARG002
        """Show the values under the cursor."""
        session, ras = self.panel.session, [0.0] * 3
        view = crosshair.GetCursorPositionXYZ([0.0] * 3)
        inside = view is not None and view.GetLayoutName() in CURRENT and crosshair.GetCursorPositionRAS(ras)
        if session is None or not inside or session.mapNode is None or session.mapNode.GetScene() is None:
            self.ui.cursorLabel.text = _(HINT) if session is not None and session.hasFindings else ""
            return
        key = self.panel.parameters.map
        if self._probe is None or key != self._key:
            from ChangeMapJointLib.scene.probe import Probe

            run, self._key = session.results, key
            shown = getattr(run, key, None) if key in session.maps else session.mapNode
            self._probe = Probe((shown, run.signed, run.trust, run.jacobian))
        self.ui.cursorLabel.text = valuesInWords(*self._probe.at(ras))


def valuesInWords(change: float | None, hu: float | None, trust: float | None, jacobian: float | None) -> str:
    """Return the values at a point on one line; unknown ones are left out."""
    parts = [
        "" if change is None else _("map {value}").format(value=f"{change:.2f}"),
        "" if hu is None else _("{value} HU").format(value=f"{hu:+.0f}"),
        "" if trust is None else _("trust {value}").format(value=f"{trust:.2f}"),
        "" if jacobian is None else _("Jacobian {value}").format(value=f"{jacobian:.2f}"),
    ]
    return _("Under the cursor: {values}").format(values=", ".join(filter(None, parts)) or _("outside"))
