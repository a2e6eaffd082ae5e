"""Apply and Cancel, progress, log, and recovery of the last run."""

from __future__ import annotations

import time
from typing import Any

import qt
from slicer.i18n import tr as _

from ChangeMapJointGui.colors import textColor
from ChangeMapJointGui.messages import PanelWording, showErrors
from ChangeMapJointGui.parameters import defaultThreshold
from ChangeMapJointLib.change.method_table import STAGE_TITLES
from ChangeMapJointLib.change.sections import BY_MAP

TICK_MS = 500  # Cancel is enabled after the first tick, so that a double click on Apply does not cancel
LOG_LINES = 2000


class RunSection:
    """Starts and follows the background run."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self._wording = PanelWording(panel.ui)
        self._started = 0.0
        self._remaining: float | None = None
        self._stage = ""
        self._cancellable = False
        self.ui.configurationPathLineEdit.currentPath = ""  # one of earlier days is in the list, but never used unseen
        self.ui.progressBar.visible = False
        self._showStatus("")
        self.ui.logTextEdit.visible = False
        self.ui.logTextEdit.setMaximumBlockCount(LOG_LINES)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.logButton.connect("toggled(bool)", self.onLog)
        self.ui.recoverButton.connect("clicked(bool)", self.onRecover)
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self.onTick)
        self.refresh()

    @property
    def running(self) -> bool:
        """Whether a comparison is running."""
        return bool(self.panel.logic.runs.running)

    def update(self) -> None:
        """Enable Apply if both scans are usable; Cancel can always be pressed."""
        self.refresh()

    def refresh(self) -> None:
        """Update the texts and the state of the buttons."""
        usable = self.panel.inputs.usable if self.panel.parameters else False
        self.ui.applyButton.text = _("Cancel") if self.running else _("Apply")
        self.ui.applyButton.enabled = self._cancellable if self.running else usable
        if self.running:
            self.ui.applyButton.toolTip = _("Stop the comparison; nothing is kept.")
        elif usable:
            self.ui.applyButton.toolTip = _("Register the prior scan to the current one and show what changed.")
        else:
            self.ui.applyButton.toolTip = _("Choose two CT scans first.")
        self.ui.recoverButton.visible = not self.running and self.panel.logic.runs.recoverable() is not None

    # -- the run ----------------------------------------------------------------------
    def onApply(self, checked: bool = False) -> None:  # noqa: ARG002
        """Start a comparison, or cancel the one that is running."""
        if self.running:
            self._showStatus(_("Cancelling..."))
            self._timer.stop()
            self._cancellable = False
            self.refresh()
            self.panel.logic.runs.cancel()
            return
        with showErrors(_("The comparison could not be started."), self._wording):
            self._begin()
        if not self.running:
            self._showStatus(_("Not started."))

    def _begin(self) -> None:
        parameters = self.panel.parameters
        self.ui.logTextEdit.setPlainText("")
        self._showStatus(_("Preparing..."))
        started = self.panel.logic.runs.start(
            parameters.reference,
            parameters.template,
            method=parameters.method,
            device=parameters.device,
            threshold=self._threshold(),
            smallestVoxels=parameters.smallestVoxels,
            operatingPoint=None if parameters.listBy == BY_MAP else parameters.listBy,
            configurationFile=self.ui.configurationPathLineEdit.currentPath,
            offlineFolder=self.ui.offlinePathLineEdit.currentPath,
            onEvent=self.onEvent,
            onEnd=self.onEnd,
        )
        if not started:
            return
        for field in (self.ui.configurationPathLineEdit, self.ui.offlinePathLineEdit):
            field.addCurrentPathToHistory()  # else nothing is remembered
        self._started, self._remaining, self._cancellable = time.monotonic(), None, False
        self._stage = _("Starting")
        self.ui.progressBar.value = 0
        self.ui.progressBar.visible = True
        self._timer.start()
        self.refresh()

    def _threshold(self) -> float:
        """Return the threshold for a run: that on the slider, unless it is that of a run by another method."""
        parameters, session = self.panel.parameters, self.panel.session
        if session is not None and session.results.method != parameters.method:
            return defaultThreshold(parameters.method)
        return round(float(parameters.threshold), 3)

    def onTick(self) -> None:
        """Enable Cancel and show the elapsed time."""
        self._cancellable = True
        self.refresh()
        self._showTime()

    def onEvent(self, event: dict[str, Any]) -> None:
        """Handle an event of the worker: show its progress, or add it to the log."""
        kind = event.get("event")
        if kind == "progress":
            self.ui.progressBar.value = round(1000 * float(event["fraction"]))
            self._remaining = event.get("remaining_s")
            self._stage = stageName(str(event["stage"]))
            self._showTime()
        elif kind == "log":
            self.ui.logTextEdit.appendPlainText(str(event.get("text", "")))
        if kind != "log" and _logLine(event):
            self.ui.logTextEdit.appendPlainText(_logLine(event))

    def onEnd(self, end: Any) -> None:
        """Show the result, or say why there is none."""
        self._timer.stop()
        self.ui.progressBar.visible = False
        seconds = time.monotonic() - self._started
        if end.state == "finished" and end.result is not None:
            self._showStatus(_("Done, but the result could not be loaded."), "bad")
            with showErrors(_("The result could not be loaded.")):
                loaded = self.panel.loadJob(self.panel.logic.runs.lastJob)
                self._showStatus(
                    _("Done in {seconds} s.").format(seconds=f"{seconds:.0f}")
                    if loaded
                    else _("Done, but its scans were changed in or removed from the scene: use Recover last run.")
                )
        elif end.state == "cancelled":
            self._showStatus(_("Cancelled; nothing was kept."))
        else:
            message = end.message if end.error is None else end.error.render(self._wording)
            self.ui.logTextEdit.appendPlainText(message)
            self._showStatus(message, "bad")
            self.ui.logButton.checked = True
        self.refresh()

    def restyle(self) -> None:
        """Color the sentence below the button for the theme in use."""
        self.ui.statusLabel.styleSheet = f"color: {textColor(self._color)}" if self._color else ""

    def _showStatus(self, text: str, color: str = "") -> None:
        """Show one sentence below the button, in a color of :func:`textColor`."""
        self._color = color
        self.restyle()
        self.ui.statusLabel.text = text
        self.ui.statusLabel.visible = bool(text)  # an empty line would push the findings down

    def _showTime(self) -> None:
        if not self.running or not self._timer.active:
            return
        text = _("{stage}: {seconds} s").format(stage=self._stage, seconds=f"{time.monotonic() - self._started:.0f}")
        if self._remaining is not None:
            text += _(", about {seconds} s left").format(seconds=f"{self._remaining:.0f}")
        self._showStatus(text)

    # -- log and recovery -------------------------------------------------------------
    def onLog(self, shown: bool) -> None:
        """Show or hide the log."""
        self.ui.logTextEdit.visible = shown
        self.ui.logButton.text = _("Hide log") if shown else _("Show log")

    def onRecover(self, checked: bool = False) -> None:  # noqa: ARG002
        """Load the last finished run that was not loaded, for example because its scene was closed."""
        job = self.panel.logic.runs.recoverable()
        if job is None:
            self.refresh()
            return
        with showErrors(_("The last run could not be loaded.")):
            self.panel.loadJob(job, recover=True)
            self._showStatus(_("The last run was loaded."))
        self.refresh()

    def close(self) -> None:
        """Stop the timer."""
        self._timer.stop()


def stageName(stage: str) -> str:
    """Return the title of a stage in the user's language."""
    return _(STAGE_TITLES[stage]) if stage in STAGE_TITLES else stage


def _logLine(event: dict[str, Any]) -> str:
    """Return an event as a line of the log; empty if it is not logged."""
    if event.get("event") in ("error", "cancelled", "fault"):
        return ""  # onEnd adds the message
    if event.get("event") == "progress":
        return f"{float(event.get('elapsed_s', 0)):6.1f} s  {event['stage']}  {float(event['fraction']):.0%}"
    return ", ".join(f"{key}: {value}" for key, value in event.items())
