"""What must hold in the real application, tried with a finished run whose answer is known; needs no stand-in host."""

from __future__ import annotations

import logging
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import panel_samples
import slicer
import slicer.util

MODULE = "ChangeMapJoint"
WIDEST_PANEL_PX = 450
WIDEST_WINDOW_PX = 1366  # a laptop's screen
NEAR_MM = 0.5


def select(name: str) -> None:
    """Open a module, as from the drop-down list."""
    slicer.util.mainWindow().moduleSelector().selectModule(name)
    slicer.app.processEvents()


class PanelChecks(unittest.TestCase):
    """The panel with a run on screen."""

    widget: Any
    folder: Any

    def setUp(self) -> None:
        """Open the module on an empty scene and load the run."""
        from ChangeMapJointGui.runs import Runs

        slicer.mrmlScene.Clear(0)
        start = time.perf_counter()
        select(MODULE)
        logging.info("the panel opened in %.0f ms", 1000 * (time.perf_counter() - start))
        self.widget = getattr(slicer.modules, MODULE.lower()).widgetRepresentation().self()
        self.folder = tempfile.TemporaryDirectory()
        self._root, Runs.root = Runs.root, Path(self.folder.name)
        self.job = panel_samples.finished_job(Path(self.folder.name), *panel_samples.nodes(), is_judged=True)
        assert self.widget.panel.loadJob(self.job)
        slicer.app.processEvents()

    def tearDown(self) -> None:
        """Leave the module and empty the scene."""
        from ChangeMapJointGui.runs import Runs

        select("Data")
        slicer.mrmlScene.Clear(0)
        slicer.app.processEvents()
        Runs.root = self._root
        self.folder.cleanup()

    def test_the_first_finding_is_chosen_and_on_screen(self) -> None:
        """Without a click, in the layout of a comparison, with the views centred on it."""
        from ChangeMapJointLib.scene import layouts
        from ChangeMapJointLib.scene.nodes import CURRENT

        findings = self.widget.panel.findings
        assert findings.selected.kind == "new"
        assert slicer.app.layoutManager().layout == layouts.COMPARE
        for view in CURRENT:
            away = centre(view) - np.multiply(panel_samples.NEW_MM, (-1, -1, 1))
            assert np.linalg.norm(away) < 3 * NEAR_MM, view

    def test_the_prior_lies_at_the_corresponding_place_in_every_layout(self) -> None:
        """Also after each change of the layout, which makes and resizes views."""
        from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, existing

        shift = np.multiply(panel_samples.SHIFT_MM, (-1, -1, 1))
        for layout in ("check", "read", "compare"):
            self.widget.panel.parameters.layout = layout
            slicer.app.processEvents()
            for view, prior in zip(CURRENT, PRIOR, strict=True):
                if existing([prior]):
                    away = centre(prior) - centre(view) - shift
                    assert np.linalg.norm(away) < NEAR_MM, f"{layout}: {prior}"

    def test_the_threshold_moves_the_map_alone(self) -> None:
        """The judged list stays; the list by the map follows."""
        panel = self.widget.panel
        listed = len(panel.findings.rows)
        panel.parameters.threshold = 0.4
        slicer.app.processEvents()
        assert len(panel.findings.rows) == listed
        panel.parameters.listBy = "map"
        slicer.app.processEvents()
        assert len(panel.findings.rows) == 3

    def test_leaving_gives_the_views_back(self) -> None:
        """Another module is shown in the layout that the user had."""
        from ChangeMapJointLib.scene import layouts

        select("Data")
        assert slicer.app.layoutManager().layout not in layouts.OURS
        select(MODULE)
        assert slicer.app.layoutManager().layout in layouts.OURS

    def test_a_scene_brings_the_run_and_the_decisions_back(self) -> None:
        """Saved as one file and loaded into an empty scene."""
        self.widget.panel.reviewing.judge("accepted")
        path = str(Path(self.folder.name) / "scene.mrb")
        assert slicer.util.saveScene(path)
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        slicer.app.processEvents()
        findings = self.widget.panel.findings
        assert len(findings.ownRows) == 2
        assert self.widget.panel.session.review(findings.ownRows[0].change.key)["verdict"] == "accepted"

    def test_panel_and_window_are_narrow_enough(self) -> None:
        """Nothing in the panel forces it wider, and the comparison fits a laptop."""
        width = self.widget.panel.widget.minimumSizeHint.width()
        window = slicer.util.mainWindow().minimumSizeHint.width()
        logging.info("the panel needs %d px, the window %d px", width, window)
        assert width <= WIDEST_PANEL_PX
        assert window <= WIDEST_WINDOW_PX


def centre(view: str) -> Any:
    """Return the middle of a view, RAS in mm."""
    from ChangeMapJointLib.scene.nodes import slice_node

    return np.array(slicer.util.arrayFromVTKMatrix(slice_node(view).GetSliceToRAS()))[:3, 3]
