"""The lists of one run, as the library makes them."""

from __future__ import annotations

from typing import Any

from ChangeMapJointLib.scene import run_lists


class PanelLists(run_lists.RunLists):
    """Lists what changed, by section and by the map."""

    def sectionOf(self, row: Any) -> str:
        """Return the section of a region; see :meth:`~ChangeMapJointLib.scene.run_lists.RunLists.section_of`."""
        return self.section_of(row)
