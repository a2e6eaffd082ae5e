"""Box "Reading session" in Advanced: cases of a worklist are read with a clock, marks and a log, as in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ChangeMapJointGui.choices import currentKey, fillChoices, onChosen
from ChangeMapJointGui.messages import showErrors
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import lps_to_ras

# parts of the panel that tell what a comparison found, or would change what is on screen
OTHERS = (
    *("inputsCollapsibleButton", "runWidget", "comparisonWidget", "verdictWidget", "findingsCollapsibleButton"),
    *("mapCollapsibleButton", "checkCollapsibleButton", "viewsCollapsibleButton", "exportCollapsibleButton"),
)


class ReadingSessionSection(VTKObservationMixin):
    """Starts a session, and shows its cases one after the other.

    Attributes:
        session: what is read, and its log; None without a session.
        case: the case on screen; None between two.
    """

    def __init__(self, panel: Any) -> None:
        VTKObservationMixin.__init__(self)
        self.panel = panel
        self.session: Any = None
        self.case: Any = None
        self._numbers: dict[str, int] = {}  # of the marks, by the identifiers of their control points
        self._disabled: list[Any] = []
        self._before: tuple[int, Any] | None = None  # layout and views before a case came on screen
        self._build()
        self._settling = qt.QTimer()
        self._settling.setSingleShot(True)
        self._settling.connect("timeout()", self._settle)
        self.update()

    @property
    def active(self) -> bool:
        """Whether a session is being held."""
        return self.session is not None

    # -- widgets ---------------------------------------------------------------------------------
    def _build(self) -> None:
        self.box = qt.QGroupBox(_("Reading session"))
        form = qt.QFormLayout(self.box)
        self.worklist, self.reader, self.arm = ctk.ctkPathLineEdit(), qt.QLineEdit(), qt.QComboBox()
        self.worklist.toolTip = _("CSV with one row per case: case, run, and maybe arm, reference, template.")
        arms = [("unaided", _("Without a map")), ("sequential", "CM_seq"), ("joint", "CM_comb")]
        fillChoices(self.arm, [("", _("As in the worklist")), *arms])
        self.status, self.marks, self.rating = qt.QLabel(), qt.QComboBox(), ctk.ctkSliderWidget()
        self.status.wordWrap = True
        self.rating.minimum, self.rating.maximum, self.rating.singleStep, self.rating.decimals = 1.0, 100.0, 1.0, 0
        self.showMap, self.threshold = qt.QCheckBox(_("Show the map")), ctk.ctkSliderWidget()
        self.threshold.minimum, self.threshold.maximum, self.threshold.singleStep = 0.05, 1.0, 0.01
        self.start = self._button(_("Start or resume"), self.onStart)
        self.next = self._button(_("Show the next case"), self.onNext)
        self.place = self._button(_("Place marks"), self.onPlace)
        self.unmark = self._button(_("Remove the mark"), self.onUnmark)
        self.pause = self._button(_("Pause"), self.onPause)
        self.submit = self._button(_("Submit case"), self.onSubmit)
        self.end = self._button(_("End the session"), self.onEnd)
        rows = ((_("Worklist:"), self.worklist), (_("Reader:"), self.reader), (_("Arm:"), self.arm))
        reading = ((_("Mark:"), self.marks), (_("Rating:"), self.rating), (_("Threshold:"), self.threshold))
        for label, widget in rows:
            form.addRow(label, widget)
        for widget in (self.start, self.status, self.next, self.place):
            form.addRow(widget)
        for label, widget in reading[:2]:
            form.addRow(label, widget)
        for widget in (self.unmark, self.showMap):
            form.addRow(widget)
        form.addRow(*reading[2])
        for widget in (self.pause, self.submit, self.end):
            form.addRow(widget)
        onChosen(self.marks, lambda key: self._showMark())  # noqa: ARG005
        self.rating.connect("valueChanged(double)", self.onRating)
        self.showMap.connect("toggled(bool)", lambda on: self._onMap())  # noqa: ARG005
        self.threshold.connect("valueChanged(double)", lambda value: self._onMap())  # noqa: ARG005
        self.panel.ui.advancedCollapsibleButton.layout().addRow(self.box)

    def _button(self, text: str, act: Any) -> Any:
        button = qt.QPushButton(text)
        button.connect("clicked(bool)", lambda checked=False: self._logged(act))  # noqa: ARG005
        return button

    def _logged(self, act: Any) -> None:
        """Do something that is logged; where the log cannot be written, say so and show what it holds."""
        with showErrors(_("The reading log cannot be written.")):
            act()
            return
        self.update()

    # -- the session -----------------------------------------------------------------------------
    def onStart(self) -> None:
        """Open worklist and log; a session of these names is resumed."""
        with showErrors(_("The reading session cannot be held.")):
            from ChangeMapJointLib.evaluation.readers.reading_session import SessionRequest, open_session

            if not self.worklist.currentPath:
                raise InputError("is missing", field="worklist", expected="a CSV file of the cases")
            worklist = Path(self.worklist.currentPath)
            arm: Any = currentKey(self.arm) or None
            request = SessionRequest(worklist, str(self.reader.text).strip(), arm, folder=worklist.parent)
            self.session = open_session(request, "module")
        if self.active:
            self.panel.hide()
            self.panel.shortcuts.disable()
            widgets = [getattr(self.panel.ui, name, None) for name in OTHERS]
            self._disabled = [widget for widget in widgets if widget is not None and widget.enabled]
            for widget in self._disabled:
                widget.enabled = False
        self.update()

    def onNext(self) -> None:
        """Show the case that is next, or resume one that was interrupted; its time begins when it can be seen."""
        state = self.session.state
        if state == "done":
            return
        with showErrors(_("The case cannot be shown.")):
            if self.case is None:
                self._show()
            if state == "waiting":
                self.session.begin(self.case.threshold)
            else:
                if self._before is None:  # the module was left meanwhile
                    self._arrange()
                self.case.show()
                self.session.resume()
                self._onMap()
        self.update()

    def onPause(self) -> None:
        """Stop the clock, and hide the case."""
        self.stop(_("button"))

    def leave(self) -> None:
        """Stop the clock, and give the views back: another module is shown."""
        self._logged(lambda: self.stop(_("module left")))
        self._giveViewsBack()

    def stop(self, reason: str) -> None:
        """Stop the clock, and hide the case."""
        if self.active and self.session.pause(reason):
            self._endPlacing()
            self.case.hide()
            self.update()

    def onSubmit(self) -> None:
        """Finish the case."""
        if self.session.submit():
            self._hideCase()
            self.update()

    def onEnd(self) -> None:
        """End the session; the same worklist and reader resume it."""
        self.close()
        if self.panel.entered:
            self.panel.enter()  # keys, and a comparison that has ended meanwhile

    def close(self) -> None:
        """End the session: the user wants it, the scene is closed, or the application quits."""
        if not self.active:
            return
        self._logged(lambda: self.session.pause("session ended"))
        self._hideCase()
        self._giveViewsBack()
        self.session.log.close()
        self.session = None
        for widget in self._disabled:
            widget.enabled = True
        self._disabled = []
        self.update()

    # -- the case ---------------------------------------------------------------------------------
    def _show(self) -> None:
        from ChangeMapJointLib.scene.study_case import StudyCase

        self.case = StudyCase(self.session.run, aided=self.session.aided)
        self._arrange()
        known = self.session.marks
        self._numbers = dict(zip(self.case.restore_marks(known), [mark.number for mark in known], strict=True))
        opened = self.session.log.open
        self.showMap.checked = opened is not None and opened.overlay
        self.threshold.value = self.case.threshold if opened is None else opened.threshold or self.case.threshold
        node = self.case.marks
        self.addObserver(node, node.PointPositionDefinedEvent, self.onMarks)
        self.addObserver(node, node.PointEndInteractionEvent, self.onMarks)
        self.addObserver(node, node.PointRemovedEvent, self.onMarks)

    def _arrange(self) -> None:
        """Give the views to the case; what they showed comes back when the session ends or the module is left."""
        from ChangeMapJointLib.scene import layouts
        from ChangeMapJointLib.scene.nodes import CURRENT
        from ChangeMapJointLib.scene.view_state import ViewState

        manager = slicer.app.layoutManager()
        if self._before is None:
            self._before = layouts.current(manager), ViewState(CURRENT, ())
        self.case.arrange(manager)
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)  # gives the views their sizes
        self.case.fit()

    def _giveViewsBack(self) -> None:
        if self._before is None:
            return
        from ChangeMapJointLib.scene import layouts
        from ChangeMapJointLib.scene.study_case import NOTHING

        (layout, views), self._before = self._before, None
        layouts.leave(layout, slicer.app.layoutManager())
        black = slicer.mrmlScene.GetFirstNodeByName(NOTHING)
        views.restore(set() if black is None else {black.GetID()})

    def _hideCase(self) -> None:
        self._endPlacing()
        self._settling.stop()
        self.removeObservers()
        if self.case is not None:
            self.case.close()
        self.case, self._numbers = None, {}

    # -- marks ---------------------------------------------------------------------------------------
    def onPlace(self) -> None:
        """Let clicks in the views place marks until the right mouse button ends it."""
        selection = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        if selection is not None and interaction is not None:
            selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
            selection.SetActivePlaceNodeID(self.case.marks.GetID())
            interaction.SetPlaceModePersistence(1)
            interaction.SetCurrentInteractionMode(interaction.Place)

    def _endPlacing(self) -> None:
        interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        if interaction is not None and interaction.GetCurrentInteractionMode() == interaction.Place:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)

    def onMarks(self, node: Any, event: Any = None) -> None:  # noqa: ARG002
        """Log what was placed, moved or removed."""
        self._logged(lambda: self._logMarks(node))
        self._dropUnlogged(node)

    def _dropUnlogged(self, node: Any) -> None:
        """Take back what could not be logged: it would not count."""
        if self.case is None or self.session.state != "reading":
            return
        for i in reversed(range(node.GetNumberOfControlPoints())):
            defined = node.GetNthControlPointPositionStatus(i) == node.PositionDefined
            if defined and str(node.GetNthControlPointID(i)) not in self._numbers:
                node.RemoveNthControlPoint(i)

    def _logMarks(self, node: Any) -> None:
        from ChangeMapJointLib.scene.study_case import view_under_cursor

        if self.case is None or self.session.state != "reading":
            return
        defined = [
            i
            for i in range(node.GetNumberOfControlPoints())
            if node.GetNthControlPointPositionStatus(i) == node.PositionDefined
        ]
        places = {str(node.GetNthControlPointID(i)): (i, tuple(node.GetNthControlPointPosition(i))) for i in defined}
        chosen = currentKey(self.marks)
        for identifier in set(self._numbers) - set(places):
            self.session.unmark(self._numbers[identifier])
            del self._numbers[identifier]
        for identifier, (index, ras) in places.items():
            number = self._numbers.get(identifier)
            if number is None:
                place = self.case.in_current(ras, view_under_cursor())
                number = self.session.place(lps_to_ras(place).tolist())
                chosen = str(number)
                self._numbers[identifier] = number
                node.SetNthControlPointLabel(index, str(number))
                node.SetNthControlPointPosition(index, *place)
            elif self._move(number, lps_to_ras(ras).tolist()):
                chosen = str(number)
        self.update()
        index = self.marks.findData(chosen)  # what was touched last is rated next
        self.marks.setCurrentIndex(index if index >= 0 else self.marks.count - 1)

    def _move(self, number: int, position_mm: list[float]) -> bool:
        mark = self.session.mark(number)
        if mark is None or max(abs(a - b) for a, b in zip(mark.position_mm, position_mm, strict=True)) <= 0.01:
            return False
        self.session.move(number, position_mm)
        return True

    def onRating(self, value: float) -> None:
        """Rate the chosen mark."""
        mark = self._chosen()
        if mark is not None and mark.rating != value:
            self._logged(lambda: self.session.rate(mark.number, value))

    def onUnmark(self) -> None:
        """Remove the chosen mark."""
        mark = self._chosen()
        identifier = next((key for key, number in self._numbers.items() if mark and number == mark.number), None)
        if identifier is not None:
            self.case.marks.RemoveNthControlPoint(self.case.marks.GetNthControlPointIndexByID(identifier))

    def _chosen(self) -> Any:
        key = currentKey(self.marks)
        return self.session.mark(int(key)) if self.active and key else None

    def _showMark(self) -> None:
        mark = self._chosen()
        wasBlocked = self.rating.blockSignals(True)
        self.rating.value = 1.0 if mark is None else float(mark.rating)
        self.rating.blockSignals(wasBlocked)
        self.rating.enabled = self.unmark.enabled = mark is not None

    # -- the map ---------------------------------------------------------------------------------------
    def _onMap(self) -> None:
        from ChangeMapJointLib.evaluation.readers.reading_session import SETTLED_S

        if self.case is None or self.session.state != "reading":
            return
        shown, threshold = bool(self.showMap.checked), round(float(self.threshold.value), 3)
        self.case.set_map(shown=shown, threshold=threshold)
        self._logged(lambda: self._watch(shown, threshold, round(1000 * SETTLED_S)))

    def _watch(self, shown: bool, threshold: float, rest_ms: int) -> None:
        if self.session.watch(overlay=shown, threshold=threshold):
            self._settling.start(rest_ms)

    def _settle(self) -> None:
        if self.active:
            self._logged(self.session.settle)

    # -- what is shown -----------------------------------------------------------------------------------
    def update(self) -> None:
        """Show where the session stands."""
        state = self.session.state if self.active else ""
        reading, aided = state == "reading", self.active and self.session.aided
        for widget in (self.worklist, self.reader, self.arm, self.start):
            widget.enabled = not self.active
        self.next.enabled = state in ("waiting", "paused")
        self.next.text = _("Resume") if state == "paused" else _("Show the next case")
        for widget in (self.place, self.marks, self.pause, self.submit):
            widget.enabled = reading
        self.showMap.enabled = self.threshold.enabled = reading and aided
        self.end.enabled = self.active
        self.status.text = self._words(state)
        fillChoices(self.marks, [(str(m.number), str(m.number)) for m in self.session.marks] if reading else [])
        self._showMark()

    def _words(self, state: str) -> str:
        if not self.active:
            return _("A study reader reads the cases of a worklist; what is found is never shown.")
        if state == "done":
            return _("All cases are submitted. Thank you.")
        text = _("Case {order} of {total}. {done} submitted.").format(
            order=self.session.order, total=len(self.session.cases), done=len(self.session.log.readings)
        )
        return text + (" " + _("Paused: no time is counted.") if state == "paused" else "")
