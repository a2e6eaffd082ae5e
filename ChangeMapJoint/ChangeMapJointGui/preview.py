"""Both chosen scans on screen before they are compared: the current one above the prior, each as acquired."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.dates import acquisitionOf
from ChangeMapJointGui.panes import paneTitle, prior_words
from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, LayerWatch, composite_node, existing, ids_of
from ChangeMapJointLib.scene.pane_labels import PaneLabels
from ChangeMapJointLib.scene.windows import SharedWindow


class Preview:
    """Shows two scans; nothing is registered yet, so that their views are not linked.

    Attributes:
        pair: nodes of the current and the prior scan.
    """

    def __init__(self, reference: Any, template: Any) -> None:
        self.pair = (reference, template)
        self._labels = PaneLabels(slicer.app.layoutManager())
        self._window = SharedWindow(self.pair)
        self._watch: LayerWatch | None = None
        self._titles = ("", "")

    def arrange(self) -> None:
        """Arrange the views and show the scans; call :meth:`fit` once the views have their sizes."""
        layouts.apply(layouts.COMPARE, slicer.app.layoutManager())
        for views, group, node in self._rows():
            layouts.set_layers(views, background=node, foreground=None, label=None)
            layouts.link(views, group)

    @property
    def scans(self) -> tuple[Any, ...]:
        """Those of the two nodes that are still in the scene."""
        return tuple(node for node in self.pair if node.GetScene() is not None)

    def setWindow(self, name: str) -> None:
        """Show both scans in the window ``lung``, ``mediastinum`` or ``bone``."""
        layouts.apply_window(self.pair, name)

    def fit(self) -> None:
        """Show all of both scans, and say which is which."""
        for views, _group, node in self._rows():
            layouts.fit(views, node)
        current, prior = (acquisitionOf(node).date or "" for node in self.pair)
        self._titles = paneTitle(_("CURRENT"), current), paneTitle(_("PRIOR"), prior, prior_words(warped=False))
        self._watch = LayerWatch((*CURRENT, *PRIOR), self._label)
        self._label()

    def _label(self) -> None:
        """Write which scan it is into the views that show it: another one may have been loaded into them."""
        titles: dict[str, str] = {}
        for (views, _group, node), title in zip(self._rows(), self._titles, strict=True):
            ours = ids_of([node])
            titles |= {view: title for view in views if composite_node(view).GetBackgroundVolumeID() in ours}
        self._labels.show(titles)

    def title(self, view: str) -> str:
        """Return what stands in a view."""
        return self._labels.title(view)

    def remove(self) -> None:
        """Take the texts out of the views, and part the windows of the scans."""
        if self._watch is not None:
            self._watch.remove()
        self._labels.remove()
        self._window.remove()

    def _rows(self) -> tuple[tuple[list[str], int, Any], ...]:
        reference, template = self.pair
        return (
            (existing(CURRENT), layouts.CURRENT_GROUP, reference),
            (existing(PRIOR), layouts.PRIOR_GROUP, template),
        )
