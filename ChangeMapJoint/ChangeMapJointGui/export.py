"""Section Export: report, PDF, DICOM, findings, map, scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.dates import firstInstance, instanceValue
from ChangeMapJointGui.messages import showErrors
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.dicom.values import shown_name

if TYPE_CHECKING:  # not for an empty panel, which would open later
    from ChangeMapJointGui.dicom_export import DicomExport

NAME_TAG, PATIENT_TAGS = "0010,0010", ("0010,0020", "0010,0030", "0010,0040", "0008,0050", "0020,000d")


class ExportSection:
    """Each button shows where the file was saved, or the node made."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self._dicom: DicomExport | None = None
        self._shown = ""  # the result for which the patient may be named
        self.ui.reportButton.connect("clicked(bool)", self.onReport)
        self.ui.pdfButton.connect("clicked(bool)", self.onPdf)
        self.ui.dicomButton.connect("clicked(bool)", self.onDicom)
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
            from ChangeMapJointGui.dicom_export import dicomUnavailable

            reason = dicomUnavailable(session, self.panel.logic.runs)
            self.ui.dicomButton.enabled = not reason and not self._writing
            self.ui.dicomButton.toolTip = reason or _(
                "Write segmentation, measurements, change map, registrations and report as DICOM objects, "
                "under the patient and study of the current scan. All findings go along; the report says which you "
                "rejected."
            )
            self.ui.namePatientCheckBox.enabled = bool(_patientOf(session.results.reference))
            if self._shown != session.results.record.GetID():  # consent for one patient is none for the next
                self._shown = session.results.record.GetID()
                self.ui.namePatientCheckBox.checked = False
            self.ui.mapButton.enabled = session.hasFindings
            lists = session.hasFindings and not session.unusable
            for button in (self.ui.csvButton, self.ui.segmentationButton, self.ui.tableButton):
                button.enabled = lists

    def update(self) -> None:
        """Do nothing: this section does not depend on the parameter node."""

    def onReport(self, checked: bool = False) -> None:  # noqa: ARG002
        """Make the report with the reader's decisions, save it to a file that the user chooses, and open it."""
        self._save(_("Save the report"), run_files.REPORT, "HTML (*.html)", self._saveReport)

    def onPdf(self, checked: bool = False) -> None:  # noqa: ARG002
        """Make the report as a PDF with the reader's decisions, save it to a file, and open it."""
        if self._packages("pdf"):
            self._save(_("Save the report"), "report.pdf", "PDF (*.pdf)", self._savePdf)

    def onDicom(self, checked: bool = False) -> None:  # noqa: ARG002
        """Write the run as DICOM objects into a new folder below one that the user chooses."""
        from ChangeMapJointGui.dicom_export import DicomExport, dicomUnavailable, seriesFiles
        from ChangeMapJointGui.reading import decisionsOf
        from ChangeMapJointLib.background.dicom_export import ExportRequest

        session, runs = self.panel.session, self.panel.logic.runs
        reason = dicomUnavailable(session, runs)
        if reason:  # the stored files were deleted meanwhile
            self.showResult()
            self.ui.exportLabel.text = reason
            return
        if not self._packages("dicom"):
            return
        folder = qt.QSettings().value("ChangeMapJoint/ExportFolder") or str(Path.home())
        chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder for the objects"), folder)
        if not chosen:
            return
        with showErrors(_("The DICOM objects could not be written.")):
            series = [seriesFiles(node) for node in (session.results.reference, session.results.template)]
            if not all(series):
                raise InputError(
                    _("a file of a series is not in Slicer's DICOM database"), remedy=_("import the series again")
                )
            out = _newFolder(Path(chosen), "ChangeMap DICOM")
            qt.QSettings().setValue("ChangeMapJoint/ExportFolder", str(chosen))
            self._dicom = DicomExport(lambda count: self._onWritten(out, count), self._onDicomError)
            decisions = {number: (one.word, one.comment) for number, one in decisionsOf(session).items()}
            run = str(runs.folderOf(session.results))
            self._dicom.start(ExportRequest(run, str(out), series[0], series[1], decisions, session.readerVerdict))
            self.ui.dicomButton.enabled = False
            self.ui.exportLabel.text = _("Writing DICOM objects: about half a minute...")

    @property
    def _writing(self) -> bool:
        return self._dicom is not None and self._dicom.running

    def _onWritten(self, out: Path, count: int | None) -> None:
        self.showResult()
        self.ui.exportLabel.text = _("Saved: {count} DICOM objects in {path}").format(count=count, path=out)

    def _onDicomError(self, why: str) -> None:
        self.showResult()
        self.ui.exportLabel.text = _("The DICOM objects could not be written: {why}").format(why=why)

    def _packages(self, export: str) -> bool:
        """Return whether what an export needs is there; ask to install what is missing."""
        from ChangeMapJointGui.packages import PackagesDeclined, ensure

        try:
            ensure(self.ui.offlinePathLineEdit.currentPath, export=export)
        except PackagesDeclined as declined:
            slicer.util.warningDisplay(str(declined))
            return False
        return True

    def close(self) -> None:
        """End an export that is running: the application quits or the module is unloaded."""
        if self._dicom is not None:
            self._dicom.stop()

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

        with _packagesOfReport():
            saveReport(path, self.panel.session, self.panel.findings.listed)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))

    def _savePdf(self, path: Path) -> None:
        from ChangeMapJointGui.reading import savePdf

        named = bool(self.ui.namePatientCheckBox.checked)
        patient = _patientOf(self.panel.session.results.reference) if named else ()
        with _packagesOfReport():
            savePdf(path, self.panel.session, patient)
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


@contextmanager
def _packagesOfReport() -> Iterator[None]:
    """Say what to do where a package of the report is missing: the scene is from another computer."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            _("the report needs a package that is not installed: {name}").format(name=error.name),
            remedy=_("press Apply once: it offers to install what is missing"),
        ) from error


def _patientOf(node: Any) -> tuple[str, ...]:
    """Return what the header of a scan says of the patient: name, ID, birth date, sex, accession number and study UID.

    Empty if it has no name, or the scan was not loaded from Slicer's DICOM database.
    """
    first = "" if node is None else firstInstance(node)
    name = shown_name(instanceValue(first, NAME_TAG))
    return (name, *(instanceValue(first, tag) for tag in PATIENT_TAGS)) if name else ()


def _newFolder(parent: Path, name: str) -> Path:
    """Return a folder in ``parent`` that is not there yet."""
    names = [name, *(f"{name} {number}" for number in range(2, 1000))]
    return next(parent / one for one in names if not (parent / one).exists())


def _checkSaved(saved: bool, path: Path) -> None:
    """Raise an OSError if ``saved``, the return value of Slicer's save functions, is False."""
    if not saved:
        raise OSError(_("Slicer could not write {path}; see its error log.").format(path=path))
