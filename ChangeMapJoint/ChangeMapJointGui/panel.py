"""The panel: its sections, the run that is shown, and the parameter node they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.util import VTKObservationMixin

from ChangeMapJointGui.change_map import MapSection
from ChangeMapJointGui.export import ExportSection
from ChangeMapJointGui.findings_table import FindingsSection
from ChangeMapJointGui.inputs import InputsSection
from ChangeMapJointGui.legends import Legends
from ChangeMapJointGui.method import MethodSection
from ChangeMapJointGui.registration_check import CheckSection
from ChangeMapJointGui.run import RunSection
from ChangeMapJointGui.runs import resultsLoaded
from ChangeMapJointGui.shortcuts import Shortcuts
from ChangeMapJointGui.views import ViewsSection

if TYPE_CHECKING:  # they take most of a second to import, and an empty panel needs neither
    from ChangeMapJointGui.session import Session
    from ChangeMapJointLib.scene.results import Results


class Panel(VTKObservationMixin):
    """Everything that the module's widget shows.

    Attributes:
        ui: the widgets of ``ChangeMapJoint.ui`` by name.
        logic: runs comparisons.
        parameters: the parameter node; None while a scene closes.
        session: the run on screen; None without one.
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
        self.views = ViewsSection(self)
        self.export = ExportSection(self)
        self.shortcuts = Shortcuts(self)
        self._results = (self.views, self.map, self.findings, self.check, self.export)  # views first: they are made
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
        """Something was changed, by the user, a key or a script."""
        parameters = self.parameters
        for section in self._sections:
            if parameters is None or self.parameters is not parameters:  # a section may let the scene close
                return
            section.update()

    @contextmanager
    def oneChange(self) -> Iterator[Any]:
        """Several changes of the parameter node that are shown once."""
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
            recover: load its scans, too, where they are no longer in the scene.

        Returns:
            False where its scans are gone and ``recover`` is off; then the job stays recoverable.
        """
        return self.logic.runs.load(job, recover=recover) is not None

    def showLoaded(self, results: Results) -> None:
        """Show what was just loaded, by the panel or by a script."""
        if self.parameters is None:  # another module is shown, and the scene was closed meanwhile
            self.setParameters(self.logic.getParameterNode())
        with self.oneChange() as parameters:
            parameters.reference, parameters.template = results.reference, results.template
        self.show(results)

    def show(self, results: Results) -> None:
        """Put a run on screen instead of the one that is there."""
        from ChangeMapJointGui.session import Session

        self.hide()
        session = Session(results)
        with self.oneChange() as parameters:
            if parameters.map not in session.maps and session.maps:
                parameters.map = session.maps[0]
            parameters.readerVerdict = session.readerVerdict
            if session.unusable:  # what a failed registration left would look like change
                parameters.showOverlay = False
        self.session = session  # only now: what it costs to show it is paid once
        for section in (self.inputs, *self._results):
            section.showResult()
        self.onParameters()
        self.shortcuts.observeViews()

    def showResultsOfScene(self) -> None:
        """Put the run that was saved with the scene on screen."""
        if not slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTextNode"):  # a run has one
            return
        from ChangeMapJointLib.scene.results import Results

        results = Results.of_scene()
        if results is not None and results.reference is not None:
            self.show(results)

    def hide(self) -> None:
        """Take the run off the screen; its nodes stay in the scene."""
        if self.session is not None:
            self.session.close()
        self._showNothing()

    def _showNothing(self) -> None:
        self.session = None
        for section in (self.inputs, *self._results):
            section.showResult()

    # -- the module's life ------------------------------------------------------------
    def enter(self) -> None:
        """The module is shown."""
        if self.parameters is None or self.parameters.parameterNode.GetScene() is None:
            self.setParameters(self.logic.getParameterNode())  # once a scene: before Slicer 5.12 each leaves observers
        else:
            self.onParameters()
        self.shortcuts.enable()

    def exit(self) -> None:
        """Another module is shown: its keys are its own."""
        self.shortcuts.disable()

    def close(self) -> None:
        """The application or the module ends."""
        self.shortcuts.disable()
        self.setParameters(None)
        self.hide()
        for section in (self.run, self.method):
            section.close()
        resultsLoaded.disconnect(self.showLoaded)
        self.removeObservers()
