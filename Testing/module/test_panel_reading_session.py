"""A reading session in the panel: the same log as the browser's, and nothing of the findings in sight."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import slicer
from panel_samples import finished_job, nodes
from slicerhost import user

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.evaluation.readers.load import read_log
from ChangeMapJointLib.io.run_seal import file_sha256
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.scene.layouts import CHECK, set_layers
from ChangeMapJointLib.scene.nodes import composite_node
from ChangeMapJointLib.scene.study_case import NOTHING
from ChangeMapJointLib.scene.volumes import grid_of

PLACE_MM = (-60.0, 10.0, -200.0)


@pytest.fixture
def worklist(widget, tmp_path):
    """Two cases of one run, whose scans lie beside it."""
    current, prior = nodes()
    result = finished_job(widget.logic.runs.root, current, prior).folder / "result"
    record = json.loads((result / "run.json").read_text("utf-8"))
    for side, node in (("reference", current), ("template", prior)):
        path = tmp_path / f"{side}.nrrd"
        write_nrrd(path, slicer.util.arrayFromVolume(node), grid_of(node))
        record[side] = {**record.get(side, {}), "name": path.name, "sha256": file_sha256(path)}
    record.pop("files", None)
    (result / "run.json").write_text(json.dumps(record))
    slicer.mrmlScene.Clear(0)
    path = tmp_path / "cases.csv"
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("case", "run", "reference", "template"))
        rows.writerows((case, result, "reference.nrrd", "template.nrrd") for case in ("p1", "p2"))
    return path


@pytest.fixture
def session(widget, worklist):
    """The box with a session that has been started in the arm of the sequential method."""
    box = widget.panel.readingSession
    box.worklist.currentPath = str(worklist)
    user.type_text(box.reader, "R1", enter=False)
    user.choose(box.arm, "CM_seq")
    user.click(box.start)
    return box


def background() -> str:
    node_id = composite_node("Red").GetBackgroundVolumeID()
    return slicer.mrmlScene.GetNodeByID(node_id).GetName() if node_id else ""


def place(session, lps_mm=PLACE_MM) -> None:
    """What a click in place mode does."""
    session.case.marks.AddControlPoint(lps_to_ras(lps_mm).tolist())


def test_cases_are_read_with_marks_a_map_and_pauses_and_the_log_says_so(widget, session, worklist) -> None:
    assert not widget.ui.inputsCollapsibleButton.enabled
    user.click(session.next)
    assert background() == "Current"
    place(session)
    place(session, (40.0, -20.0, -180.0))
    assert session.marks.count == 2
    session.rating.value = 90.0
    point = lps_to_ras((42.0, -20.0, -180.0))
    session.case.marks.SetNthControlPointPosition(1, *point)
    session.case.marks.InvokeEvent(session.case.marks.PointEndInteractionEvent)
    user.choose(session.marks, "1")
    user.click(session.unmark)
    user.click(session.showMap)
    user.click(session.pause)
    assert background() == NOTHING
    assert not session.submit.enabled
    user.click(session.next)
    assert background() == "Current"
    user.click(session.submit)
    assert session.case is None
    widget.panel.exit()  # between two cases nothing has to be stopped
    widget.panel.enter()
    user.click(session.next)
    widget.panel.exit()
    assert session.session.state == "paused"
    widget.panel.enter()
    user.click(session.next)
    user.click(session.submit)
    assert "All cases are submitted" in session.status.text
    user.click(session.end)
    assert widget.ui.inputsCollapsibleButton.enabled

    log = read_log(worklist.parent / "cases-R1-sequential.jsonl")
    first, second = log.readings
    assert {first.case, second.case} == {"p1", "p2"}
    assert (first.arm, first.model, first.pauses, second.pauses) == ("sequential", "sequential", 1, 1)
    (mark,) = first.marks
    assert (mark.number, mark.rating) == (2, 90.0)
    np.testing.assert_allclose(mark.position_mm, (42.0, -20.0, -180.0), atol=1e-3)
    assert second.marks == ()
    assert 0 < first.overlay_s < first.active_s


def test_a_session_goes_on_after_the_scene_was_closed_with_its_marks(widget, session, worklist) -> None:
    user.click(session.next)
    name = session.session.case.name
    place(session)
    slicer.mrmlScene.Clear(0)
    assert not session.active
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    user.click(session.start)
    user.click(session.next)
    assert session.session.case.name == name
    assert session.case.marks.GetNumberOfControlPoints() == 1
    place(session, (0.0, 0.0, -150.0))
    assert [mark.number for mark in session.session.marks] == [1, 2]
    user.click(session.end)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0


def test_the_mark_that_was_touched_last_is_rated_next(session) -> None:
    user.click(session.next)
    place(session)
    place(session, (40.0, -20.0, -180.0))
    session.case.marks.SetNthControlPointPosition(0, *lps_to_ras((-61.0, 10.0, -200.0)))
    session.case.marks.InvokeEvent(session.case.marks.PointEndInteractionEvent)
    session.rating.value = 80.0
    assert [mark.rating for mark in session.session.marks] == [80.0, 50.0]
    session.case.marks.RemoveNthControlPoint(0)
    session.rating.value = 30.0
    assert [(mark.number, mark.rating) for mark in session.session.marks] == [(2, 30.0)]


def test_the_views_are_the_users_again_outside_of_the_module_and_after_the_end(widget, session) -> None:
    own, _ = nodes()
    set_layers(["Red"], background=own)
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    before = node.GetViewArrangement()
    user.click(session.next)
    assert node.GetViewArrangement() == CHECK
    assert background() not in (own.GetName(), NOTHING)
    widget.panel.exit()
    assert (node.GetViewArrangement(), background()) == (before, own.GetName())
    widget.panel.enter()
    user.click(session.next)
    assert node.GetViewArrangement() == CHECK
    assert background() not in (own.GetName(), NOTHING)
    user.click(session.submit)
    user.click(session.end)
    assert (node.GetViewArrangement(), background()) == (before, own.GetName())


def test_a_log_that_cannot_be_written_is_said_and_nothing_is_taken_for_logged(session, monkeypatch) -> None:
    from slicerhost import dialogs

    user.click(session.next)
    place(session)

    def full(_line):
        raise InputError("cannot be written (No space left on device)", field=session.session.log.path)

    with monkeypatch.context() as patch:
        patch.setattr(session.session.log, "_append", full)
        session.rating.value = 90.0
        assert session.rating.value == 50.0
        user.click(session.submit)
        place(session, (40.0, -20.0, -180.0))
    assert all("No space left" in text for text in dialogs.texts("error"))
    assert session.session.state == "reading"
    assert session.case.marks.GetNumberOfControlPoints() == 1
    user.click(session.submit)
    assert [mark.rating for mark in session.session.log.readings[0].marks] == [50.0]


def test_a_result_that_arrives_meanwhile_waits_until_the_session_has_ended(widget, session) -> None:
    user.click(session.next)
    job = finished_job(widget.logic.runs.root, *nodes())
    widget.panel.loadJob(job)
    assert widget.panel.session is None
    assert background() == "Current"
    user.click(session.end)
    assert widget.panel.session is not None


def test_what_cannot_be_read_is_said_in_one_sentence(widget, worklist) -> None:
    from slicerhost import dialogs

    box = widget.panel.readingSession
    user.type_text(box.reader, "R1", enter=False)
    user.click(box.start)
    box.reader.text = ""
    box.worklist.currentPath = str(worklist)
    user.click(box.start)
    user.type_text(box.reader, "R1", enter=False)
    worklist.write_text("case,run\np1,result,2\n")
    user.click(box.start)
    reasons = ("worklist: is missing", "reader: is missing", "more than 2 values")
    for text, words in zip(dialogs.texts("error"), reasons, strict=True):
        assert words in text
    assert not box.active
