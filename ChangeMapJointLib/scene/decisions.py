"""The reader's decisions, stored in the scene: threshold, verdicts on findings and registration, comments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import slicer

from ChangeMapJointLib.scene.nodes import Node

SCHEMA = "changemap.reading/1"
DECISIONS = ("accepted", "rejected")
REGISTRATION = ("fine", "doubtful", "wrong")


class SceneDecisions:
    """Reads and writes the decisions in a vtkMRMLTextNode; it keeps no copy, so it works after a scene is loaded.

    Attributes:
        node: the text node; its text is JSON.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    @classmethod
    def new(cls, name: str = "ChangeMap reading") -> SceneDecisions:
        """Make a reading without decisions, in a new text node."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name)
        node.SetForceCreateStorageNode(slicer.vtkMRMLTextNode.CreateStorageNodeNever)  # the scene file holds it
        reading = cls(node)
        reading._write({"schema": SCHEMA})
        return reading

    @property
    def threshold(self) -> float | None:
        """The threshold in use; None before one was set."""
        value = self._read().get("threshold")
        return None if value is None else float(value)

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._change(threshold=float(value))

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The rows of the findings table, as last stored."""
        return list(self._read().get("findings", []))

    @findings.setter
    def findings(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._change(findings=[dict(row) for row in rows])

    def decide(self, key: Any, decision: str | None = None, comment: str = "") -> None:
        """Store the reader's decision on a finding.

        Args:
            key: the finding's id, or its key in the panel's list.
            decision: 'accepted', 'rejected', or None for none.
            comment: the reader's remark.

        Raises:
            ValueError: ``decision`` is none of these.
        """
        if decision not in (*DECISIONS, None):
            raise ValueError(f"decide() 'decision' must be one of {DECISIONS} or None, got {decision!r}")
        decisions = dict(self._read().get("decisions", {}))
        decisions[str(key)] = {"decision": decision, "comment": comment}
        self._change(decisions=decisions)

    def decision(self, key: Any) -> str | None:
        """Return the decision on a finding: 'accepted', 'rejected', or None without one."""
        decision: str | None = self._read().get("decisions", {}).get(str(key), {}).get("decision")
        return decision

    def comment(self, key: Any) -> str:
        """Return the reader's comment on a finding; empty without one."""
        return str(self._read().get("decisions", {}).get(str(key), {}).get("comment", ""))

    @property
    def decisions(self) -> dict[str, dict[str, Any]]:
        """All decisions and comments by the findings' keys."""
        return dict(self._read().get("decisions", {}))

    @property
    def registration(self) -> str | None:
        """The reader's verdict on the registration: 'fine', 'doubtful', 'wrong', or None."""
        return self._read().get("registration")

    @registration.setter
    def registration(self, verdict: str | None) -> None:
        if verdict not in (*REGISTRATION, None):
            raise ValueError(f"Decisions 'registration' must be one of {REGISTRATION} or None, got {verdict!r}")
        self._change(registration=verdict)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.node.GetText() or "{}")
        except ValueError:  # edited by hand
            return {}
        return content if isinstance(content, dict) else {}

    def _change(self, **values: Any) -> None:
        before = self._read()
        after = {**before, **values}
        if after != before:
            self._write(after)

    def _write(self, content: dict[str, Any]) -> None:
        self.node.SetText(json.dumps(content, ensure_ascii=False))
