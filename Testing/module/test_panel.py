"""The panel before and with a finished run: opening, inputs, and what the overlay shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import panel_samples
import pytest
import slicer
from panel_samples import GONE_MM, GRID, NEW_MM, WEAK_MM
from panel_views import MODULE, expected, look_at, only_the_overlay, painted, picture, rows
from slicerhost import user

from ChangeMapJointLib.change.method_table import DEFAULT_METHOD, DEFAULT_THRESHOLD, METHODS, STAGE_TITLES
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.scene.nodes import CURRENT


# -- opening ---------------------------------------------------------------------------
def test_packages_that_slicer_lacks_are_not_needed_before_apply(shown, tmp_path) -> None:
    assert slicer.util.saveScene(str(tmp_path / "comparison.mrb"))
    code = f"""
import sys
lacking = {{"torch", "numba", "nrrd", "jinja2"}}

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in lacking:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Lacking())
sys.path.insert(0, {str(Path(__file__).parent / "host")!r})
import slicerhost
slicerhost.boot()
widget = slicerhost.open_module(slicerhost.load_module({str(MODULE)!r}))
import slicer
slicer.util.loadScene({str(tmp_path / "comparison.mrb")!r})
slicer.app.processEvents()
print(widget.ui.findingsTable.topLevelItemCount, widget.ui.applyButton.enabled, slicerhost.errors)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 True"


def test_nothing_can_be_done_before_there_is_something(widget) -> None:
    assert not widget.ui.applyButton.enabled
    assert widget.ui.applyButton.text == "Apply"
    for name in ("map", "findings", "check", "export"):
        assert not getattr(widget.ui, f"{name}CollapsibleButton").enabled
    assert not widget.ui.recoverButton.visible
    assert widget.ui.findingsCountLabel.text == "No comparison yet."


def test_the_joint_method_can_be_chosen_and_says_what_it_gives(widget) -> None:
    box = widget.ui.methodComboBox
    assert box.model().item(box.findData("joint")).isEnabled()
    box.setCurrentIndex(box.findData("joint"))
    assert widget.panel.parameters.method == "joint"
    assert "combined change map" in widget.ui.methodNoteLabel.text
    assert widget.panel.parameters.threshold == METHODS["joint"].threshold
    box.setCurrentIndex(box.findData("sequential"))
    assert widget.panel.parameters.threshold == METHODS["sequential"].threshold
    widget.panel.parameters.threshold = 0.5  # the user's own stays
    box.setCurrentIndex(box.findData("joint"))
    assert widget.panel.parameters.threshold == 0.5


def test_what_the_panel_shows_comes_from_the_table_of_methods(widget) -> None:
    from ChangeMapJointGui.run import stageName

    box = widget.ui.methodComboBox
    assert [box.itemText(k) for k in range(box.count)] == [method.title for method in METHODS.values()]
    assert widget.panel.parameters.threshold == DEFAULT_THRESHOLD
    assert widget.ui.thresholdSlider.value == pytest.approx(DEFAULT_THRESHOLD)
    assert f"{DEFAULT_THRESHOLD} is {DEFAULT_THRESHOLD * FULL_SCALE_HU:.0f} HU" in widget.ui.thresholdSlider.toolTip
    assert widget.ui.opacitySlider.value == pytest.approx(0.7)
    assert [stageName(name) for name in METHODS["joint"].shares] == list(STAGE_TITLES.values())
    assert stageName("of a later version") == "of a later version"
    assert widget.ui.lungButton.toolTip == "-600 / 1500. Key: 1"


def test_a_method_that_is_not_known_here_counts_as_the_default_one(widget) -> None:
    widget.panel.parameters.method = "of a later version"
    assert widget.ui.methodNoteLabel.text == METHODS[DEFAULT_METHOD].note
    widget.ui.methodComboBox.setCurrentIndex(widget.ui.methodComboBox.findData("joint"))
    assert widget.panel.parameters.threshold == METHODS["joint"].threshold


@pytest.mark.usefixtures("no_weights")
def test_the_joint_method_says_why_it_cannot_be_chosen(widget) -> None:
    box = widget.ui.methodComboBox
    item = box.model().item(box.findData("joint"))
    assert not item.isEnabled()
    assert "weights" in item.toolTip()


def test_the_device_list_names_the_graphics_card(tmp_path, monkeypatch, request) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho Test GPU 9000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    widget = request.getfixturevalue("widget")
    box = widget.ui.deviceComboBox
    user.wait_until(lambda: box.itemText(2) == "GPU: Test GPU 9000")
    assert box.model().item(2).isEnabled()
    user.choose(box, "GPU: Test GPU 9000")
    assert widget.panel.parameters.device == "cuda"


def test_without_a_graphics_card_it_cannot_be_chosen(monkeypatch, request) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    item = request.getfixturevalue("widget").ui.deviceComboBox.model().item(2)
    assert not item.isEnabled()
    assert "No NVIDIA GPU" in item.toolTip()


