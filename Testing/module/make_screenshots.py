"""Pictures of the module for the README: ``python Testing/module/make_screenshots.py FOLDER [--compare] [--dark]``.

With ``--compare`` the pictures in FOLDER stay as they are; it ends with 1 where one made now shows something else, see
``pictures.py``. With ``--dark`` the window has the colors of Slicer's dark theme.

The real panel compares the sample pair in the stand-in host (see README.md beside this file); a picture is what its
window shows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "host"))

import slicerhost

app = slicerhost.boot()

import slicer
from pictures import difference
from PIL import Image
from PySide6 import QtCore, QtGui, QtWidgets
from slicerhost import load_module, open_module, user

MODULE = Path(__file__).parents[2] / "ChangeMapJoint" / "ChangeMapJoint.py"
WINDOW = (1500, 950)
DEADLINE_S = 600.0


def main(folder: Path) -> None:
    """Make every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    app.mainWindow().resize(*WINDOW)
    with tempfile.TemporaryDirectory() as jobs:
        module = load_module(MODULE)
        from ChangeMapJointGui.runs import Runs

        Runs.root = Path(jobs)
        widget = open_module(module)
        compare(widget, *sample_pair())
        show_section(widget, "inputsCollapsibleButton")
        select(widget, "grown")
        take(folder / "module-result.png")
        show_section(widget, "findingsCollapsibleButton")
        widget.panel.parameters.unfolded = "possible stable"
        select(widget, "resolved")
        widget.ui.priorComboBox.setCurrentIndex(1)
        take(folder / "module-findings.png")
        check(widget)
        take(folder / "module-check.png")
        fail(widget)
        take(folder / "module-error.png")
    print(slicerhost.errors, end="")
    if slicerhost.errors.entries:
        sys.exit(1)


def compare_with(kept: Path) -> None:
    """Make the pictures anew, and end with 1 where one of them shows something else than the kept one."""
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
        made = sorted(Path(folder).glob("*.png"))
        reasons = [f"{one.name} {why}" for one in made if (why := difference(one, kept / one.name))]
    print("\n".join(reasons) or f"{len(made)} pictures show what those in {kept} show")
    if reasons:
        sys.exit("the panel has changed: make screenshots, and look at them")


def darken() -> None:
    """Give the window the colors of Slicer's dark theme."""
    palette = QtGui.QPalette()
    dark, base, light = QtGui.QColor(53, 53, 53), QtGui.QColor(35, 35, 35), QtGui.QColor(255, 255, 255)
    roles = QtGui.QPalette.ColorRole
    for role in (roles.Window, roles.Button, roles.AlternateBase, roles.ToolTipBase):
        palette.setColor(role, dark)
    palette.setColor(roles.Base, base)
    for role in (roles.WindowText, roles.Text, roles.ButtonText, roles.ToolTipText):
        palette.setColor(role, light)
    palette.setColor(roles.Highlight, QtGui.QColor(42, 130, 218))
    QtWidgets.QApplication.setStyle("Fusion")
    QtWidgets.QApplication.setPalette(palette)


def sample_pair() -> tuple[Any, Any]:
    from ChangeMapJointGui.sample_data import loadSamplePair

    return loadSamplePair()


def compare(widget: Any, reference: Any, template: Any) -> None:
    """Choose two scans, press Apply and wait for the end."""
    user.choose(widget.ui.referenceSelector, reference)
    user.choose(widget.ui.templateSelector, template)
    user.click(widget.ui.applyButton)
    user.wait_until(lambda: not widget.logic.runs.running, DEADLINE_S)


def select(widget: Any, kind: str) -> None:
    """Step to the first finding of a kind, twice as large as the views show it by themselves."""
    while widget.panel.findings.selected is None or widget.panel.findings.selected.kind != kind:
        user.click(widget.ui.nextFindingButton)
    zoom(0.5)


def zoom(factor: float) -> None:
    """Change the field of view of all slice views."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        x, y, z = node.GetFieldOfView()
        smallest = min(x, y)
        scale = max(factor, 90.0 / smallest)
        if smallest > 120.0:
            node.SetFieldOfView(x * scale, y * scale, z)


def show_section(widget: Any, name: str) -> None:
    """Scroll the panel to a section."""
    section = getattr(widget.ui, name)
    area = section.parentWidget()
    while not isinstance(area, QtWidgets.QScrollArea):
        area = area.parentWidget()
    app.processEvents()
    top = section.mapTo(area.widget(), QtCore.QPoint(0, 0)).y()
    area.verticalScrollBar().setValue(top)


def check(widget: Any) -> None:
    """Edges of the warped prior over the current scan, the warped prior below."""
    from ChangeMapJointLib.scene.layouts import fit
    from ChangeMapJointLib.scene.nodes import CURRENT

    show_section(widget, "checkCollapsibleButton")
    fit(CURRENT, widget.panel.session.results.reference)
    widget.ui.priorComboBox.setCurrentIndex(0)
    user.click(widget.ui.edgesCheckBox)
    user.choose(widget.ui.readerVerdictComboBox, "fine")


def fail(widget: Any) -> None:
    """The error that a mirrored prior gives."""
    import vtk

    slicer.mrmlScene.Clear(0)
    reference, template = sample_pair()
    matrix = vtk.vtkMatrix4x4()
    template.GetIJKToRASMatrix(matrix)
    voxels = slicer.util.arrayFromVolume(template)[:, :, ::-1].copy()
    mirrored = slicer.util.addVolumeFromArray(voxels, ijkToRAS=matrix, name="Prior, mirrored by mistake")
    compare(widget, reference, mirrored)
    show_section(widget, "inputsCollapsibleButton")


def take(path: Path) -> None:
    """Save what the window shows."""
    user.screenshot(path)
    Image.open(path).convert("RGB").save(path, optimize=True)
    print(path.name, path.stat().st_size)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--compare", action="store_true")
    options.add_argument("--dark", action="store_true")
    given = options.parse_args()
    if given.dark:
        darken()
    (compare_with if given.compare else main)(given.folder)
