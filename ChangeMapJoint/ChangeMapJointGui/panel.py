"""The panel: its sections, the run on screen, and the parameter node that they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.util import VTKObservationMixin

from ChangeMapJointGui.change_map import MapSection
from ChangeMapJointGui.cursor import CursorSection
from ChangeMapJointGui.dictation import Dictation
from ChangeMapJointGui.export import ExportSection
from ChangeMapJointGui.findings_table import FindingsSection
from ChangeMapJointGui.inputs import InputsSection
from ChangeMapJointGui.legends import Legends
from ChangeMapJointGui.method import MethodSection
from ChangeMapJointGui.registration_check import CheckSection
from ChangeMapJointGui.run import RunSection
from ChangeMapJointGui.runs import resultsLoaded
from ChangeMapJointGui.shortcuts import Shortcuts
from ChangeMapJointGui.stored import StoredSection
from ChangeMapJointGui.verdict import VerdictSection
from ChangeMapJointGui.views import ViewsSection

if TYPE_CHECKING:  # importing them takes most of a second, and an empty panel does not need them
    from ChangeMapJointGui.session import Session
    from ChangeMapJointLib.scene.results import Results


class Panel(VTKObservationMixin):
    """The content of the module's widget.

    Attributes:
        ui: the widgets of ``ChangeMapJoint.ui`` by name.
        logic: the module's logic, which runs comparisons.
        parameters: the parameter node; None while a scene is closing.
        session: the run on screen; None if there is none.
    """

    def __init__(self, widget: Any, ui: Any, logic: Any) -> None:
        VTKObservationMixin.__init__(self)
        self.widget, self.ui, self.logic = widget, ui, logic
        self.parameters: Any = None
        self.session: Session | None = None
        self._connection: Any = None
        self.legends = Legends()
        self.inputs = InputsSection(self)
        self.method = MethodSection(self)
        self.run = RunSection(self)
        self.map = MapSection(self)
        self.findings = FindingsSection(self)
        self.check = CheckSection(self)
        self.verdict = VerdictSection(self)
        self.dictation = Dictation(self)
        self.cursor = CursorSection(self)
        self.stored = StoredSection(self)
        self.views = ViewsSection(self)
        self.export = ExportSection(self)
        self.shortcuts = Shortcuts(self)
        self._results = (self.views, self.map, self.findings, self.verdict, self.check, self.dictation, self.cursor, self.stored, self.export)  # views first: they are made
        self._sections = (self.inputs, self.method, self.run, *self._results)
        self._showNothing()
        resultsLoaded.connect(self.showLoaded)

    # -- the parameter node -----------------------------------------------------------
    def setParameters(self, parameters: Any) -> None:
        """Connect the panel to a parameter node, or to none."""
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
        parameters = self.parameters
        for section in self._sections:
            if parameters is None or self.parameters is not parameters:  # a section's update may close the scene
                return
            section.update()

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
        self.show(results)

    def show(self, results: Results) -> None:
        """Show a run instead of the one on screen."""
        from ChangeMapJointGui.session import Session

        self.hide()
        session = Session(results)
        with self.oneChange() as parameters:
            if parameters.map not in session.maps and session.maps:
                parameters.map = session.maps[0]
            parameters.readerVerdict = session.readerVerdict
            if session.unusable:  # remaining misalignment would look like change
                parameters.showOverlay = False
        self.session = session  # only now, so that the changes above do not draw it twice
        for section in (self.inputs, *self._results):
            section.showResult()
        self.onParameters()
        self.shortcuts.observeViews()

    def showResultsOfScene(self) -> None:
        """Show the run that was saved with the scene, if there is one."""
        if not slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTextNode"):  # every run has one
            return
        from ChangeMapJointLib.scene.results import Results

        results = Results.of_scene()
        if results is not None and results.reference is not None:
            self.show(results)

    def hide(self) -> None:
        """Remove the run from the screen; its nodes stay in the scene."""
        if self.session is not None:
            self.session.close()
        self._showNothing()

    def _showNothing(self) -> None:
        self.session = None
        for section in (self.inputs, *self._results):
            section.showResult()

    # -- the module's life ------------------------------------------------------------
    def enter(self) -> None:
        """Connect the parameter node and enable the keys: the module is shown."""
        if self.parameters is None or self.parameters.parameterNode.GetScene() is None:
            self.setParameters(
                self.logic.getParameterNode()
            )  # once per scene: before Slicer 5.12 each call leaves observers
        else:
            self.onParameters()
        self.shortcuts.enable()

    def exit(self) -> None:
        """Disable the keys: another module is shown, and may use them."""
        self.shortcuts.disable()

    def close(self) -> None:
        """Disconnect everything: the application quits or the module is unloaded."""
        self.shortcuts.disable()
        self.setParameters(None)
        self.hide()
        for section in (self.run, self.method):
            section.close()
        self.cursor.removeObservers()
        resultsLoaded.disconnect(self.showLoaded)
        self.removeObservers()
