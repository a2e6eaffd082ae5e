"""Load a finished run as nodes of the scene, and find them again in a loaded scene."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import slicer
import slicer.util
import vtk

from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.io.run_records import read_records
from ChangeMapJointLib.io.run_seal import file_sha256
from ChangeMapJointLib.scene import findings as findings_module
from ChangeMapJointLib.scene.colors import change_table
from ChangeMapJointLib.scene.decisions import SceneDecisions
from ChangeMapJointLib.scene.nodes import ROLE, RUN, Node, batch, nodes_of_run, remove, tag
from ChangeMapJointLib.scene.transforms import grid_transform, linear_transform
from ChangeMapJointLib.scene.volumes import node_of

LOADED = "ChangeMapJoint.loaded"  # attribute of the record: when
SEAL = "ChangeMapJoint.sha256"  # attribute of the record: of run.json, as a printed report names the result
WHOLE = {"warped", "reading"}  # roles that every run has beside its record
REFERENCE, TEMPLATE = "ChangeMapJoint.reference", "ChangeMapJoint.template"  # roles of the record's references
# role: file, kind of node, color table, values of its lowest and highest color
VOLUMES: dict[str, tuple[str, str, str | None, tuple[float, float]]] = {
    "change_map": (run_files.CHANGE_MAP, "map", "increase", (0.0, 1.0)),
    "change_learned": (run_files.CHANGE_LEARNED, "map", "increase", (0.0, 1.0)),
    "change_difference": (run_files.CHANGE_DIFFERENCE, "map", "increase", (0.0, 1.0)),
    "change_combined": (run_files.CHANGE_COMBINED, "map", "increase", (0.0, 1.0)),
    "signed": (run_files.SIGNED_CHANGE, "map", "change", (-FULL_SCALE_HU, FULL_SCALE_HU)),
    "warped": (run_files.WARPED_TEMPLATE, "scan", None, (0.0, 0.0)),
    "jacobian": (run_files.JACOBIAN, "map", "Jacobian", (0.5, 1.5)),
    "trust": (run_files.TRUST, "map", "trust", (0.0, 1.0)),
    "lungs": (run_files.LUNGS_REFERENCE, "label", None, (0.0, 0.0)),
}
TITLES = {
    "change_map": "change map",
    "change_learned": "change map, learned",
    "change_difference": "change map, difference",
    "change_combined": "change map, combined",
    "signed": "signed change (HU)",
    "warped": "warped onto the current scan",
    "jacobian": "Jacobian",
    "trust": "trust of the registration",
    "lungs": "lungs",
    "deformation": "deformation",
    "rigid": "rigid alignment",
    "findings": "findings",
    "record": "run record",
    "reading": "reading",
}


@dataclass(frozen=True)
class Results:
    """The nodes of one run; None for those that its method does not make.

    Attributes:
        run: identifier of the run in this scene.
        reference: the current scan's node; None if it was removed.
        template: the prior scan's node; None if it was removed.
        change_map: CM_seq, or CM_comb of the joint method, in [0, 1] on the reference's grid.
        change_learned: CM_learn of the joint method.
        change_difference: CM_diff of the joint method.
        change_combined: CM_comb of the joint method.
        signed: R - T(y) in HU.
        warped: T(y) in HU.
        jacobian: det grad y.
        trust: how reliable the registration is, in [0, 1].
        lungs: label map of the reference's lungs.
        deformation: grid transform, y(x) in RAS.
        rigid: its rigid part, a linear transform.
        findings: locked point list.
        record: text node with the run's JSON files.
        reading: text node of :class:`~ChangeMapJointLib.scene.decisions.SceneDecisions`.
        content: the parsed JSON files 'findings', 'candidates', 'quality' and 'run', as far as the run has them.
    """

    run: str
    reference: Node | None
    template: Node | None
    record: Node
    reading: Node
    warped: Node
    change_map: Node | None = None
    change_learned: Node | None = None
    change_difference: Node | None = None
    change_combined: Node | None = None
    signed: Node | None = None
    jacobian: Node | None = None
    trust: Node | None = None
    lungs: Node | None = None
    deformation: Node | None = None
    rigid: Node | None = None
    findings: Node | None = None
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def all_of_scene(cls) -> list[Results]:
        """Find all runs in the scene, for example in one loaded from a .mrb file, the newest first."""
        runs = [(record, nodes_of_run(record.GetAttribute(RUN))) for record in _records()]
        return [cls._of(record, nodes) for record, nodes in runs if nodes["record"] is record and set(nodes) >= WHOLE]

    @classmethod
    def _of(cls, record: Node, nodes: dict[str, Node]) -> Results:
        for role, node in nodes.items():
            if role in VOLUMES:
                _color(node, role)
        known = {field.name for field in fields(cls)}
        return cls(
            run=record.GetAttribute(RUN),
            reference=record.GetNodeReference(REFERENCE),
            template=record.GetNodeReference(TEMPLATE),
            content=json.loads(record.GetText()),
            **{role: node for role, node in nodes.items() if role in known},
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The findings, as in ``findings.json``."""
        return list(self.content.get("findings", {}).get("findings", []))

    @property
    def verdict(self) -> str | None:
        """The program's verdict on the registration."""
        verdict: str | None = self.content.get("quality", {}).get("quality", {}).get("verdict")
        return verdict

    @property
    def method(self) -> str:
        """The method of the run; empty if its record does not say."""
        return str(self.content.get("run", {}).get("configuration", {}).get("method", ""))

    @property
    def loaded(self) -> str:
        """When the run was first loaded, local time in ISO format; empty for runs of older versions."""
        return self.record.GetAttribute(LOADED) or ""

    def remove(self) -> None:
        """Remove all nodes of the run, and those derived from them, from the scene; the scans stay."""
        with batch():
            _unfile(self.run)
            for node in nodes_of_run(self.run).values():
                remove(node)


