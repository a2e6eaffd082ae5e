"""Results in Slicer's temporary folder: they hold scans of patients, so they are listed and can be deleted."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.choices import currentKey, fillChoices
from ChangeMapJointGui.runs import KEPT_JOBS
from ChangeMapJointLib.background.stored import delete_stored, stored_jobs


class StoredSection:
    """The list of stored results, and deleting them."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self._listed: tuple[Any, ...] = ()
        self.ui.deleteStoredButton.connect("clicked(bool)", self.onDelete)
        self.ui.deleteAllStoredButton.connect("clicked(bool)", self.onDeleteAll)
        self.ui.exportCollapsibleButton.connect("contentsCollapsed(bool)", lambda collapsed: self.refresh())  # noqa: ARG005

    def showResult(self) -> None:
        """List what is stored: a run has ended, or another came on screen."""
        self.refresh()

    def update(self) -> None:
        """Do nothing: the list does not depend on the parameter node."""

    def refresh(self) -> None:
        """List what is stored, the newest first."""
        self._listed = tuple(stored_jobs(self.panel.logic.runs.root))
        fillChoices(self.ui.storedComboBox, [(one.name, storedName(one)) for one in self._listed])
        for widget in (self.ui.storedComboBox, self.ui.deleteStoredButton, self.ui.deleteAllStoredButton):
            widget.enabled = bool(self._listed)
        size = sizeInWords(sum(one.bytes for one in self._listed))
        text = _("Stored in the temporary folder: {count} of at most {most} results, {size}.")
        self.ui.storedLabel.text = text.format(count=len(self._listed), most=KEPT_JOBS, size=size)
        self.ui.storedLabel.toolTip = str(self.panel.logic.runs.root)

    def onDelete(self, checked: bool = False) -> None:  # noqa: ARG002
        """Delete the chosen result, after asking."""
        name = currentKey(self.ui.storedComboBox)
        self._delete([one.name for one in self._listed if one.name == name])

    def onDeleteAll(self, checked: bool = False) -> None:  # noqa: ARG002
        """Delete all results, after asking."""
        self._delete([one.name for one in self._listed])

    def _delete(self, names: list[str]) -> None:
        text = _("Delete {count} stored results? What is in the scene stays.").format(count=len(names))
        if names and slicer.util.confirmYesNoDisplay(text):
            delete_stored(self.panel.logic.runs.root, names)
        self.refresh()
        self.panel.run.refresh()  # a result that could be recovered may be gone


def storedName(one: Any) -> str:
    """Return time, method, state and size of a stored result; no name of a scan, which may be a patient's."""
    return ", ".join([one.time, one.method, one.state, sizeInWords(one.bytes)])


def sizeInWords(size: int) -> str:
    """Return a size in MB."""
    return _("{size} MB").format(size=f"{size / 1e6:.0f}" if size >= 1e6 else f"{size / 1e6:.1f}")
