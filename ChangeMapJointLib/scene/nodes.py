"""Finding and making nodes: slice views by their fixed names, and the nodes that belong to one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import slicer

Node = Any  # a vtkMRMLNode; slicer has no types
Views = Sequence[str]  # layout names of slice views

CURRENT: Views = ("Red", "Green", "Yellow")
PRIOR: Views = ("ChangeMapPriorRed", "ChangeMapPriorGreen", "ChangeMapPriorYellow")
ORIENTATIONS = ("Axial", "Coronal", "Sagittal")  # of both, in this order

ROLE = "ChangeMapJoint.role"
RUN = "ChangeMapJoint.run"
FIRST_EXTRA_LAYER = 3  # after background, foreground and label


def slice_node(view: str) -> Node:
    """The vtkMRMLSliceNode of a view.

    Raises:
        LookupError: no layout with that view was applied yet.
    """
    return _of_view(view, "vtkMRMLSliceNode")


def composite_node(view: str) -> Node:
    """The vtkMRMLSliceCompositeNode of a view: which volumes it shows.

    Raises:
        LookupError: no layout with that view was applied yet.
    """
    return _of_view(view, "vtkMRMLSliceCompositeNode")


def _of_view(view: str, kind: str) -> Node:
    node = slicer.mrmlScene.GetSingletonNode(view, kind)
    if node is None:
        raise LookupError(f"the scene has no slice view '{view}'; apply a layout that has it first")
    return node


def existing(views: Views) -> list[str]:
    """Those of ``views`` that are in the scene."""
    return [view for view in views if slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceCompositeNode")]


def tag(node: Node, role: str, run: str) -> Node:
    """Note on ``node`` what it is and which run it belongs to; a scene that is loaded again is read by it."""
    node.SetAttribute(ROLE, role)
    node.SetAttribute(RUN, run)
    return node


def of_run(run: str | None) -> dict[str, Node]:
    """The nodes of a run by their role; of no run: empty."""
    nodes = slicer.mrmlScene.GetNodes()
    found = (nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems()))
    return {node.GetAttribute(ROLE): node for node in found if run and node.GetAttribute(RUN) == run}


def derived(source: Node, role: str) -> Node | None:
    """The node that was made from ``source``'s run earlier and has that role, or None."""
    return of_run(source.GetAttribute(RUN)).get(role)


def remove(node: Node | None) -> None:
    """Take a node out of the scene, with its display and storage nodes."""
    if node is None or node.GetScene() is None:
        return
    owned = []
    if node.IsA("vtkMRMLDisplayableNode"):
        owned += [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        owned += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    slicer.mrmlScene.RemoveNode(node)
    for one in owned:
        if one is not None and one.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(one)


@contextmanager
def batch() -> Iterator[None]:
    """Views and widgets update once, when the block ends."""
    scene = slicer.mrmlScene
    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        yield
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


# -- layers beyond background, foreground and label ----------------------------------------
def show_extra(view: str, node: Node, opacity: float = 1.0) -> None:
    """Show ``node`` above the foreground of ``view``, at ``opacity``; the last one shown is on top."""
    composite = composite_node(view)
    layers = _extra(composite)
    layers[node.GetID()] = opacity
    _set_extra(composite, layers)


def hide_extra(view: str, node: Node) -> None:
    """Take ``node`` out of the further layers of ``view``."""
    composite = composite_node(view)
    layers = _extra(composite)
    if layers.pop(node.GetID(), None) is not None:
        _set_extra(composite, layers)


def _extra(composite: Node) -> dict[str, float]:
    """Node ids and opacities of the further layers, the lowest first."""
    layers = range(FIRST_EXTRA_LAYER, FIRST_EXTRA_LAYER + composite.GetNumberOfAdditionalLayers())
    found = {composite.GetNthLayerVolumeID(i): composite.GetNthLayerOpacity(i) for i in layers}
    return {node_id: opacity for node_id, opacity in found.items() if node_id}


def _set_extra(composite: Node, layers: dict[str, float]) -> None:
    if layers == _extra(composite):
        return
    before = composite.GetNumberOfAdditionalLayers()
    was = composite.StartModify()
    for i in reversed(range(len(layers), before)):  # the list closes up when a layer goes: from the end
        composite.SetNthLayerVolumeID(FIRST_EXTRA_LAYER + i, None)
    for i, (node_id, opacity) in enumerate(layers.items(), FIRST_EXTRA_LAYER):
        composite.SetNthLayerVolumeID(i, node_id)
        composite.SetNthLayerOpacity(i, opacity)
    composite.EndModify(was)
