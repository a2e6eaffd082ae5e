"""Section Export: report, findings, map, scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.messages import showErrors
from ChangeMapJointLib.io import run_files


class ExportSection:
    """Four buttons; each shows where the file was saved."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self.ui.reportButton.connect("clicked(bool)", self.onReport)
        self.ui.csvButton.connect("clicked(bool)", self.onTable)
        self.ui.mapButton.connect("clicked(bool)", self.onMap)
        self.ui.sceneButton.connect("clicked(bool)", self.onScene)

    def showResult(self) -> None:
        """Enable the buttons for what the loaded run has."""
        session = self.panel.session
        self.ui.exportCollapsibleButton.enabled = session is not None
        self.ui.exportLabel.text = ""
        if session is not None:
            self.ui.reportButton.enabled = session.report is not None
            self.ui.mapButton.enabled = session.hasFindings
            self.ui.csvButton.enabled = session.hasFindings and not session.unusable

    def update(self) -> None:
        """Do nothing: this section does not depend on the parameter node."""

    def onReport(self, checked: bool = False) -> None:  # noqa: ARG002
        """Save the report to a file that the user chooses, and open it."""
        report = self.panel.session.report
        if report is None or not Path(report).exists():
            slicer.util.errorDisplay(_("The report of this run no longer exists; run the comparison again."))
            return
        self._save(_("Save the report"), run_files.REPORT, "HTML (*.html)", self._saveReport)

    def onTable(self, checked: bool = False) -> None:  # noqa: ARG002
        """Save the list, folded groups included, with the reader's verdicts."""
        rows = self.panel.findings.listed
        self._save(
            _("Save the findings"),
            run_files.FINDINGS_CSV,
            "CSV (*.csv)",
            lambda path: self.panel.session.saveTable(path, rows),
        )

    def onMap(self, checked: bool = False) -> None:  # noqa: ARG002
        """Save the change map as a volume."""
        self._save(
            _("Save the change map"),
            run_files.CHANGE_MAP,
            "NRRD (*.nrrd);;NIfTI (*.nii.gz)",
            lambda path: _checkSaved(slicer.util.exportNode(self.panel.session.mapNode, str(path), {}), path),
        )

    def onScene(self, checked: bool = False) -> None:  # noqa: ARG002
        """Save the whole scene as one file."""
        self._save(
            _("Save the scene"),
            "comparison.mrb",
            "MRB (*.mrb)",
            lambda path: _checkSaved(slicer.util.saveScene(str(path)), path),
        )

    def _saveReport(self, path: Path) -> None:
        path.write_bytes(Path(self.panel.session.report).read_bytes())
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))

    def _save(self, title: str, name: str, kinds: str, write: Any) -> None:
        """Ask for the file, write it, and show where it is."""
        folder = qt.QSettings().value("ChangeMapJoint/ExportFolder") or str(Path.home())
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, str(Path(folder) / name), kinds)
        chosen = chosen[0] if isinstance(chosen, (tuple, list)) else chosen  # one value in PythonQt
        if not chosen:
            return
        path = Path(chosen)
        with showErrors(_("{path} could not be written.").format(path=path)):
            write(path)
            qt.QSettings().setValue("ChangeMapJoint/ExportFolder", str(path.parent))
            self.ui.exportLabel.text = _("Saved: {path}").format(path=path)


def _checkSaved(saved: bool, path: Path) -> None:
    """Raise an OSError if ``saved``, the return value of Slicer's save functions, is False."""
    if not saved:
        raise OSError(_("Slicer could not write {path}; see its error log.").format(path=path))
