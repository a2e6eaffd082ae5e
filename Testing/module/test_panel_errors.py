"""Errors of the library in the panel's own words: labels of its controls and texts of their choices."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import panel_samples
import pytest
from slicerhost import dialogs, user

from ChangeMapJointLib.comparison.outcome import End
from ChangeMapJointLib.core.errors import Argument, InputError

sys.path.append(str(Path(__file__).resolve().parents[1] / "library"))

from error_samples import SAMPLES


def test_the_panel_has_its_own_words(widget) -> None:
    from ChangeMapJointGui.messages import PanelWording

    wording = PanelWording(widget.ui)
    assert {name: one.error.render(wording) for name, one in SAMPLES.items()} == {
        name: one.panel for name, one in SAMPLES.items()
    }


def test_every_label_and_choice_is_a_control_of_the_panel(widget) -> None:
    from ChangeMapJointGui.messages import CHOICES, LABELS

    for name, label in LABELS.items():
        assert getattr(widget.ui, label).text.endswith(":"), name
    for name, box in CHOICES.items():
        assert getattr(widget.ui, box).count > 1, name


def test_an_end_with_an_error_is_told_in_the_panels_words(widget) -> None:
    error = InputError(
        "no CUDA device works here", field="device", value="cuda", remedy=("use ", Argument("device", "cpu"))
    )
    widget.panel.run.onEnd(End("failed", str(error), 2, error=error))
    said = 'Device "GPU (none found)": no CUDA device works here; use Device "CPU"'
    assert widget.ui.statusLabel.text == said
    assert said in widget.ui.logTextEdit.toPlainText()
    widget.panel.run.onEnd(End("failed", "The disk is full."))
    assert widget.ui.statusLabel.text == "The disk is full."


def test_what_the_worker_refuses_names_the_control(widget, tmp_path) -> None:
    """From a click on Apply through a real worker back to the label below the button."""
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"findings": {"min_voxels": 0}, "lungs": {}}))
    reference, template = panel_samples.nodes()
    ends: list[End] = []
    runs = widget.logic.runs
    assert runs.start(reference, template, configurationFile=str(options), smallestVoxels=0, onEnd=ends.append)
    user.wait_until(lambda: bool(ends), 300.0)
    assert ends[0].message == "config.findings.min_voxels: found 0, expected 1 or more"
    widget.panel.run.onEnd(ends[0])
    assert widget.ui.statusLabel.text == "Smallest size: found 0, expected 1 or more"


@pytest.mark.parametrize(("text", "why"), [("{", "not JSON"), ("[]", "expected an object with options")])
def test_an_options_file_that_is_none_is_told_before_the_start(widget, tmp_path, text, why) -> None:
    options = tmp_path / "options.json"
    options.write_text(text)
    user.choose(widget.ui.referenceSelector, panel_samples.nodes()[0])
    user.choose(widget.ui.templateSelector, panel_samples.nodes()[1])
    widget.ui.configurationPathLineEdit.currentPath = str(options)
    user.click(widget.ui.applyButton)
    (shown,) = dialogs.texts("error")
    assert f'Options file "{options}": {why}' in shown
    widget.ui.configurationPathLineEdit.currentPath = ""