# -- inputs ----------------------------------------------------------------------------
def test_two_scans_are_checked_as_soon_as_both_are_chosen(widget) -> None:
    current, prior = panel_samples.nodes()
    user.choose(widget.ui.referenceSelector, current)
    assert widget.ui.inputCheckLabel.text == ""
    assert not widget.ui.applyButton.enabled
    user.choose(widget.ui.templateSelector, current)
    assert "the same volume" in widget.ui.inputCheckLabel.text
    assert not widget.ui.applyButton.enabled
    user.choose(widget.ui.templateSelector, prior)
    assert "nothing speaks against" in widget.ui.inputCheckLabel.text
    assert widget.ui.applyButton.enabled
    assert "84 x 74 x 66 voxels of 3 x 3 x 3 mm" in widget.ui.referenceDateLabel.text


def test_what_is_no_ct_is_refused_in_words(widget) -> None:
    current, _ = panel_samples.nodes()
    other = slicer.util.addVolumeFromArray(np.zeros((40, 40, 40), np.int16), name="Labels")
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, other)
    assert "Labels: " in widget.ui.inputCheckLabel.text
    assert not widget.ui.applyButton.enabled


def test_dates_come_from_dicom_and_the_wrong_order_is_told(widget) -> None:
    current, prior = panel_samples.nodes()
    for node, instance, date in ((current, "1.2.3", "20230501"), (prior, "1.2.4", "20240131")):
        node.SetAttribute("DICOM.instanceUIDs", f"{instance} {instance}.1")
        slicer.dicomDatabase.put(instance, **{"0008,0022": date})
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, prior)
    assert widget.ui.referenceDateLabel.text.startswith("2023-05-01;")
    assert "newer than the current scan" in widget.ui.inputCheckLabel.text
    user.click(widget.ui.swapButton)
    assert widget.ui.referenceSelector.currentNode() is prior
    assert widget.ui.templateSelector.currentNode() is current
    assert "newer" not in widget.ui.inputCheckLabel.text


# -- the overlay -----------------------------------------------------------------------
@pytest.mark.parametrize("name", CURRENT)
def test_what_is_painted_is_the_map_from_the_threshold_on(shown, name: str) -> None:
    for point in (NEW_MM, GONE_MM, WEAK_MM):
        look_at(point)
        only_the_overlay(shown)
        for threshold in (0.3, 0.68, 0.9):
            user.drag(shown.ui.thresholdSlider, 0.5, threshold)
            assert shown.panel.parameters.threshold == pytest.approx(threshold)
            wanted, clear = expected(name, shown.panel.parameters.threshold)
            assert (painted(name) == wanted)[clear].all()
            middle = tuple(n // 2 for n in wanted.shape)  # where the view looks
            sign = -1 if point is GONE_MM else 1
            assert wanted[middle] == (sign if threshold < (0.5 if point is WEAK_MM else 0.8) else 0)


def test_directions_opacity_and_the_overlay_itself_can_be_switched_off(shown) -> None:
    only_the_overlay(shown)
    look_at(NEW_MM)
    orange = (painted("Red") == 1).sum()
    assert orange > 0
    user.click(shown.ui.increasesCheckBox)
    assert (painted("Red") == 0).all()
    assert [row[0] for row in rows(shown)] == ["resolved"]
    user.click(shown.ui.increasesCheckBox)
    user.click(shown.ui.overlayCheckBox)
    assert (painted("Red") == 0).all()
    assert len(rows(shown)) == 2  # the list does not depend on what is shown
    user.click(shown.ui.overlayCheckBox)
    strong = picture("Red")
    user.drag(shown.ui.opacitySlider, 0.3)
    assert (picture("Red") != strong).any()
    user.click(shown.ui.resetMapButton)
    assert (picture("Red") == strong).all()


def test_every_map_of_a_joint_run_can_be_chosen(widget) -> None:
    pair = panel_samples.nodes()
    job = panel_samples.finished_job(widget.logic.runs.root, *pair)
    change, _ = panel_samples.change()
    for name, factor in (("learned", 0.5), ("difference", 0.9), ("combined", 0.95)):
        write_nrrd(job.folder / "result" / f"change_{name}.nrrd", change * np.float32(factor), GRID, compress=False)
    assert widget.panel.loadJob(job)
    box = widget.ui.mapComboBox
    names = [box.itemText(i).split(" (")[0] for i in range(box.count)]
    assert names == ["Combined change", "Learned change", "Difference after joint registration", "Signed difference"]
    assert box.currentIndex == 0
    only_the_overlay(widget)
    look_at(NEW_MM)
    for threshold, orange in ((0.3, [1, 1, 1, 1]), (0.5, [1, 0, 1, 1]), (0.77, [1, 0, 0, 1]), (0.82, [0, 0, 0, 1])):
        widget.panel.parameters.threshold = threshold
        for index, wanted in enumerate(orange):
            box.setCurrentIndex(index)
            assert (painted("Red") == 1).any() == bool(wanted)


def test_the_legend_shows_both_colors_and_what_the_threshold_hides(shown) -> None:
    def colors() -> np.ndarray:
        image = shown.ui.legendLabel.pixmap.toImage()
        line = [image.pixelColor(x, 7) for x in range(8, image.width() - 8)]
        signs = [1 if c.red() > c.blue() + 20 else -1 if c.blue() > c.red() + 20 else 0 for c in line]
        return np.array(signs)

    for threshold in (0.3, 0.68):
        shown.panel.parameters.threshold = threshold
        signs = colors()
        assert (signs[0], signs[len(signs) // 2], signs[-1]) == (-1, 0, 1)
        assert (np.diff(signs) >= 0).all()
        assert (signs == 0).mean() == pytest.approx(threshold, abs=0.03)
