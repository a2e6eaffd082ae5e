"""The panel: its sections, the run on screen, and the parameter node that they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ChangeMapJointGui.change_map import MapSection
from ChangeMapJointGui.comparisons import ComparisonsSection
from ChangeMapJointGui.cursor import CursorSection
from ChangeMapJointGui.dictation import Dictation
from ChangeMapJointGui.export import ExportSection
from ChangeMapJointGui.findings_table import FindingsSection
from ChangeMapJointGui.inputs import InputsSection
from ChangeMapJointGui.legends import Legends
from ChangeMapJointGui.method import MethodSection
from ChangeMapJointGui.reading_session import ReadingSessionSection
from ChangeMapJointGui.registration_check import CheckSection
from ChangeMapJointGui.reviewing import Reviewing
from ChangeMapJointGui.run import RunSection
from ChangeMapJointGui.runs import resultsLoaded
from ChangeMapJointGui.shortcuts import Shortcuts
from ChangeMapJointGui.stored import StoredSection
from ChangeMapJointGui.theme import ThemeWatch
from ChangeMapJointGui.verdict import VerdictSection
from ChangeMapJointGui.views import ViewsSection
from ChangeMapJointLib.change.method_table import METHODS

if TYPE_CHECKING:  # importing them takes most of a second, and an empty panel does not need them
    from ChangeMapJointGui.preview import Preview
    from ChangeMapJointGui.session import Session
    from ChangeMapJointLib.scene.results import Results
    from ChangeMapJointLib.scene.view_state import ViewState

STATUS_MS = 20000


class Panel(VTKObservationMixin):
    """The content of the module's widget.

    Attributes:
        ui: the widgets of ``ChangeMapJoint.ui`` by name.
        logic: the module's logic, which runs comparisons.
        parameters: the parameter node; None while a scene is closing.
        session: the run on screen; None if there is none.
        preview: both chosen scans on screen, before they are compared; None if they are not shown.
    """

    def __init__(self, widget: Any, ui: Any, logic: Any) -> None:
        VTKObservationMixin.__init__(self)
        self.widget, self.ui, self.logic = widget, ui, logic
        self.parameters: Any = None
        self.entered = False
        self.session: Session | None = None
        self.preview: Preview | None = None
        self._connection: Any = None
        self._coming = False  # a run is about to be shown
        self._pending: Results | None = None  # loaded while another module was shown
        self._before: tuple[int, ViewState] | None = None  # layout and views before a run came on screen
        self._positions: ViewState | None = None  # where the views go when the run is drawn
        self.legends = Legends()
        self.inputs = InputsSection(self)
        self.method = MethodSection(self)
        self.run = RunSection(self)
        self.comparisons = ComparisonsSection(self)
        self.map = MapSection(self)
        self.reviewing = Reviewing(self)
        self.findings = FindingsSection(self)
        self.check = CheckSection(self)
        self.verdict = VerdictSection(self)
        self.dictation = Dictation(self)
        self.cursor = CursorSection(self)
        self.stored = StoredSection(self)
        self.views = ViewsSection(self)
        self.export = ExportSection(self)
        self.shortcuts = Shortcuts(self)
        self.readingSession = ReadingSessionSection(self)
        self._results = (
            self.comparisons,
            self.views,
            self.map,
            self.findings,
            self.verdict,
            self.check,
            self.dictation,
            self.cursor,
            self.stored,
            self.export,
        )  # views are made before the rest
        self._sections = (self.inputs, self.method, self.run, *self._results)
        self._theme = ThemeWatch(widget, self.restyle)
        self._showNothing()
        resultsLoaded.connect(self.showLoaded)

    # -- the parameter node -----------------------------------------------------------
    def setParameters(self, parameters: Any) -> None:
        """Connect the panel to a parameter node, or to none."""
        if parameters is None:
            self.readingSession.close()
        if self.parameters is not None:
            self.parameters.disconnectGui(self._connection)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.parameters = parameters
        if parameters is not None:
            self._connection = parameters.connectGui(self.ui)
            self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameters)
            if self.session is None:
                self.showResultsOfScene()
            self.onParameters()

    def onParameters(self, caller: Any = None, event: Any = None) -> None:  # noqa: ARG002
        """Update the sections: the user, a key or a script changed a parameter."""
        if not self.entered:  # the views are another module's
            return
        parameters = self.parameters
        for section in self._sections:
            if parameters is None or self.parameters is not parameters:  # a section's update may close the scene
                return
            section.update()

    def restyle(self) -> None:
        """Color all texts for the theme in use, dark or light."""
        for section in (self.map, self.run, self.findings):
            section.restyle()
        for texts in (self.inputs, self.verdict):
            texts.showResult()
        if self.entered and self.parameters is not None:
            self.map.update()  # both draw their legends
            self.check.update()

    @contextmanager
    def oneChange(self) -> Iterator[Any]:
        """Group several changes of the parameter node, so that the panel updates once."""
        node = self.parameters.parameterNode
        before = node.StartModify()
        try:
            yield self.parameters
        finally:
            node.EndModify(before)

    # -- the run on screen ------------------------------------------------------------
    def loadJob(self, job: Any, *, recover: bool = False) -> bool:
        """Show the result of a job.

        Args:
            job: a finished job.
            recover: also load its scans, if they are no longer in the scene.

        Returns:
            False if its scans are gone and ``recover`` is False; the job then stays recoverable.
        """
        return self.logic.runs.load(job, recover=recover) is not None

    def showLoaded(self, results: Results) -> None:
        """Show results that the panel or a script has just loaded."""
        if self.parameters is None:  # the scene was closed while another module is shown
            self.setParameters(self.logic.getParameterNode())
        from ChangeMapJointLib.scene.judged_list import operating_point_of

        with self.oneChange() as parameters:
            parameters.reference, parameters.template = results.reference, results.template
            parameters.listBy = operating_point_of(results.content.get("findings", {})) or parameters.listBy
            parameters.method = results.method if results.method in METHODS else parameters.method
        self.show(results)

    def show(self, results: Results) -> None:
        """Show a run instead of the one on screen; if another module is shown, when the user comes back."""
        from ChangeMapJointGui.session import Session

        if not self.entered or self.readingSession.active:  # a study's reader must not see what is found
            self._pending = results
            text = _("The comparison is done: open the module Change Map Joint to see it.")
            slicer.util.showStatusMessage(text, STATUS_MS)
            return
        session = Session(results)
        self.shortcuts.endFlicker()
        self._positions = None
        self._coming = True
        self._endPreview()
        if self.session is not None:
            if self.session.results.reference is results.reference:
                self._positions = self._viewState()  # another method on the same scan: at the same place
            self.session.close()
            self.session = None
        with self.oneChange() as parameters:
            parameters.comparison = results.run
            if parameters.map not in session.maps and session.maps:
                parameters.map = session.maps[0]
            if session.maps:
                parameters.threshold = session.threshold
            parameters.readerVerdict = session.readerVerdict
            if session.unusable:  # remaining misalignment would look like change
                parameters.showOverlay = False
        self._pending = None
        self.session = session  # only now, so that the changes above do not draw it twice
        self._coming = False
        for section in (self.inputs, *self._results):
            section.showResult()
        self.onParameters()

    def showResultsOfScene(self) -> None:
        """Show the run of the scene that was shown last, else the newest, if there is one."""
        if not slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTextNode"):  # every run has one
            return
        from ChangeMapJointLib.scene.results import Results

        runs = [results for results in Results.all_of_scene() if results.reference is not None]
        last = [results for results in runs if results.run == self.parameters.comparison]
        for results in (last or runs)[:1]:
            self.show(results)

    def showChosen(self) -> None:
        """Show both scans that are chosen as soon as they are, unless a run is on screen."""
        parameters = self.parameters
        pair = (None, None) if parameters is None else (parameters.reference, parameters.template)
        free = self.entered and self.session is None and not (self._coming or self.readingSession.active)
        wanted = free and pair[0] is not pair[1] and all(node is not None and node.GetImageData() for node in pair)
        if self.preview is not None:
            if wanted and self.preview.pair == pair:
                return
            ended = self._endPreview()
            if not wanted:  # else the layout would change twice
                self._restoreViews(ended)
        if wanted:
            from ChangeMapJointGui.preview import Preview

            preview = self.preview = Preview(*pair)
            self.keepViews()
            preview.arrange()
            slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)  # gives the views their sizes
            if self.preview is preview:
                preview.fit()
                preview.setWindow(self.parameters.window)

    def _endPreview(self) -> Preview | None:
        """Take the texts of the preview off the views, and return it; None if there is none."""
        preview, self.preview = self.preview, None
        if preview is not None:
            preview.remove()
        return preview

    def hide(self) -> None:
        """Remove the run from the screen, which is as it was before; its nodes stay in the scene."""
        self._pending = self._positions = None
        if self.session is not None:
            session = self.session
            session.close()
            self._restoreViews(session)
        self._restoreViews(self._endPreview())
        self._showNothing()

    def keepViews(self) -> None:
        """Remember layout, layers and windows before a run or the chosen scans change them."""
        shown = self.session or self.preview
        if shown is not None and self._before is None:
            from ChangeMapJointLib.scene import layouts

            self._before = layouts.current(slicer.app.layoutManager()), self._viewState()
        elif shown is not None and self._before is not None:
            self._before[1].remember(shown.scans)

    def placeViews(self) -> None:
        """Put the views where the reader left them, if that is known."""
        if self._positions is not None:
            self._positions.restore_positions()
            self._positions = None

    def _viewState(self) -> ViewState:
        from ChangeMapJointLib.scene.nodes import CURRENT
        from ChangeMapJointLib.scene.view_state import ViewState

        shown = self.session or self.preview
        return ViewState(CURRENT, shown.scans if shown is not None else ())

    def _restoreViews(self, shown: Session | Preview | None) -> None:
        """Give the views back as they were before a run or the chosen scans came on screen."""
        from ChangeMapJointLib.scene import layouts

        if self._before is None or shown is None:
            return
        (layout, views), self._before = self._before, None
        layouts.leave(layout, slicer.app.layoutManager())
        views.restore({node.GetID() for node in shown.scans})

    def _showNothing(self) -> None:
        self.session = None
        for section in (self.inputs, *self._results):
            section.showResult()

    # -- the module's life ------------------------------------------------------------
    def enter(self) -> None:
        """Connect the parameter node, show the run, and enable the keys: the module is shown."""
        self.entered = True
        self._theme.check()
        if self.parameters is None or self.parameters.parameterNode.GetScene() is None:
            self.setParameters(
                self.logic.getParameterNode()
            )  # once per scene: before Slicer 5.12 each call leaves observers
        elif self._pending is not None and self._pending.record.GetScene() is not None:
            self.show(self._pending)
        elif self.session is not None:
            for section in (self.views, self.map, self.check):
                section.showResult()
            self.onParameters()
        else:
            self.onParameters()
        if self.readingSession.active:
            return
        if self.session is None:
            self.inputs.prefill()
            self.showChosen()
        self.shortcuts.enable()

    def exit(self) -> None:
        """Give views and keys back: another module is shown."""
        self.readingSession.leave()
        self.shortcuts.disable()
        if self.session is not None and self.entered:
            self._positions = self._viewState()
            self.session.leave()
            self._restoreViews(self.session)
        self._restoreViews(self._endPreview())
        self.entered = False

    def close(self) -> None:
        """Disconnect everything: the application quits or the module is unloaded."""
        self.shortcuts.disable()
        self.setParameters(None)
        self.hide()
        self.entered = False
        for section in (self.run, self.method, self.export):
            section.close()
        self.cursor.removeObservers()
        resultsLoaded.disconnect(self.showLoaded)
        self.removeObservers()
