"""Errors in words for the person at the screen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointLib.core.errors import PYTHON, Argument, InputError, Wording

LABELS = {
    "reference": "inputsLayoutLabel0",
    "template": "inputsLayoutLabel2",
    "current": "inputsLayoutLabel0",
    "prior": "inputsLayoutLabel2",
    "method": "methodLayoutLabel0",
    "config.method": "methodLayoutLabel0",
    "device": "methodLayoutLabel2",
    "preset": "advancedLayoutLabel0",
    "config.preset": "advancedLayoutLabel0",
    "config": "advancedLayoutLabel1",
    "configurationFile": "advancedLayoutLabel1",
    "offlineFolder": "advancedLayoutLabel2",
    "threshold": "mapLayoutLabel1",
    "config.findings.threshold": "mapLayoutLabel1",
    "smallestVoxels": "mapLayoutLabel5",
    "config.findings.min_voxels": "mapLayoutLabel5",
}  # of the controls, by what the library calls the argument
CHOICES = {
    "method": "methodComboBox",
    "config.method": "methodComboBox",
    "device": "deviceComboBox",
    "preset": "presetComboBox",
    "config.preset": "presetComboBox",
}  # the combo boxes whose keys are the argument's values


class PanelWording(Wording):
    """An argument is the label of its control, and a value the text of its choice."""

    def __init__(self, ui: Any) -> None:
        """``ui``: the widgets of ``ChangeMapJoint.ui`` by name."""
        self.ui = ui

    def subject(self, argument: Argument) -> str:
        """``Device "CPU"``; of an option that has no control ``Options file, lungs.spacing_mm``."""
        if argument.name == "out":
            return _("The result")
        if argument.name in LABELS:
            return self._named(argument.name, self._choice(argument))
        first, dot, option = argument.name.partition(".")
        if first == "config" and dot:
            return f"{self._named('config')}, {PYTHON.subject(Argument(option, argument.value))}"
        return PYTHON.subject(argument)

    def mention(self, argument: Argument) -> str:
        """As :meth:`subject`; of an option that has no control ``lungs.spacing_mm (Options file)``."""
        first, dot, option = argument.name.partition(".")
        if first != "config" or not dot or argument.name in LABELS:
            return self.subject(argument)
        return _("{option} ({file})").format(
            option=PYTHON.subject(Argument(option, argument.value)), file=self._named("config")
        )

    def expected(self, what: str) -> str:
        """What was expected."""
        return _("expected {what}").format(what=what)

    def _named(self, name: str, value: str = "") -> str:
        label = str(getattr(self.ui, LABELS[name]).text).rstrip(": ")
        return f'{label} "{value}"' if value else label

    def _choice(self, argument: Argument) -> str:
        """The text of the choice that has the argument's value as its key; the value where there is none."""
        if argument.value is None:
            return ""
        if argument.name in CHOICES:
            box = getattr(self.ui, CHOICES[argument.name])
            index = box.findData(argument.value)
            if index >= 0:
                return str(box.itemText(index))
        return str(argument.value)


@contextmanager
def tellingErrors(message: str, wording: Wording = PYTHON) -> Iterator[None]:
    """Show an error of the block as ``message`` and its own words, and go on; the cursor waits meanwhile.

    What nobody foresaw goes to Slicer's error log with its traceback, too.

    Args:
        message: what could not be done.
        wording: what arguments are called.
    """
    slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
    waiting = True
    try:
        yield
    except Exception as error:
        slicer.app.restoreOverrideCursor()
        waiting = False
        if not isinstance(error, (InputError, OSError)):
            logging.exception(message)
        why = error.render(wording) if isinstance(error, InputError) else str(error) or type(error).__name__
        slicer.util.errorDisplay(f"{message}\n\n{why}")
    finally:
        if waiting:
            slicer.app.restoreOverrideCursor()
