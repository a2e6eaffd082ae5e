"""Tools to check a registration: edges, hatching, displacement, flicker and swipe."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import ArrayLike, NDArray

from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box, lps_to_ras
from ChangeMapJointLib.registration.quality import LOW_TRUST
from ChangeMapJointLib.scene.colors import change_table
from ChangeMapJointLib.scene.layouts import set_layers
from ChangeMapJointLib.scene.nodes import RUN, Node, Views, composite_node, derived, existing, remove, tag
from ChangeMapJointLib.scene.pane_labels import Plane
from ChangeMapJointLib.scene.transforms import displacement
from ChangeMapJointLib.scene.volumes import grid_of, node_of

EDGE_LEVELS_HU = (-500.0, 200.0)  # between lung and soft tissue, and between soft tissue and bone
PERIOD_MM = 9.0  # of the hatching
SLAB_VOX = 32  # slices that are resampled at once
ALONG_AXES = 1e-9  # of the matrix between two grids: less is no rotation, over 1000 voxels
BoolArray = NDArray[np.bool_]


# -- edges of the warped prior ---------------------------------------------------------------
def edges_of(warped: Node, levels_hu: tuple[float, ...] = EDGE_LEVELS_HU) -> Node:
    """Return the outlines of a CT as a label map node, to be drawn over the other CT; made once per run.

    Args:
        warped: volume node of the CT.
        levels_hu: HU values at which outlines are drawn.
    """
    return derived(warped, "edges") or _label(
        outlines(slicer.util.arrayFromVolume(warped), levels_hu), warped, "edges", "edges of the warped prior"
    )


def outlines(array: NDArray[Any], levels_hu: tuple[float, ...] = EDGE_LEVELS_HU) -> BoolArray:
    """Return the voxels at or above a level with a face neighbour below it; bool ``[z, y, x]``."""
    result = np.zeros(array.shape, dtype=bool)
    for level in levels_hu:
        above = array >= level
        result |= above & ~_eroded(above)
    return result


def _eroded(mask: BoolArray) -> BoolArray:
    """Return the voxels of ``mask`` whose face neighbours are all in it; outside the array counts as in it."""
    inner = mask.copy()
    for axis in range(3):
        line, core = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        core[1:] &= line[:-1]
        core[:-1] &= line[1:]
    return inner


# -- regions that cannot be trusted ------------------------------------------------------------
def hatch_of(trust: Node, lungs: Node, least: float = LOW_TRUST) -> Node:
    """Return a label map node that hatches where trust is low in the lungs; made once per run.

    Args:
        trust: volume node of the trust map in [0, 1], on any grid.
        lungs: label map node on the reference's grid.
        least: trust below this is hatched.

    Returns:
        The label map node, on the reference's grid.
    """
    existing_node = derived(trust, "untrusted")
    if existing_node is not None:
        return existing_node
    grid = grid_of(lungs)
    doubtful = _doubtful(trust, slicer.util.arrayFromVolume(lungs) > 0, grid, least)
    return _label(hatched(doubtful, grid), lungs, "untrusted", "hatched where the registration is unreliable")


def _doubtful(trust: Node, lungs: BoolArray, grid: Grid, least: float) -> BoolArray:
    """Return the voxels of the lungs where trust is low; it is resampled in slabs, since a whole one is large."""
    array, source = slicer.util.arrayFromVolume(trust), grid_of(trust)
    result = np.zeros_like(lungs)
    if not lungs.any() or not (array < least).any():
        return result
    (z, y, x), (z_end, y_end, x_end) = bounding_box(lungs)
    for start in range(z, z_end, SLAB_VOX):
        stop = min(start + SLAB_VOX, z_end)
        box = slice(start, stop), slice(y, y_end), slice(x, x_end)
        part = grid.crop((start, y, x), (stop, y_end, x_end))
        values = array[box] if source.same_as(grid) else on_grid(array, source, part)
        result[box] = lungs[box] & (values < least)
    return result


def hatched(region: BoolArray, grid: Grid) -> BoolArray:
    """Fill a region with stripes at 45 degrees in each of the three planes, and draw its border.

    A third of every 9 mm is filled, or of every six voxels, or four of their longest edges, if that is more.

    Args:
        region: bool ``[z, y, x]``.
        grid: of the region.

    Returns:
        bool ``[z, y, x]``.
    """
    result = np.zeros(region.shape, dtype=bool)
    if not region.any():
        return result
    start, stop = bounding_box(region, 1)  # usually a small part of the scan
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    hx, hy, hz = grid.spacing_mm
    period = np.float32(max(PERIOD_MM, 6 * min(grid.spacing_mm), 4 * max(grid.spacing_mm)))  # seen on thick slices
    z, y, x = (np.arange(a, b) for a, b in zip(start, stop, strict=True))
    border = ~_eroded(region[box])
    across = y[:, None] * hy + x * hx
    for i, at in enumerate(z):  # slice by slice, since positions take eight times the memory of the region
        stripes = (at * hz + across).astype(np.float32) % period < period / 3
        result[box][i] = region[box][i] & (stripes | border[i])
    return result


def on_grid(array: NDArray[Any], source: Grid, target: Grid) -> NDArray[Any]:
    """Resample ``array`` from ``source`` to ``target``: trilinear, the border repeated."""
    if source.same_as(target):
        return array
    rows = (source.inverse_affine @ target.affine)[[2, 1, 0]]  # to indices (k, j, i)
    matrix, offset = rows[:, [2, 1, 0]], rows[:, 3]
    if array.dtype == np.float32 and np.abs(matrix - np.diag(np.diag(matrix))).max() < ALONG_AXES:
        for axis, n in enumerate(target.shape):  # in a tenth of the time
            array = _along(array, np.arange(n) * matrix[axis, axis] + offset[axis], axis)
        return array
    from scipy import ndimage

    moved = ndimage.affine_transform(array, matrix, offset, target.shape, order=1, mode="nearest", prefilter=False)
    return np.asarray(moved)


def _along(array: NDArray[np.float32], at: FloatArray, axis: int) -> NDArray[np.float32]:
    """Interpolate along one axis at these indices, the border repeated."""
    at = np.clip(at, 0, array.shape[axis] - 1)
    below = np.minimum(at.astype(int), max(array.shape[axis] - 2, 0))
    weight = (at - below).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
    first: NDArray[np.float32] = array.take(below, axis)
    step = array.take(np.minimum(below + 1, array.shape[axis] - 1), axis)
    step -= first
    step *= weight
    first += step
    return first


# -- displacement -------------------------------------------------------------------------------
def displacement_of(deformation: Node) -> Node:
    """Return a volume node of |u| in mm on the field's grid; made once. Its colors end at the 99th percentile."""
    existing_node = derived(deformation, "displacement")
    if existing_node is not None:
        return existing_node
    length_mm, grid = displacement(deformation)
    node = node_of(length_mm, grid, "displacement in mm", hidden=True)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(change_table("displacement").GetID())
    display.SetWindowLevelMinMax(0.0, max(1.0, float(np.ceil(np.percentile(length_mm[::4, ::4, ::4], 99)))))
    return _derive(node, deformation, "displacement")