def _records() -> list[Node]:
    texts = slicer.util.getNodesByClass("vtkMRMLTextNode")[::-1]
    return [node for node in texts if node.GetAttribute(ROLE) == "record" and node.GetAttribute(RUN)]


def load(
    run_folder: str | PathLike[str], reference_node: Node, template_node: Node, *, without: Collection[str] = ()
) -> Results:
    """Load a finished run into the scene, beside those that are there already.

    Args:
        run_folder: the result folder of the run.
        reference_node: volume node of the current scan.
        template_node: volume node of the prior scan.
        without: roles of volumes that are not loaded, see :data:`VOLUMES`.

    Raises:
        InputError: the folder is not that of a run, or a file in it is damaged; the scene is then unchanged.
    """
    folder, run = Path(run_folder), uuid.uuid4().hex[:12]
    content = read_records(folder)
    with batch():
        try:
            _load_nodes(folder, run, content, (reference_node, template_node), without)
        except BaseException:
            for node in nodes_of_run(run).values():
                remove(node)
            raise
    _file(run, content, reference_node)
    return next(results for results in Results.all_of_scene() if results.run == run)


def _load_nodes(
    folder: Path, run: str, content: dict[str, Any], scans: tuple[Node, Node], without: Collection[str]
) -> None:
    reference, template = scans

    def name(role: str) -> str:
        return f"{(template if role == 'warped' else reference).GetName()}: {TITLES[role]}"

    for role, (file, kind, _, _) in VOLUMES.items():
        if role not in without and (folder / file).exists():
            array, grid = read_array(folder / file)
            node = node_of(array, grid, name(role), kind=kind, keep=True)  # type: ignore[arg-type]
            _color(tag(node, role, run), role)
    if (folder / run_files.DEFORMATION).exists():
        tag(grid_transform(folder / run_files.DEFORMATION, name("deformation")), "deformation", run)
    if (folder / run_files.RIGID).exists():
        tag(linear_transform(folder / run_files.RIGID, name("rigid")), "rigid", run)
    if "findings" in content:
        tag(findings_module.markups(content["findings"]["findings"], name("findings")), "findings", run)
    tag(SceneDecisions.new(name("reading")).node, "reading", run)
    record = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name("record"))
    record.SetForceCreateStorageNode(slicer.vtkMRMLTextNode.CreateStorageNodeNever)
    record.SetText(json.dumps(content))
    record.SetNodeReferenceID(REFERENCE, reference.GetID())
    record.SetNodeReferenceID(TEMPLATE, template.GetID())
    record.SetAttribute(LOADED, datetime.now().isoformat(" ", "minutes"))
    record.SetAttribute(SEAL, file_sha256(folder / run_files.RUN))
    tag(record, "record", run)


def _color(node: Node, role: str) -> Node:
    _, _, table, value_range = VOLUMES[role]
    if table is None:
        return node
    colors, display = change_table(table), node.GetDisplayNode()  # type: ignore[arg-type]
    if display.GetColorNodeID() != colors.GetID():
        display.SetAndObserveColorNodeID(colors.GetID())
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(*value_range)
    return node


# -- subject hierarchy ---------------------------------------------------------------------
def _hierarchy() -> Node | None:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def _file(run: str, content: dict[str, Any], reference: Node) -> None:
    """Put the run's nodes into a subject hierarchy folder beside the reference, under its patient and study."""
    hierarchy = _hierarchy()
    item = hierarchy.GetItemByDataNode(reference) if hierarchy is not None else 0
    if not hierarchy or not item:
        return
    parent = hierarchy.GetItemParent(item)
    method = content["run"].get("configuration", {}).get("method", "")
    folder = hierarchy.CreateFolderItem(parent, f"ChangeMap {method}".strip())
    hierarchy.SetItemAttribute(folder, RUN, run)
    for node in nodes_of_run(run).values():
        child = hierarchy.GetItemByDataNode(node)
        if child:
            hierarchy.SetItemParent(child, folder)
        else:
            hierarchy.CreateItem(folder, node)


def _unfile(run: str) -> None:
    """Remove the run's folder and entries from the subject hierarchy; the nodes stay."""
    hierarchy = _hierarchy()
    if hierarchy is None:
        return
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    all_items = [items.GetId(i) for i in range(items.GetNumberOfIds())]
    folders = [item for item in all_items if hierarchy.GetItemAttribute(item, RUN) == run]
    for item in [hierarchy.GetItemByDataNode(node) for node in nodes_of_run(run).values()] + folders:
        if item:
            hierarchy.RemoveItem(item, False, False)
