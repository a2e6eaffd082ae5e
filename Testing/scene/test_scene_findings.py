"""Findings as points, and what the reader decided."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer.util
from scene_samples import findings_document

from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.scene import findings
from ChangeMapJointLib.scene.decisions import SceneDecisions
from ChangeMapJointLib.scene.nodes import CURRENT, slice_node

ROWS = findings_document()["findings"]


def test_points_are_where_the_findings_are(scene):
    node = findings.markups(ROWS)
    assert node.GetNumberOfControlPoints() == 2
    assert node.GetLocked()
    for index, row in enumerate(ROWS):
        np.testing.assert_allclose(node.GetNthControlPointPosition(index), lps_to_ras(row["centre_mm"]))
        assert node.GetNthControlPointLabel(index) == f"{row['id']} {row['kind']}"
        assert node.GetNthControlPointDescription(index) == row["remark"]
        assert node.GetNthControlPointLocked(index)
    assert node.GetNthControlPointSelected(0)  # orange
    assert not node.GetNthControlPointSelected(1)  # blue


def test_a_list_is_filled_again(scene):
    node = findings.markups(ROWS)
    count = scene.GetNumberOfNodes()
    assert findings.markups(ROWS[1:], node=node) is node
    assert node.GetNumberOfControlPoints() == 1
    assert node.GetNthControlPointLabel(0) == "2 resolved"
    assert scene.GetNumberOfNodes() == count
    assert findings.markups([], node=node).GetNumberOfControlPoints() == 0


def test_points_are_shown_in_the_current_views_only(scene):
    display = findings.markups(ROWS).GetDisplayNode()
    shown = [display.GetNthViewNodeID(i) for i in range(display.GetNumberOfViewNodeIDs())]
    assert shown == [slice_node(view).GetID() for view in CURRENT]


def test_go_to_centres_the_views(scene):
    findings.go_to(ROWS[1])
    for view in CURRENT:
        matrix = slicer.util.arrayFromVTKMatrix(slice_node(view).GetSliceToRAS())
        np.testing.assert_allclose(matrix[:3, 3], lps_to_ras(ROWS[1]["centre_mm"]), atol=1e-9)


def test_a_reading_keeps_what_the_reader_decided(scene):
    reading = SceneDecisions.new()
    assert (reading.threshold, reading.registration, reading.decision(1), reading.findings) == (None, None, None, [])
    reading.threshold = 0.4
    reading.registration = "doubtful"
    reading.findings = ROWS
    reading.decide(1, "accepted", "größer?")
    reading.decide("2", "rejected")
    again = SceneDecisions(reading.node)
    assert again.threshold == 0.4
    assert again.registration == "doubtful"
    assert again.findings == ROWS
    assert (again.decision("1"), again.comment(1)) == ("accepted", "größer?")
    assert again.decisions["2"] == {"decision": "rejected", "comment": ""}
    reading.decide(1)
    assert again.decision(1) is None


def test_nothing_is_written_when_nothing_changes(scene):
    reading = SceneDecisions.new()
    reading.threshold = 0.5
    before = reading.node.GetMTime()
    reading.threshold = 0.5
    assert reading.node.GetMTime() == before


def test_what_is_no_verdict_is_refused(scene):
    reading = SceneDecisions.new()
    with pytest.raises(ValueError, match="accepted"):
        reading.decide(1, "maybe")
    with pytest.raises(ValueError, match="doubtful"):
        reading.registration = "perfect"


@pytest.mark.parametrize("text", ["", "not json", "[1]", json.dumps({"other": 1})])
def test_a_text_that_was_edited_by_hand_counts_as_empty(scene, text):
    reading = SceneDecisions.new()
    reading.node.SetText(text)
    assert reading.threshold is None
    reading.threshold = 0.3
    assert reading.threshold == 0.3
