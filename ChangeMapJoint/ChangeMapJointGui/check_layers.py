"""Edges, hatching and overlays of the registration check, as layers of the views; without Qt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

from ChangeMapJointLib.scene import check, layouts
from ChangeMapJointLib.scene.nodes import composite_node, existing, hide_extra, ids_of, show_extra
from ChangeMapJointLib.scene.results import Results

OPACITY = 0.5  # of an overlay


class CheckLayers:
    """Draws what the reader chose, and takes exactly that away again."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._edges = self._untrusted = False
        self._outlines: Any = None
        self._hatching: tuple[Any, ...] = ()  # the label map, None where all can be trusted; empty before it is made
        self._chosen: Any = None
        self._overlay: Any = None  # that is drawn

    @property
    def covers(self) -> bool:
        """Whether an overlay takes the place of the change map."""
        return self._overlay is not None

    def choose(self, *, edges: bool, untrusted: bool, overlay: str) -> None:
        """Choose what :meth:`draw` draws; an overlay that the run does not have counts as none."""
        self._edges, self._untrusted = edges, untrusted
        self._chosen = self._nodeOf(overlay)

    def draw(self, views: Sequence[str]) -> None:
        """Draw it in these views, in place of what is drawn there."""
        self.clear(views)
        if self._edges:
            self._outlines = check.edges_of(self._results.warped)
        for view in views if self._edges else ():
            show_extra(view, self._outlines)
        self._overlay = self._chosen
        label = self._hatch() if self._untrusted else None
        layouts.set_layers(views, foreground=self._overlay, label=label, opacity=OPACITY)

    def clear(self, views: Sequence[str]) -> None:
        """Take it off these views; other layers stay."""
        labels, layers = ids_of(self._hatching), ids_of([self._overlay])
        for view in existing(views):
            composite = composite_node(view)
            if self._outlines is not None:
                hide_extra(view, self._outlines)
            if composite.GetLabelVolumeID() in labels:
                composite.SetLabelVolumeID(None)
            if composite.GetForegroundVolumeID() in layers:
                composite.SetForegroundVolumeID(None)

    def rangeOf(self, overlay: str) -> tuple[float, float]:
        """Return the values of the lowest and highest color of an overlay."""
        node = self._nodeOf(overlay)
        display = node.GetDisplayNode() if node is not None else None
        return (display.GetWindowLevelMin(), display.GetWindowLevelMax()) if display is not None else (0.0, 1.0)

    def _hatch(self) -> Any:
        """Return the label map that hatches what cannot be trusted; None if all can, or nothing is known."""
        if not self._hatching:
            run = self._results
            known = run.trust is not None and run.lungs is not None
            node = check.hatch_of(run.trust, run.lungs) if known else None
            self._hatching = (node if node is not None and slicer.util.arrayFromVolume(node).any() else None,)
        return self._hatching[0]

    def _nodeOf(self, overlay: str) -> Any:
        run = self._results
        if overlay == "displacement":
            return None if run.deformation is None else check.displacement_of(run.deformation)
        return {"jacobian": run.jacobian, "trust": run.trust}.get(overlay)