def _label(mask: BoolArray, like: Node, kind: Any, name: str) -> Node:
    node = node_of(mask, grid_of(like), name, kind="label", hidden=True)
    node.GetDisplayNode().SetAndObserveColorNodeID(change_table(kind).GetID())
    return _derive(node, like, kind)


def _derive(node: Node, source: Node, role: str) -> Node:
    """Add ``node`` to the run of ``source``; it is not saved with the scene, but made again."""
    run = source.GetAttribute(RUN)
    return tag(node, role, run) if run else node


# -- flicker and swipe ----------------------------------------------------------------------------
class Reveal:
    """Shows the second scan in a part of the views, as foreground: one side of a plane, or a box round a point.

    Only that part is copied, which is fast enough to follow the mouse.

    Attributes:
        plane: of the last swipe: a point and the normal towards the second scan (RAS); at the volume's border where
            all or nothing of it is shown. None before the first.
    """

    def __init__(self, views: Views, second: Node) -> None:
        self.views = tuple(views)
        self._array, self._grid = slicer.util.arrayFromVolume(second), grid_of(second)
        self._source = second
        self._before = {view: composite_node(view).GetForegroundVolumeID() for view in self.views}
        self._opacity = {view: composite_node(view).GetForegroundOpacity() for view in self.views}
        self._node: Node | None = None
        self.plane: Plane | None = None

    def swipe(self, fraction: float) -> None:
        """Show the second scan to the patient's left of a sagittal plane.

        Args:
            fraction: position of the plane, from 0 (shows all of the second scan) to 1 (shows none of it).
        """
        sagittal = np.abs(np.asarray(self._grid.direction)[0]).argmax()  # the array axis along left-right
        n = self._grid.size[sagittal]
        cut = round(n * min(max(fraction, 0.0), 1.0))
        start, stop = [0, 0, 0], list(self._grid.size)
        if self._grid.direction[0][sagittal] > 0:  # towards the left
            start[sagittal] = cut
        else:
            stop[sagittal] = n - cut
        self._show(start, stop)
        self.plane = self._plane(int(sagittal), start, stop)

    def fraction_at(self, ras: ArrayLike) -> float:
        """Return the fraction for :meth:`swipe` whose plane goes through a point (RAS, mm)."""
        sagittal = int(np.abs(np.asarray(self._grid.direction)[0]).argmax())
        part = (float(self._grid.to_index(lps_to_ras(ras))[sagittal]) + 0.5) / self._grid.size[sagittal]
        return part if self._grid.direction[0][sagittal] > 0 else 1.0 - part

    def _plane(self, axis: int, start: list[int], stop: list[int]) -> Plane:
        """Return the plane of the cut, with its normal towards what is shown."""
        at, towards = (start[axis], 1.0) if start[axis] > 0 else (stop[axis], -1.0)
        index = np.asarray(self._grid.size) / 2.0
        index[axis] = at - 0.5
        normal = towards * np.asarray(self._grid.direction, dtype=float)[:, axis]
        return lps_to_ras(self._grid.to_physical(index)), normal * (-1.0, -1.0, 1.0)

    def around(self, ras: ArrayLike, size_mm: float = 60.0) -> None:
        """Show the second scan in a cube of edge ``size_mm`` round a point (RAS, mm)."""
        middle = self._grid.to_index(lps_to_ras(ras))
        half = size_mm / 2 / np.asarray(self._grid.spacing_mm)
        start = np.clip(np.rint(middle - half), 0, self._grid.size).astype(int)
        stop = np.clip(np.rint(middle + half) + 1, 0, self._grid.size).astype(int)
        self._show(start.tolist(), stop.tolist())

    def remove(self) -> None:
        """Restore the foreground of the views."""
        for view in existing(self.views):
            composite_node(view).SetForegroundVolumeID(self._before[view])
            composite_node(view).SetForegroundOpacity(self._opacity[view])
        remove(self._node)
        self._node = None

    def _show(self, start: list[int], stop: list[int]) -> None:
        """Show the second scan between two voxel indices, ordered (i, j, k)."""
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            set_layers(self.views, foreground=None)
            return
        (x0, y0, z0), (x1, y1, z1) = start, stop
        part, grid = self._array[z0:z1, y0:y1, x0:x1], self._grid.crop(start[::-1], stop[::-1])
        self._node = node_of(
            np.ascontiguousarray(part), grid, "warped prior", kind="scan", node=self._node, hidden=True
        )
        display, source_display = self._node.GetDisplayNode(), self._source.GetDisplayNode()
        display.SetWindowLevel(source_display.GetWindow(), source_display.GetLevel())
        set_layers(self.views, foreground=self._node, opacity=1.0)
