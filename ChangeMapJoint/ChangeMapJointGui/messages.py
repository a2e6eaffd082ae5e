"""Show errors in the words of the panel."""

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
    "config": "advancedLayoutLabel1",
    "configurationFile": "advancedLayoutLabel1",
    "offlineFolder": "advancedLayoutLabel2",
    "threshold": "mapLayoutLabel1",
    "config.findings.threshold": "mapLayoutLabel1",
    "smallestVoxels": "mapLayoutLabel5",
    "config.findings.min_voxels": "mapLayoutLabel5",
}  # label of each control, by the library's name of the argument
CHOICES = {
    "method": "methodComboBox",
    "config.method": "methodComboBox",
    "device": "deviceComboBox",
}  # combo boxes whose keys are the argument's values


class PanelWording(Wording):
    """Names an argument by the label of its control, and a value by the text of its choice."""

    def __init__(self, ui: Any) -> None:
        """``ui``: the widgets of ``ChangeMapJoint.ui`` by name."""
        self.ui = ui

    def subject(self, argument: Argument) -> str:
        """Return for example ``Device "CPU"``; for an option without a control ``Options file, lungs.spacing_mm``."""
        if argument.name == "out":
            return _("The result")
        if argument.name in LABELS:
            return self._named(argument.name, self._choice(argument))
        first, dot, option = argument.name.partition(".")
        if first == "config" and dot:
            return f"{self._named('config')}, {PYTHON.subject(Argument(option, argument.value))}"
        return PYTHON.subject(argument)

    def mention(self, argument: Argument) -> str:
        """Return the same as :meth:`subject`; for an option without a control ``lungs.spacing_mm (Options file)``."""
        first, dot, option = argument.name.partition(".")
        if first != "config" or not dot or argument.name in LABELS:
            return self.subject(argument)
        return _("{option} ({file})").format(
            option=PYTHON.subject(Argument(option, argument.value)), file=self._named("config")
        )

    def expected(self, what: str) -> str:
        """Return the phrase that says what was expected."""
        return _("expected {what}").format(what=what)

    def _named(self, name: str, value: str = "") -> str:
        label = str(getattr(self.ui, LABELS[name]).text).rstrip(": ")
        return f'{label} "{value}"' if value else label

    def _choice(self, argument: Argument) -> str:
        """Return the text of the choice whose key is the argument's value; without one, the value itself."""
        if argument.value is None:
            return ""
        if argument.name in CHOICES:
            box = getattr(self.ui, CHOICES[argument.name])
            index = box.findData(argument.value)
            if index >= 0:
                return str(box.itemText(index))
        return str(argument.value)


@contextmanager
def showErrors(message: str, wording: Wording = PYTHON) -> Iterator[None]:
    """Show an error raised in the block in a dialog, and go on; the cursor is an hourglass meanwhile.

    Unexpected errors also go to Slicer's error log, with their traceback.

    Args:
        message: what could not be done; the error's own text follows it.
        wording: how to name arguments.
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
