"""Section Change map: the map, its threshold, directions and opacity."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from ChangeMapJointGui.choices import chooseKey, fillChoices, onChosen
from ChangeMapJointGui.colors import textColor
from ChangeMapJointGui.parameters import DEFAULT_OPACITY, LOWEST_THRESHOLD, defaultThreshold
from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, SMALLEST_REGION_VOX
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.scene.keys import threshold_step


class MapSection:
    """Settings of the overlay; every change is shown at once."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        onChosen(self.ui.mapComboBox, self.onMap)
        self.ui.thresholdSlider.toolTip = _(
            "Change at or above this value is shown and listed. "
            "1 is a difference of {full} HU; {threshold} is {hu} HU. Keys: + and -"
        ).format(full=round(FULL_SCALE_HU), threshold=DEFAULT_THRESHOLD, hu=round(DEFAULT_THRESHOLD * FULL_SCALE_HU))
        self.ui.resetMapButton.connect("clicked(bool)", self.onReset)
        self._shown: tuple[Any, ...] = ()
        self.restyle()

    def restyle(self) -> None:
        """Color the texts for the theme in use; :meth:`update` draws the legend."""
        self.ui.increasesCheckBox.setStyleSheet(f"color: {textColor('denser')}")
        self.ui.decreasesCheckBox.setStyleSheet(f"color: {textColor('less dense')}")

    def showResult(self) -> None:
        """Offer the maps of the run that was loaded."""
        session = self.panel.session
        names = mapNames()
        available = session.maps if session is not None else ()
        fillChoices(self.ui.mapComboBox, [(key, names[key]) for key in available])
        self.ui.mapCollapsibleButton.enabled = bool(available)
        self._shown = ()

    def update(self) -> None:
        """Apply the settings of the parameter node to the overlay, if they have changed."""
        parameters = self.panel.parameters
        chooseKey(self.ui.mapComboBox, parameters.map)
        threshold = parameters.threshold
        self.ui.thresholdSlider.singleStep = threshold_step(threshold)
        self.ui.thresholdHuLabel.text = thresholdNote(parameters.map, threshold)
        self.ui.legendLabel.setPixmap(self.panel.legends.changeMap(threshold, int(self.ui.legendLabel.width)))
        session = self.panel.session
        if session is None:
            return
        state = (
            parameters.map,
            threshold,
            parameters.showOverlay,
            parameters.increases,
            parameters.decreases,
            parameters.opacity,
        )
        if state != self._shown:
            self._shown = state
            session.showMap(*state)

    def onMap(self, key: str) -> None:
        """Show another map."""
        self.panel.parameters.map = key

    def onReset(self, checked: bool = False) -> None:  # noqa: ARG002
        """Restore the defaults."""
        with self.panel.oneChange() as parameters:
            parameters.threshold = defaultThreshold("joint" if parameters.map == "change_combined" else "sequential")
            parameters.opacity = DEFAULT_OPACITY
            parameters.smallestVoxels = SMALLEST_REGION_VOX
            parameters.showOverlay = parameters.increases = parameters.decreases = True

    def step(self, steps: int) -> None:
        """Raise (+1) or lower (-1) the threshold by one step: a key was pressed."""
        parameters = self.panel.parameters
        size = threshold_step(parameters.threshold + 1e-6 * steps)
        parameters.threshold = min(max(round(parameters.threshold + steps * size, 3), LOWEST_THRESHOLD), 1.0)


def thresholdNote(key: str, threshold: float) -> str:
    """Return what a threshold of the map means."""
    if key == "change_learned":
        return _("network: {percent} % or more").format(percent=round(100 * threshold))
    hu = round(threshold * FULL_SCALE_HU)
    if key == "change_combined":  # the difference times CM_learn, which is at most 1
        return _("{hu} HU, more where the network is unsure").format(hu=hu)
    return _("{hu} HU or more").format(hu=hu)


def mapNames() -> dict[str, str]:
    """Return the titles of the maps that a run may have, in the order of the list."""
    return {
        "change_combined": _("Combined change (CM_comb)"),
        "change_learned": _("Learned change (CM_learn)"),
        "change_difference": _("Difference after joint registration (CM_diff)"),
        "change_map": _("Change map (CM_seq)"),
        "signed_change": _("Signed difference"),
    }
