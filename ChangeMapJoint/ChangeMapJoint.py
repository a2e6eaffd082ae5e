"""The four classes of the module ChangeMapJoint that 3D Slicer loads. They only connect its parts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


def findLibrary() -> None:
    """Make the library importable where the module runs from the source tree: it lies beside the module's folder.

    That folder does not go on ``sys.path``: its ``Testing`` and ``Resources`` would hide other packages of these names.
    """
    name = "ChangeMapJointLib"
    if importlib.util.find_spec(name) is None:
        place = Path(__file__).resolve().parents[1] / name / "__init__.py"
        spec = importlib.util.spec_from_file_location(name, place)
        if spec is None or spec.loader is None:
            raise ImportError(f"{place} cannot be loaded")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


findLibrary()

from ChangeMapJointGui.runs import Runs
from ChangeMapJointGui.sample_data import SAMPLE, registerSampleData

from ChangeMapJointLib.core.choices import DEFAULT_METHOD

if TYPE_CHECKING:  # for the panel alone
    from ChangeMapJointGui.panel import Panel
    from ChangeMapJointGui.parameters import ChangeMapJointParameterNode

PROJECT = "https://github.com/ChangeMapJoint/ChangeMapJoint"
PACKAGES = ("ChangeMapJointGui", "ChangeMapJointLib")


class ChangeMapJoint(ScriptedLoadableModule):
    """Title, help and acknowledgement of the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Change Map Joint")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["ChangeMapJoint Developers (ChangeMapJoint)"]
        self.parent.helpText = _(
            "<p>Registers the prior chest CT to the current one and shows what changed as a color overlay, with a list "
            "of findings and a check of the registration. Research use, not a medical device.</p>"
            '<p><a href="{docs}/radiologists.md">Tutorial</a> with the data set <i>{sample}</i> of the module Sample '
            'Data, <a href="{docs}/troubleshooting.md">troubleshooting</a>, <a href="{docs}/limits.md">limits</a>, '
            '<a href="{project}/issues">questions and faults</a>.</p>'
        ).format(docs=f"{PROJECT}/blob/main/docs", project=PROJECT, sample=SAMPLE)
        self.parent.acknowledgementText = _(
            "<p>Developed by the ChangeMapJoint project. The method is that of T. Kohlbrandt, J. Moltz, S. Heldmann, "
            "A. Hering and J. Lellmann, Joint Learning of Image Registration and Change Detection for Lung CT Images, "
            "BVM 2024.</p><p>The sample pair is made from a scan of LIDC-IDRI (Armato et al., CC BY 3.0).</p>"
        )
        slicer.app.connect("startupCompleted()", onStartup)


def onStartup() -> None:
    """Make sample data and layouts known: a scene that was saved with one of these layouts would open gray."""
    from ChangeMapJointLib.scene import layouts

    registerSampleData()
    layouts.register_layouts(slicer.app.layoutManager())


class ChangeMapJointWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Creates the panel, and notifies it when scenes or the module open and close."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: ChangeMapJointLogic | None = None
        self.panel: Panel | None = None

    def setup(self) -> None:
        """Build the panel; Slicer calls it once, when the module is first opened."""
        from ChangeMapJointGui.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/ChangeMapJoint.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = ChangeMapJointLogic()
        self.panel = Panel(widget, self.ui, self.logic)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneChanged)
        slicer.app.connect("aboutToQuit()", self.cleanup)
        if self.parent.isEntered:  # reloaded: Slicer does not call enter() again
            self.panel.enter()

    def enter(self) -> None:
        """Activate the panel: the user opened the module."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self) -> None:
        """Deactivate the panel: the user opened another module."""
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self) -> None:
        """Stop everything: the application quits, or the module is reloaded."""
        if self.panel is not None:
            slicer.app.disconnect("aboutToQuit()", self.cleanup)
            self.panel.logic.runs.close()
            self.panel.close()
            self.panel = None
        self.removeObservers()

    def onSceneStartClose(self, caller: Any, event: str) -> None:
        """Release all nodes; a comparison that is running goes on, and can be recovered."""
        if self.panel is not None:
            self.panel.hide()
            self.panel.setParameters(None)

    def onSceneChanged(self, caller: Any, event: str) -> None:
        """Show what the scene holds now: one was closed, or loaded, perhaps into the current one."""
        if self.panel is not None:
            self.panel.hide()
            self.panel.setParameters(self.panel.logic.getParameterNode() if self.parent.isEntered else None)

    def onReload(self) -> None:
        """Reload the module together with its own packages."""
        self.cleanup()
        for name in sorted(name for name in sys.modules if name.split(".")[0] in PACKAGES):
            del sys.modules[name]
        importlib.invalidate_caches()
        ScriptedLoadableModuleWidget.onReload(self)


class ChangeMapJointLogic(ScriptedLoadableModuleLogic):
    """Comparisons for the panel and for scripts."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.runs = Runs()

    def getParameterNode(self) -> ChangeMapJointParameterNode:
        """Return the module's parameter node; there is one."""
        from ChangeMapJointGui.parameters import ChangeMapJointParameterNode

        node = ScriptedLoadableModuleLogic.getParameterNode(self)
        return ChangeMapJointParameterNode(node)  # type: ignore[call-arg]  # the decorator's constructor

    def process(
        self,
        reference: Any,
        template: Any,
        method: str = DEFAULT_METHOD,
        *,
        waitForCompletion: bool = True,
        **options: Any,
    ) -> Any:
        """Compare two scans; see :meth:`ChangeMapJointGui.runs.Runs.process`."""
        return self.runs.process(reference, template, method=method, waitForCompletion=waitForCompletion, **options)


class ChangeMapJointTest(ScriptedLoadableModuleTest):
    """The self-test: compares the sample pair in the background and checks the findings."""

    def setUp(self) -> None:
        """Clear the scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all self-tests; without packages that may not be installed in a test, only what needs none."""
        from ChangeMapJointGui.packages import missing

        self.setUp()
        self.test_inputsOfSamplePair()
        needed = ", ".join(str(one) for one in missing())
        if needed and slicer.app.testingEnabled():
            self.delayDisplay(_("Comparison skipped: {names} missing, and tests install nothing").format(names=needed))
            return
        self.setUp()
        self.test_samplePair()

    def test_inputsOfSamplePair(self) -> None:
        """Load the pair that ships with the module, check it, and show the layouts."""
        from ChangeMapJointGui.inputs import checkInWords
        from ChangeMapJointGui.sample_data import loadSamplePair

        from ChangeMapJointLib.scene import layouts

        self.delayDisplay(_("Checking the sample pair"))
        _color, text, usable = checkInWords(*loadSamplePair())
        self.assertTrue(usable, text)
        node = layouts.register_layouts(slicer.app.layoutManager())
        if node is None:
            raise AssertionError("there is no layout node")
        self.assertTrue(all(node.IsLayoutDescription(layout) for layout in layouts.OURS))

    def test_samplePair(self) -> None:
        """Compare the pair that ships with the module, from loading to the list of findings."""
        from ChangeMapJointGui.sample_data import loadSamplePair

        self.delayDisplay(_("Loading the sample pair"))
        reference, template = loadSamplePair()
        self.delayDisplay(_("Comparing: about a minute"))
        results = ChangeMapJointLogic().process(reference, template)
        self.assertEqual(results.verdict, "good")
        self.assertEqual(len(results.rows), 9)
        self.assertEqual({f["kind"] for f in results.rows}, {"new", "grown", "shrunk", "resolved"})
        self.delayDisplay(_("Passed"))
