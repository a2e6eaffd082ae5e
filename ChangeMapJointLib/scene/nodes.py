"""Find slice views by their fixed names, and the nodes that belong to a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Return the vtkMRMLSliceNode of a view.

    Raises:
        LookupError: no layout with that view was applied yet.
    """
    return _of_view(view, "vtkMRMLSliceNode")


def composite_node(view: str) -> Node:
    """Return the vtkMRMLSliceCompositeNode of a view, which holds the volumes that it shows.

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
    """Return those of ``views`` that are in the scene."""
    return [view for view in views if slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceCompositeNode")]


def ids_of(nodes: Iterable[Node | None]) -> set[str]:
    """Return the IDs of those nodes that are in the scene."""
    return {node.GetID() for node in nodes if node is not None and node.GetScene() is not None}


class LayerWatch:
    """Tells when the layers of some views change, for example since a volume was loaded; :meth:`remove` ends it."""

    def __init__(self, views: Views, changed: Callable[[], None]) -> None:
        """Observe the views that exist; ``changed`` is called after each change of a layer."""
        self._changed = changed
        nodes = [composite_node(view) for view in existing(views)]
        self._observed = [(node, node.AddObserver("ModifiedEvent", self._on_modified)) for node in nodes]

    def _on_modified(self, _node: Node, _event: Any) -> None:
        self._changed()

    def remove(self) -> None:
        """Stop watching."""
        for node, observer in self._observed:
            node.RemoveObserver(observer)
        self._observed = []


def tag(node: Node, role: str, run: str) -> Node:
    """Mark ``node`` with its role and its run, by which it is found again in a loaded scene; return it."""
    node.SetAttribute(ROLE, role)
    node.SetAttribute(RUN, run)
    return node


def nodes_of_run(run: str | None) -> dict[str, Node]:
    """Return the nodes of a run by their role; empty if ``run`` is None."""
    collection = slicer.mrmlScene.GetNodes()
    nodes = (collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems()))
    return {node.GetAttribute(ROLE): node for node in nodes if run and node.GetAttribute(RUN) == run}


def derived(source: Node, role: str) -> Node | None:
    """Return the node of that role in ``source``'s run, or None."""
    return nodes_of_run(source.GetAttribute(RUN)).get(role)


def remove(node: Node | None) -> None:
    """Remove a node from the scene, with its display and storage nodes."""
    if node is None or node.GetScene() is None:
        return
    owned = []
    if node.IsA("vtkMRMLDisplayableNode"):
        owned += [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        owned += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    slicer.mrmlScene.RemoveNode(node)
    for owned_node in owned:
        if owned_node is not None and owned_node.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(owned_node)


@contextmanager
def batch() -> Iterator[None]:
    """Update views and widgets only once, when the block ends."""
    scene = slicer.mrmlScene
    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        yield
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


# -- layers beyond background, foreground and label ----------------------------------------
def show_extra(view: str, node: Node, opacity: float = 1.0) -> None:
    """Show ``node`` as an additional layer above the foreground of ``view``; the last one added is on top."""
    composite = composite_node(view)
    layers = _extra(composite)
    layers[node.GetID()] = opacity
    _set_extra(composite, layers)


def hide_extra(view: str, node: Node) -> None:
    """Remove ``node`` from the additional layers of ``view``."""
    composite = composite_node(view)
    layers = _extra(composite)
    if layers.pop(node.GetID(), None) is not None:
        _set_extra(composite, layers)


def _extra(composite: Node) -> dict[str, float]:
    """Return opacities by node ID of the additional layers, the lowest first."""
    indices = range(FIRST_EXTRA_LAYER, FIRST_EXTRA_LAYER + composite.GetNumberOfAdditionalLayers())
    layers = {composite.GetNthLayerVolumeID(i): composite.GetNthLayerOpacity(i) for i in indices}
    return {node_id: opacity for node_id, opacity in layers.items() if node_id}


def _set_extra(composite: Node, layers: dict[str, float]) -> None:
    if layers == _extra(composite):
        return
    before = composite.GetNumberOfAdditionalLayers()
    was = composite.StartModify()
    for i in reversed(range(len(layers), before)):  # from the end, since removing a layer shifts those above it
        composite.SetNthLayerVolumeID(FIRST_EXTRA_LAYER + i, None)
    for i, (node_id, opacity) in enumerate(layers.items(), FIRST_EXTRA_LAYER):
        composite.SetNthLayerVolumeID(i, node_id)
        composite.SetNthLayerOpacity(i, opacity)
    composite.EndModify(was)
