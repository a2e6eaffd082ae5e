"""The IO manager: files to nodes and back, for what this project reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

READERS = {
    "VolumeFile": (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd"),
    "TransformFile": (".h5", ".tfm", ".txt"),
    "TableFile": (".csv", ".tsv"),
    "SceneFile": (".mrml", ".mrb"),
    "MarkupsFile": (".mrk.json", ".fcsv"),
    "SegmentationFile": (".seg.nrrd",),
}


class IOManager:
    """``slicer.app.ioManager()`` and ``coreIOManager()``."""

    def fileType(self, path: str) -> str:
        name = str(path).lower()
        fits = [(len(end), kind) for kind, ends in READERS.items() for end in ends if name.endswith(end)]
        return max(fits)[1] if fits else "NoFile"

    def loadNodes(self, kind: str, properties: dict[str, Any], collection: Any = None, messages: Any = None) -> bool:
        path = str(properties["fileName"])
        if not Path(path).exists():
            return False
        if kind == "SceneFile":
            return _load_scene(path, bool(properties.get("clear", False)))
        reader = getattr(self, f"_load_{kind.removesuffix('File').lower()}", None)
        node = reader(path, properties.get("name") or Path(path).name.split(".")[0], properties) if reader else None
        if node is not None and collection is not None:
            collection.AddItem(node)
        return node is not None

    def _load_volume(self, path: str, name: str, properties: dict[str, Any]) -> Any:
        volumes = slicer.app.applicationLogic().GetModuleLogic("Volumes")
        node = volumes.AddArchetypeVolume(path, name, 1 if properties.get("labelmap") else 0)
        if node is not None and properties.get("show", True) and not node.IsA("vtkMRMLLabelMapVolumeNode"):
            logic = slicer.app.applicationLogic()
            logic.GetSelectionNode().SetActiveVolumeID(node.GetID())
            logic.PropagateVolumeSelection()  # all views that take part; additional layers stay
        return node

    def _load_transform(self, path: str, _name: str, _properties: dict[str, Any]) -> Any:
        return slicer.app.applicationLogic().GetModuleLogic("Transforms").AddTransform(path, slicer.mrmlScene)

    def _load_table(self, path: str, name: str, _properties: dict[str, Any]) -> Any:
        return slicer.app.applicationLogic().GetModuleLogic("Tables").AddTable(path, name)

    def _load_markups(self, path: str, name: str, _properties: dict[str, Any]) -> Any:
        identity = slicer.app.applicationLogic().GetModuleLogic("Markups").LoadMarkups(path, name)
        return slicer.mrmlScene.GetNodeByID(identity) if identity else None

    def fileWriterFileType(self, node: Any) -> str:
        return node.GetClassName()

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any = None) -> bool:
        path = str(properties["fileName"])
        if kind == "SceneFile" or path.endswith((".mrb", ".mrml")):
            return _save_scene(path)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(properties["useCompression"])
        return bool(storage.WriteData(node))

    def extractKnownExtension(self, path: str, _node: Any) -> str:
        return next((end for end in sorted(READERS["VolumeFile"], key=len)[::-1] if path.endswith(end)), "")

    def fileWriterExtensions(self, _node: Any) -> tuple[str, ...]:
        return tuple(f"Volume (*{end})" for end in READERS["VolumeFile"])

    def exportNodes(
        self, ids: list[str], paths: list[str], _properties: Any, _harden: bool = False, _messages: Any = None
    ) -> bool:
        """Write nodes without touching where the scene's next save writes them."""
        written = []
        for identity, path in zip(ids, paths, strict=True):
            node = slicer.mrmlScene.GetNodeByID(identity)
            storage = node.CreateDefaultStorageNode()
            storage.UnRegister(None)
            storage.SetFileName(path)
            written.append(bool(storage.WriteData(node)))
        return all(written)

    def saveScene(self, path: str, *_more: Any) -> bool:
        return _save_scene(str(path))

    def addDefaultStorageNodes(self) -> None:
        for index in range(slicer.mrmlScene.GetNumberOfNodes()):
            node = slicer.mrmlScene.GetNthNode(index)
            if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene() and not node.GetStorageNode():
                node.AddDefaultStorageNode()


def _load_scene(path: str, clear: bool) -> bool:
    scene = slicer.mrmlScene
    if path.endswith(".mrb"):
        return bool(scene.ReadFromMRB(path, clear))
    scene.SetURL(path)
    return bool(scene.Connect() if clear else scene.Import())


def _save_scene(path: str) -> bool:
    slicer.app.ioManager().addDefaultStorageNodes()
    if path.endswith(".mrb"):
        return bool(slicer.mrmlScene.WriteToMRB(path))
    slicer.mrmlScene.SetURL(path)
    return bool(slicer.mrmlScene.Commit())
