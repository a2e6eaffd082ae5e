"""The subject hierarchy's own work in the application: entries for nodes that come, none for those that are hidden."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

# classes that one of Slicer's plugins takes
SHOWN = ("Volume", "Transform", "Markups", "Text", "Table", "Model", "Segmentation")


def watch(scene: Any) -> None:
    """Add an entry for each node that is added and not hidden, and remove it with the node.

    As ``qSlicerSubjectHierarchyPluginLogic``: whether a node is hidden counts at the moment when it is added. While a
    scene closes nothing is removed, since its hierarchy goes as a whole.
    """
    scene.AddObserver(scene.NodeAddedEvent, _on_added)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _on_removed)
    scene.AddObserver(scene.EndImportEvent, _on_import)
    scene.AddObserver(scene.EndCloseEvent, _on_close)


def entries(scene: Any) -> dict[str, str]:
    """Return the name of each entry of the tree, with that of the entry above it; empty at the top."""
    node = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = vtk.vtkIdList()
    node.GetItemChildren(node.GetSceneItemID(), items, True)
    above = {one: node.GetItemParent(one) for one in (items.GetId(i) for i in range(items.GetNumberOfIds()))}
    top = node.GetSceneItemID()
    return {node.GetItemName(one): "" if up == top else node.GetItemName(up) for one, up in above.items()}


@vtk.calldata_type(vtk.VTK_OBJECT)
def _on_added(scene: Any, _event: str, node: Any) -> None:
    if not scene.IsImporting() and not node.GetHideFromEditors():
        _add(scene, node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _on_removed(scene: Any, _event: str, node: Any) -> None:
    if scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.RemoveItem(item, False, False)


def _on_import(scene: Any, _event: str) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    collection = scene.GetNodes()
    for node in [collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems())]:
        if not node.GetHideFromEditors() and not hierarchy.GetItemByDataNode(node):
            _add(scene, node)


def _on_close(scene: Any, _event: str) -> None:
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)


def _add(scene: Any, node: Any) -> None:
    if any(node.IsA(f"vtkMRML{name}Node") for name in SHOWN):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
