"""Two CTs of one patient are current and prior by their dates: what the selectors start with."""

from __future__ import annotations

from typing import Any

import slicer

from ChangeMapJointGui.dates import acquisitionOf
from ChangeMapJointGui.patients import patientWarning
from ChangeMapJointLib.scene.nodes import ROLE


def pairOfScene() -> tuple[Any, Any] | None:
    """Return current and prior scan if the scene holds exactly two CTs, and they say so themselves.

    Returns:
        The later and the earlier one; None if there are more or fewer, a date is missing or both are of one day, or
        headers do not say that both are CTs of one patient. Nothing is guessed from names.
    """
    scans = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if _isScan(node)]
    if len(scans) != 2:
        return None
    facts = [acquisitionOf(node) for node in scans]
    keys, dates = {one.patient_key for one in facts}, [one.date for one in facts]
    if None in keys or len(keys) > 1 or not all(dates) or dates[0] == dates[1]:
        return None
    if any(one.modality != "CT" for one in facts) or patientWarning(*scans):
        return None
    return (scans[0], scans[1]) if str(dates[0]) > str(dates[1]) else (scans[1], scans[0])


def _isScan(node: Any) -> bool:
    return not (node.IsA("vtkMRMLLabelMapVolumeNode") or node.GetAttribute(ROLE) or node.GetHideFromEditors())
