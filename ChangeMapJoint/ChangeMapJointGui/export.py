"""Section Export: report, findings, map, scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.messages import showErrors
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io import run_files


class ExportSection:
    """Each button shows where the file was saved, or the node made."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self.ui.reportButton.connect("clicked(bool)", self.onReport)
        self.ui.csvButton.connect("clicked(bool)", self.onTable)
        self.ui.mapButton.connect("clicked(bool)", self.onMap)
        self.ui.sceneButton.connect("clicked(bool)", self.onScene)
        self.ui.segmentationButton.connect("clicked(bool)", self.onSegmentation)
        self.ui.tableButton.connect("clicked(bool)", self.onTableNode)

    def showResult(self) -> None:
        """Enable the buttons for what the loaded run has."""
        session = self.panel.session
        self.ui.exportCollapsibleButton.enabled = session is not None
        self.ui.exportLabel.text = ""
        if session is not None:
            self.ui.reportButton.enabled = True
            self.ui.mapButton.enabled = session.hasFindings
            lists = session.hasFindings and not session.unusable
            for button in (self.ui.csvButton, self.ui.segmentationButton, self.ui.tableButton):
                button.enabled = lists

    def update(self) -> None:
        """Do nothing: this section does not depend on the parameter node."""

    def onReport(self, checked: bool = False) -> None:  # noqa: ARG002
        """Make the report with the reader's decisions, save it to a file that the user chooses, and open it."""
        self._save(_("Save the report"), run_files.REPORT, "HTML (*.html)", self._saveReport)

    def onTable(self, checked: bool = False) -> None:  # noqa: ARG002
        """Save the list, folded groups included, with the reader's verdicts."""
        from ChangeMapJointGui.reading import saveTable  # not for an empty panel, which would open later

        rows = self.panel.findings.listed
        self._save(
            _("Save the findings"),
            run_files.FINDINGS_CSV,
            "CSV (*.csv);;JSON (*.json)",
            lambda path: saveTable(path, self.panel.session, rows),
        )

    def onMap(self, checked: bool = False) -> None:  # noqa: ARG002
        """Save the change map as a volume."""
        self._save(
            _("Save the change map"),
            run_files.CHANGE_MAP,
            "NRRD (*.nrrd);;NIfTI (*.nii.gz)",
            lambda path: _checkSaved(slicer.util.exportNode(self.panel.session.mapNode, str(path), {}), path),
        )

    def onSegmentation(self, checked: bool = False) -> None:  # noqa: ARG002
        """Make a segmentation of the findings that are not rejected, for Slicer's own tools."""
        from ChangeMapJointGui.reading import segmentationOf

        rows = [row for row in self.panel.findings.ownRows if self._review(row)["verdict"] != "rejected"]
        with showErrors(_("The segmentation could not be made.")):
            node = segmentationOf(self.panel.session, rows)
            self._showMade(node, _("Segments of the change, not of whole lesions: {name}, in the Data module."))

    def onTableNode(self, checked: bool = False) -> None:  # noqa: ARG002
        """Make a table of the list in the scene, folded groups included, with the reader's verdicts."""
        from ChangeMapJointGui.reading import tableOf

        with showErrors(_("The table could not be made.")):
            node = tableOf(self.panel.session, self.panel.findings.listed)
            self._showMade(node, _("Made: {name}, in the Data module."))

    def _review(self, row: Any) -> dict[str, str]:
        return dict(self.panel.session.review(row.change.key))

    def _showMade(self, node: Any, text: str) -> None:
        self.ui.exportLabel.text = text.format(name=node.GetName())

    def onScene(self, checked: bool = False) -> None:  # noqa: ARG002
        """Save the whole scene as one file."""
        self._save(
            _("Save the scene"),
            "comparison.mrb",
            "MRB (*.mrb)",
            lambda path: _checkSaved(slicer.util.saveScene(str(path)), path),
        )

    def _saveReport(self, path: Path) -> None:
        from ChangeMapJointGui.reading import saveReport

        try:
            saveReport(path, self.panel.session, self.panel.findings.listed)
        except ImportError as error:  # a scene from another computer, and nothing was compared here yet
            raise InputError(
                _("the report needs a package that is not installed: {name}").format(name=error.name),
                remedy=_("press Apply once: it offers to install what is missing"),
            ) from error
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
