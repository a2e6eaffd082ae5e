"""Connected regions of a change map above a threshold, as in Kohlbrandt et al. 2024: smaller ones are dropped."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ChangeMapJointLib.change.method_table import SMALLEST_REGION_VOX
from ChangeMapJointLib.core.filters import label_sizes

SPARSE_FRACTION = 0.01  # of all voxels; above it, labelling the whole volume is faster


def connected_regions(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label the connected regions (26 neighbours) of at least 5 voxels from 1, int32 ``[z, y, x]``."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)), output=np.int32)
    keep = label_sizes(labels, minlength=count + 1) >= SMALLEST_REGION_VOX
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    kept: NDArray[np.int32] = numbers[labels]
    return kept


class MapRegions:
    """:func:`connected_regions` of a map at many thresholds, faster where few voxels are above a threshold."""

    def __init__(self, change_map: NDArray[np.floating]) -> None:
        self.map = change_map
        self.labels = np.zeros(change_map.shape, np.int32)
        padded = np.array(change_map.shape) + 2  # so that the neighbours of border voxels are not in the next row
        self.voxels: NDArray[np.intp] = np.zeros(0, np.intp)  # flat indices that the last call labelled
        self.number = np.full(padded.prod(), -1, np.int32)
        steps = np.array(
            [s for s in product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]
        )  # one of each pair of opposite neighbours
        self.strides = np.array([padded[1] * padded[2], padded[2], 1])
        self.neighbours = steps @ self.strides

    def above(self, threshold: float) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
        """Labels at ``threshold``, valid until the next call, and the number of voxels of every label from 0."""
        mask = self.map >= threshold
        voxels = np.flatnonzero(mask)
        if len(voxels) > SPARSE_FRACTION * mask.size:
            labels = connected_regions(mask)
            return labels, label_sizes(labels)
        position = np.stack(np.unravel_index(voxels, mask.shape), axis=1) @ self.strides + self.strides.sum()
        self.number[position] = np.arange(len(voxels))
        neighbours = [self.number[position + step] for step in self.neighbours]
        self.number[position] = -1
        linked = [np.flatnonzero(other >= 0) for other in neighbours]
        first = np.concatenate(linked)
        second = np.concatenate([other[voxel] for other, voxel in zip(neighbours, linked, strict=True)])
        links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(voxels), len(voxels)))
        count, component = connected_components(links, directed=False)
        keep = np.bincount(component, minlength=count) >= SMALLEST_REGION_VOX
        label = np.where(keep, np.cumsum(keep), 0)[component]
        flat = self.labels.ravel()  # a view: the memory is contiguous
        flat[self.voxels], flat[voxels] = 0, label
        self.voxels = voxels
        sizes = np.bincount(label, minlength=1)
        sizes[0] += mask.size - len(voxels)
        return self.labels, sizes
