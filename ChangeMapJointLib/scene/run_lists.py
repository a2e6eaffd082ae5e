"""The lists of one run: its judged changes by section, and the regions of its map at any threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from ChangeMapJointLib.change.sections import BY_MAP, OPERATING_POINTS
from ChangeMapJointLib.change.threshold_list import ListedChange, ThresholdList
from ChangeMapJointLib.change.threshold_tree import StrongVoxels, ThresholdTree
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scene.judged_list import judged_sections, listing_thresholds, operating_point_of
from ChangeMapJointLib.scene.results import Results
from ChangeMapJointLib.scene.volumes import grid_of

Signed = tuple[NDArray[np.float32], Grid]


class RunLists:
    """Lists what changed; each list is computed once.

    Attributes:
        own: the operating point of the run; None where nothing judged its changes.
        choices: keys of the lists that the run has: operating points, and
            :data:`~ChangeMapJointLib.change.sections.BY_MAP`.
    """

    def __init__(self, results: Results, read: Callable[[str], Signed] | None = None) -> None:
        """Make the lists of a run.

        Args:
            results: the run's nodes.
            read: returns the map with the sign of the change and its grid for the key of a map; None takes map and
                signed difference from the nodes.
        """
        self.results, self._read = results, read
        record = results.content.get("findings", {})
        self.own = operating_point_of(record)
        points = listing_thresholds(record)
        self.choices = (*(point for point in OPERATING_POINTS if point in points or point == self.own), BY_MAP)
        self._by_map: dict[str, ThresholdList] = {}
        self._judged: dict[str, dict[str, list[ListedChange]]] = {}

    def judged(self, point: str) -> dict[str, list[ListedChange]]:
        """Return the changes by section at an operating point."""
        if point not in self._judged:
            content, grid = self.results.content, grid_of(self.results.warped)
            self._judged[point] = judged_sections(  # type: ignore[assignment]
                content.get("findings", {}),
                content.get("candidates", {}),
                grid,
                point,  # type: ignore[arg-type]
            )
        return self._judged[point]

    def regions(self, key: str, threshold: float, smallest: int, signs: Sequence[int]) -> list[ListedChange]:
        """Return the regions of the map ``key`` at a threshold.

        Args:
            key: role of a map in [0, 1], such as ``change_map``.
            threshold: in (0, 1].
            smallest: size in voxels from which a region is listed.
            signs: +1 for increases, -1 for decreases.
        """
        if key not in self._by_map:
            self._by_map[key] = self._list_of(key)
        return [row for row in self._by_map[key].at(threshold, min_voxels=smallest) if row.sign in signs]

    def section_of(self, row: ListedChange) -> str:
        """Return the section of a region at the run's operating point; empty where it was not measured or judged."""
        return "" if self.own is None or row.measured is None else str(row.measured.get("section", ""))

    def _list_of(self, key: str) -> ThresholdList:
        regions = self._tree_of(key)
        candidates = self.results.content.get("candidates", {})
        found, others = self.results.rows, candidates.get("findings", [])
        if self.own is not None:  # no change is in both files; parts of a finding, too, belong to it
            found, others = [], [*found, *others]
        return ThresholdList(
            regions,
            found,
            others,
            candidate_threshold=candidates.get("threshold", 1.0),
            trust=self._trust_at,
        )

    def _tree_of(self, key: str) -> ThresholdTree:
        if self._read is not None:
            strong = StrongVoxels.of_signed(*self._read(key))  # the map, a third of a gigabyte, is freed here
            return ThresholdTree.over(strong)
        change = getattr(self.results, key)
        signed_hu = slicer.util.arrayFromVolume(self.results.signed)
        return ThresholdTree.of(slicer.util.arrayFromVolume(change), signed_hu, grid_of(change))

    def _trust_at(self, points_mm: Any) -> Any:
        """Return trust in [0, 1] at physical points ``[n, 3]`` (LPS, mm); 1 if the run has no trust map."""
        if self.results.trust is None:
            return np.ones(len(points_mm))
        array, grid = self._trust
        index = np.rint(grid.to_index(points_mm)).astype(int)[:, ::-1]
        return array[tuple(np.clip(index, 0, np.array(array.shape) - 1).T)]

    @cached_property
    def _trust(self) -> tuple[Any, Any]:
        return slicer.util.arrayFromVolume(self.results.trust), grid_of(self.results.trust)
