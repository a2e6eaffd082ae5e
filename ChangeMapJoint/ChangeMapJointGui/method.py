"""Section Method: the method of the comparison, and the device."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from ChangeMapJointGui.choices import chooseKey, fillChoices, onChosen, setChoiceEnabled
from ChangeMapJointGui.devices import GpuProbe
from ChangeMapJointGui.parameters import defaultThreshold, methodEntry
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.core.choices import DEFAULT_WEIGHTS
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.resources import resource

PROBE_MS = 100


class MethodSection:
    """Method, device and advanced settings."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        fillChoices(
            self.ui.methodComboBox,
            [(name, _(method.title)) for name, method in METHODS.items()],
        )
        reason = jointUnavailable()
        setChoiceEnabled(self.ui.methodComboBox, "joint", not reason, reason)
        onChosen(self.ui.methodComboBox, self.onMethod)
        onChosen(self.ui.deviceComboBox, self.onDevice)
        self._showDevices("")
        self._probe = GpuProbe()
        self._timer = qt.QTimer()
        self._timer.setInterval(PROBE_MS)
        self._timer.connect("timeout()", self.onProbe)
        self.onProbe()

    def update(self) -> None:
        """Show the values of the parameter node."""
        parameters = self.panel.parameters
        chooseKey(self.ui.methodComboBox, parameters.method)
        chooseKey(self.ui.deviceComboBox, parameters.device)
        self.ui.methodNoteLabel.text = methodNote(parameters.method)

    def onMethod(self, key: str) -> None:
        """Store the chosen method; it changes nothing of the run on screen.

        Without one, a threshold that is still the old method's default becomes the new one's.
        """
        with self.panel.oneChange() as parameters:
            if self.panel.session is None and parameters.threshold == defaultThreshold(parameters.method):
                parameters.threshold = defaultThreshold(key)
            parameters.method = key

    def onDevice(self, key: str) -> None:
        """Store the chosen device."""
        self.panel.parameters.device = key

    def onProbe(self) -> None:
        """Show the GPU's name once the driver has answered."""
        name = self._probe.answer()
        if name is None:
            self._timer.start()
            return
        self._timer.stop()
        self._showDevices(name)

    def close(self) -> None:
        """Stop waiting for the driver."""
        self._timer.stop()
        self._probe.close()

    def _showDevices(self, gpu: str) -> None:
        fillChoices(
            self.ui.deviceComboBox,
            [
                ("auto", _("Automatic")),
                ("cpu", _("CPU")),
                ("cuda", _("GPU: {name}").format(name=gpu) if gpu else _("GPU (none found)")),
            ],
        )
        setChoiceEnabled(self.ui.deviceComboBox, "cuda", bool(gpu), "" if gpu else _("No NVIDIA GPU was found."))


def methodNote(method: str) -> str:
    """Return one sentence on what the method does, or why it cannot be chosen."""
    note = _(methodEntry(method).note)
    return (jointUnavailable() or note) if method == "joint" else note


def jointUnavailable() -> str:
    """Return why the joint method cannot be chosen; empty if it can."""
    try:
        resource("Models", f"{DEFAULT_WEIGHTS}.safetensors")
    except InputError:
        return _("The joint method needs trained weights, and this installation has none.")
    return ""
