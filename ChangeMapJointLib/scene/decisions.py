"""What the reader decided, kept in the scene: threshold, verdicts on findings and on the registration, comments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import slicer

from ChangeMapJointLib.scene.nodes import Node

SCHEMA = "changemap.reading/1"
DECISIONS = ("accepted", "rejected")
REGISTRATION = ("fine", "doubtful", "wrong")


class Reading:
    """A view of one vtkMRMLTextNode; it holds nothing itself, so that a scene that is loaded again is simply read.

    Attributes:
        node: the text node, JSON.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    @classmethod
    def new(cls, name: str = "ChangeMap reading") -> Reading:
        """A reading with nothing decided, in a new text node."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name)
        node.SetForceCreateStorageNode(slicer.vtkMRMLTextNode.CreateStorageNodeNever)  # the scene file holds it
        reading = cls(node)
        reading._write({"schema": SCHEMA})
        return reading

    @property
    def threshold(self) -> float | None:
        """The threshold in use, None before one was set."""
        value = self._read().get("threshold")
        return None if value is None else float(value)

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._change(threshold=float(value))

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The rows of the table as they were stored last."""
        return list(self._read().get("findings", []))

    @findings.setter
    def findings(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._change(findings=[dict(row) for row in rows])

    def decide(self, key: Any, decision: str | None = None, comment: str = "") -> None:
        """Store what the reader says of the finding named ``key`` (its id, or a live finding's key).

        Raises:
            ValueError: a decision other than 'accepted', 'rejected' or None.
        """
        if decision not in (*DECISIONS, None):
            raise ValueError(f"decide() 'decision' must be one of {DECISIONS} or None, got {decision!r}")
        decisions = dict(self._read().get("decisions", {}))
        decisions[str(key)] = {"decision": decision, "comment": comment}
        self._change(decisions=decisions)

    def decision(self, key: Any) -> str | None:
        """'accepted', 'rejected', or None where the reader has not said."""
        decision: str | None = self._read().get("decisions", {}).get(str(key), {}).get("decision")
        return decision

    def comment(self, key: Any) -> str:
        """The reader's comment on a finding."""
        return str(self._read().get("decisions", {}).get(str(key), {}).get("comment", ""))

    @property
    def decisions(self) -> dict[str, dict[str, Any]]:
        """All verdicts and comments by the findings' keys."""
        return dict(self._read().get("decisions", {}))

    @property
    def registration(self) -> str | None:
        """The reader's verdict on the registration: 'fine', 'doubtful', 'wrong', or None."""
        return self._read().get("registration")

    @registration.setter
    def registration(self, verdict: str | None) -> None:
        if verdict not in (*REGISTRATION, None):
            raise ValueError(f"Reading 'registration' must be one of {REGISTRATION} or None, got {verdict!r}")
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
