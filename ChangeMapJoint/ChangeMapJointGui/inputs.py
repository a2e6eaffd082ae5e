"""Section Inputs: the two scans, their dates, and whether they can be compared."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.colors import textColor
from ChangeMapJointGui.dates import acquisitionOf
from ChangeMapJointGui.patients import bodyPartWarning, patientWarning
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.scene.nodes import ROLE

if TYPE_CHECKING:
    from ChangeMapJointLib.scan.volume import Volume

GATE_COLORS = {"fine": "good", "look": "look", "refuse": "bad"}


class InputsSection:
    """Reference and template, swap, dates, and the result of the checks."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self.usable = False
        self._shown: tuple[Any, ...] = ()
        self._check: tuple[str, str, bool] = ("bad", "", False)  # color, text, usable
        self.ui.swapButton.connect("clicked(bool)", self.onSwap)

    def prefill(self) -> None:
        """Choose the scene's two CTs of one patient by their dates, if nothing is chosen yet."""
        from ChangeMapJointGui.prefill import pairOfScene  # a look at every volume, when the module is entered

        parameters = self.panel.parameters
        pair = None if parameters.reference or parameters.template else pairOfScene()
        if pair is not None:
            with self.panel.oneChange():
                parameters.reference, parameters.template = pair

    def update(self) -> None:
        """Check the scans again if another one was chosen or a node was edited."""
        parameters = self.panel.parameters
        nodes = (parameters.reference, parameters.template)
        state = tuple((n.GetID(), n.GetMTime(), _imageTime(n)) if n else None for n in nodes)
        if state == self._shown:
            return
        self._shown = state
        self.ui.swapButton.enabled = any(nodes)
        for node, label in zip(nodes, (self.ui.referenceDateLabel, self.ui.templateDateLabel), strict=True):
            label.text = _describe(node)
        self._check = checkInWords(*nodes)
        self.usable = self._check[2]
        self.showResult()
        self.panel.showChosen()

    def showResult(self) -> None:
        """Show whether the two scans can be compared: as the run on screen found, else by the checks made now."""
        for selector in (self.ui.referenceSelector, self.ui.templateSelector):
            selector.sortFilterProxyModel().hiddenNodeIDs = _ownVolumes()
        color, text, _usable = self._check
        session, parameters = self.panel.session, self.panel.parameters
        if session is not None and parameters is not None and session.isOf(parameters.reference, parameters.template):
            answer, sentences = session.gate
            if answer:
                color, text = GATE_COLORS.get(answer, "look"), gateInWords(answer, sentences)
        self.ui.inputCheckLabel.text = (
            f'<span style="color:{textColor(color)}">{html.escape(text)}</span>' if text else ""
        )

    def onSwap(self, checked: bool = False) -> None:  # noqa: ARG002
        """Swap the two scans."""
        parameters = self.panel.parameters
        nodes = (parameters.template, parameters.reference)
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.reference, parameters.template = nodes


def _ownVolumes() -> list[str]:
    """Return the IDs of the maps and warped scans of all runs, which are not scans to compare."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node.GetID() for node in volumes if node.GetAttribute(ROLE)]


def checkInWords(reference: Any, template: Any) -> tuple[str, str, bool]:
    """Check the chosen nodes before a run.

    Args:
        reference: volume node of the current scan; None if none is chosen.
        template: volume node of the prior scan; None if none is chosen.

    Returns:
        Name of a color, and text to show, and whether a run may start.
    """
    if reference is None or template is None:
        return "bad", "", False
    if reference is template:
        return "bad", _("Reference and template are the same volume; choose two scans."), False
    from ChangeMapJointLib.gate.checks import check_pair

    try:
        volumes = [_checked(node) for node in (reference, template)]
    except InputError as error:
        return "bad", str(error), False
    gate = check_pair(*volumes)
    text = gateInWords(gate.answer, gate.sentences)
    two, part = patientWarning(reference, template), bodyPartWarning(reference, template)
    if two or part:  # a warning, not a refusal: numbers change when patients move
        others = [reason.text for reason in gate.reasons if not (two and reason.rule == "patient")]
        texts = [two, part, *others]
        return "bad" if two else GATE_COLORS[gate.answer], " ".join(filter(None, texts)), gate.answer != "refuse"
    if gate.answer == "fine":  # the comparison also checks the anatomy, and may still refuse the pair
        text = _("Headers and voxels: nothing speaks against a comparison. Apply also checks the anatomy.")
    return GATE_COLORS[gate.answer], text, gate.answer != "refuse"


def gateInWords(answer: str, sentences: Sequence[str]) -> str:
    """Return the gate's answer as text, as in the report and on the command line."""
    if answer == "fine":
        return _("Inputs fine: both scans are chest CT, and nothing speaks against comparing them.")
    start = _("Inputs refused:") if answer == "refuse" else _("Inputs: look.")
    return " ".join([start, *sentences])


def _checked(node: Any) -> Volume:
    from ChangeMapJointLib.gate.checks import check_ct
    from ChangeMapJointLib.scene.volumes import volume_of

    if node.GetImageData() is None:
        raise InputError(_("has no voxels"), field=Path(node.GetName()), remedy=_("load the scan again"))
    return check_ct(replace(volume_of(node), acquisition=acquisitionOf(node)))


def _imageTime(node: Any) -> int:
    image = node.GetImageData()
    return 0 if image is None else image.GetMTime()


def _describe(node: Any) -> str:
    """Return date, size and spacing of a scan on one line."""
    if node is None or node.GetImageData() is None:
        return ""
    size = " x ".join(str(n) for n in node.GetImageData().GetDimensions())
    spacing = " x ".join(f"{h:.3g}" for h in node.GetSpacing())
    date = acquisitionOf(node).date or _("no date in the data")
    return _("{date}; {size} voxels of {spacing} mm").format(date=date, size=size, spacing=spacing)
