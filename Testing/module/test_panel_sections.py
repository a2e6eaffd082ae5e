"""The judged list: findings, groups of possible, explained and stable changes that fold, and the list by the map."""

from __future__ import annotations

import csv
import json

import numpy as np
import panel_samples
import pytest
import slicer
from panel_samples import STABLE_MM, WALL_MM, finished_job, nodes
from panel_views import centre_lps, click_row, groups, items, rows
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from slicerhost import dialogs, user

from ChangeMapJointLib.change.sections import REASONS
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.scene.nodes import CURRENT

ARROW_PX = 30  # of a combo box


@pytest.fixture
def judged(widget):
    """The open module with a judged run on screen."""
    assert widget.panel.loadJob(finished_job(widget.logic.runs.root, *nodes(), is_judged=True))
    slicer.app.mainWindow().activateWindow()
    slicer.app.processEvents()
    return widget


def group(widget, title: str):
    return next(item for item in items(widget) if item.text(0).startswith(title))


def marked(widget) -> list[str]:
    points = widget.panel.session.results.findings
    return [points.GetNthControlPointLabel(i) for i in range(points.GetNumberOfControlPoints())]


def test_a_mark_lies_in_the_lesion_and_not_beside_it(widget) -> None:
    """A nodule that shrank on one side has its region of change beside it."""
    job = finished_job(widget.logic.runs.root, *nodes(), is_judged=True)
    path = job.folder / "result" / "candidates.json"
    content = json.loads(path.read_text("utf-8"))
    lesion = next(entry for entry in content["findings"] if entry["section"] == "stable")
    lesion["lesion_reference"]["centre_mm"] = np.add(STABLE_MM, (6.0, 0.0, -3.0)).tolist()
    path.write_text(json.dumps(content))
    assert widget.panel.loadJob(job)
    widget.panel.parameters.unfolded = "stable"
    points = widget.panel.session.results.findings
    place = points.GetNthControlPointPosition(marked(widget).index("5 stable"))
    np.testing.assert_allclose(lps_to_ras(place), np.add(STABLE_MM, (6.0, 0.0, -3.0)))


def choose_list(widget, key: str) -> None:
    box = widget.ui.listComboBox
    user.choose(box, box.itemText(box.findData(key)))


def test_the_names_of_the_lists_fit_a_narrow_panel_and_a_hint_says_what_they_hold(judged) -> None:
    slicer.app.mainWindow().resize(1280, 800)
    slicer.app.processEvents()
    box = judged.ui.listComboBox
    texts = [box.itemText(i) for i in range(box.count)]
    assert texts == ["Sensitive", "Standard", "Specific", "By the map"]
    assert max(box.fontMetrics().horizontalAdvance(text) for text in texts) + ARROW_PX <= box.width
    hints = [box.itemData(i, Qt.ItemDataRole.ToolTipRole) for i in range(box.count)]
    assert "nearly certain" in hints[2]
    assert "threshold" in hints[3]


# -- groups ----------------------------------------------------------------------------
def test_findings_are_listed_with_their_probability_and_the_rest_is_folded(judged) -> None:
    assert rows(judged) == [
        ["new", "0 → 19.5", "", "85 %", "0.90", ""],
        ["resolved", "19.5 → 0", "", "> 99 %", "0.20", ""],
    ]
    assert groups(judged) == ["Possible (1)", "Explained (1)", "Stable (1)"]
    assert judged.ui.findingsCountLabel.text == "2 findings, 0 reviewed."
    assert judged.ui.findingsTable.headerItem().text(8) == "Prob."
    assert marked(judged) == ["2 resolved"]  # the first is selected: nothing hides it


def test_a_click_unfolds_a_group_and_a_second_one_folds_it(judged) -> None:
    click_row(judged, group(judged, "Explained"))
    assert [row[0] for row in rows(judged)] == ["new", "resolved", "less dense"]
    assert marked(judged) == ["1 new", "2 resolved", "4 explained"]
    assert judged.panel.findings.selected is None  # a group is no change
    click_row(judged, group(judged, "Explained"))
    assert len(rows(judged)) == 2


def test_the_arrow_of_a_group_and_the_arrow_keys_unfold_it(judged) -> None:
    tree = judged.ui.findingsTable
    rect = tree.visualItemRect(group(judged, "Stable"))
    arrow = QPoint(tree.indentation // 2, rect.center().y())
    QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=arrow)
    assert [row[0] for row in rows(judged)][2:] == ["stable"]
    tree.setCurrentItem(group(judged, "Stable"))
    user.press(tree, Qt.Key.Key_Left)
    assert len(rows(judged)) == 2
    user.press(tree, Qt.Key.Key_Right)
    assert len(rows(judged)) == 3


def test_the_key_for_more_unfolds_all_groups_and_folds_them_again(judged) -> None:
    window = slicer.app.mainWindow()
    user.press(window, Qt.Key.Key_M)
    assert [row[0] for row in rows(judged)] == ["new", "resolved", "denser", "less dense", "stable"]
    user.press(window, Qt.Key.Key_M)
    assert len(rows(judged)) == 2


def test_unfolded_groups_stay_so_for_the_next_run_and_in_the_saved_scene(judged, tmp_path) -> None:
    click_row(judged, group(judged, "Possible"))
    judged.panel.loadJob(finished_job(judged.logic.runs.root, *nodes(), is_judged=True))
    assert len(rows(judged)) == 3
    assert slicer.util.saveScene(str(tmp_path / "one.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "one.mrb"))
    slicer.app.processEvents()
    assert [row[0] for row in rows(judged)] == ["new", "resolved", "denser"]


def test_next_and_previous_walk_what_is_on_screen(judged) -> None:
    def walk(key) -> str:
        user.press(slicer.app.mainWindow(), key)
        return judged.panel.findings.selected.kind

    assert [walk(Qt.Key.Key_N) for _ in range(3)] == ["resolved", "new", "resolved"]  # the first was chosen by itself
    click_row(judged, group(judged, "Possible"))
    assert [walk(Qt.Key.Key_N) for _ in range(4)] == ["new", "resolved", "increase", "new"]
    assert [walk(Qt.Key.Key_P) for _ in range(2)] == ["increase", "resolved"]


def test_folding_the_group_of_the_selected_change_selects_nothing(judged) -> None:
    click_row(judged, group(judged, "Possible"))
    click_row(judged, items(judged)[3])
    assert judged.ui.acceptButton.enabled
    user.press(slicer.app.mainWindow(), Qt.Key.Key_M)  # unfolds the others
    user.press(slicer.app.mainWindow(), Qt.Key.Key_M)
    assert judged.panel.findings.selected is None
    assert not judged.ui.acceptButton.enabled


# -- one change ------------------------------------------------------------------------
def test_an_explained_change_gives_its_reason_and_is_shown_where_it_is(judged) -> None:
    click_row(judged, group(judged, "Explained"))
    item = items(judged)[4]
    assert item.toolTip(3) == REASONS["wall"]
    click_row(judged, item)
    for name in CURRENT:
        np.testing.assert_allclose(centre_lps(name), WALL_MM, atol=2.0)
    said = judged.ui.findingRemarkLabel.text.splitlines()
    assert said == [REASONS["wall"], "Flat.", "No color here: the map reaches 0.60, less than the threshold of 0.68."]
    user.drag(judged.ui.thresholdSlider, 0.5)
    assert judged.ui.findingRemarkLabel.text.splitlines() == said[:2]


def test_a_stable_lesion_is_told_with_its_size_in_both_scans(judged) -> None:
    click_row(judged, group(judged, "Stable"))
    click_row(judged, items(judged)[-1])
    assert (
        "Mean diameter 17.5 mm (18.0 x 17.0 mm, 3000 mm3) before, 19.5 mm (20.0 x 19.0"
        in judged.ui.findingRemarkLabel.text
    )


def test_a_verdict_stays_with_its_change_in_every_list(judged) -> None:
    click_row(judged, group(judged, "Possible"))
    click_row(judged, items(judged)[3])
    user.click(judged.ui.acceptButton)
    for key in ("sensitive", "map"):
        choose_list(judged, key)
        user.drag(judged.ui.thresholdSlider, 0.45)
        assert [row[5] for row in rows(judged) if row[0] == "denser"] == ["accepted"]


# -- which list ------------------------------------------------------------------------
def test_the_operating_point_moves_changes_between_the_sections(judged) -> None:
    choose_list(judged, "sensitive")
    assert [row[0] for row in rows(judged)] == ["new", "resolved", "denser"]
    assert groups(judged) == ["Explained (1)", "Stable (1)"]
    choose_list(judged, "specific")
    assert [row[0] for row in rows(judged)] == ["resolved"]
    assert groups(judged)[0] == "Possible (2)"
    choose_list(judged, "standard")
    assert [row[0] for row in rows(judged)] == ["new", "resolved"]


def test_the_threshold_is_the_maps_and_the_list_by_the_map_follows_it(judged) -> None:
    listed = rows(judged)
    user.drag(judged.ui.thresholdSlider, 0.45)
    user.click(judged.ui.increasesCheckBox)
    assert rows(judged) == listed
    assert "The colors show the map from 0.45" in judged.ui.findingsCountLabel.text
    user.click(judged.ui.increasesCheckBox)
    choose_list(judged, "map")
    assert judged.ui.findingsCountLabel.text == "By the map at 0.45: 3 regions, 0 reviewed."
    assert groups(judged) == []
    listed_as = {item.text(1): item.text(9) for item in items(judged)}
    assert listed_as == {"new": "Findings", "resolved": "Findings", "denser": "Possible"}
    assert not judged.ui.findingsTable.isColumnHidden(9)
    user.drag(judged.ui.thresholdSlider, 0.68)
    assert sorted(row[0] for row in rows(judged)) == ["new", "resolved"]
    choose_list(judged, "standard")
    assert rows(judged) == listed


def test_a_run_of_an_older_version_is_listed_by_its_map(shown) -> None:
    assert user.entries(shown.ui.listComboBox) == ["By the map"]
    assert not shown.ui.listComboBox.enabled
    assert shown.ui.findingsCountLabel.text == "2 findings, 0 reviewed."
    assert groups(shown) == []


# -- nothing, and what cannot be seen --------------------------------------------------
def test_an_empty_list_says_that_nothing_was_probable_and_where_the_rest_is(widget) -> None:
    job = finished_job(widget.logic.runs.root, *nodes(), is_judged=True)
    records = panel_samples.judged_records()
    records["findings"]["findings"] = []
    (job.folder / "result" / "findings.json").write_text(json.dumps(records["findings"]))
    assert widget.panel.loadJob(job)
    assert rows(widget) == []
    assert "nothing was probable enough" in widget.ui.findingsCountLabel.text
    assert groups(widget) == ["Possible (1)", "Explained (1)", "Stable (1)"]
    assert not widget.ui.nextFindingButton.enabled


def test_what_cannot_be_seen_is_always_said(judged) -> None:
    assert judged.ui.notSeenLabel.text.startswith("What this comparison cannot see: Changes of less than about 420 HU")
    assert "outside the lungs" in judged.ui.notSeenLabel.text
    job = finished_job(judged.logic.runs.root, *nodes(), is_judged=True)
    path = job.folder / "result" / "quality.json"
    quality = json.loads(path.read_text())
    quality["not_seen"] = [{"key": "small", "sentence": "Solid nodules below about 3.1 mm.", "value": 3.1}]
    path.write_text(json.dumps(quality))
    judged.panel.loadJob(job)
    assert judged.ui.notSeenLabel.text == "What this comparison cannot see: Solid nodules below about 3.1 mm."


# -- export ----------------------------------------------------------------------------
def test_the_table_holds_every_section(judged, tmp_path) -> None:
    dialogs.answer("saveFile", str(tmp_path / "list.csv"))
    user.click(judged.ui.csvButton)
    with (tmp_path / "list.csv").open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert [(row["number"], row["section"]) for row in written] == [
        ("1", "finding"),
        ("2", "finding"),
        ("3", "possible"),
        ("4", "explained"),
        ("5", "stable"),
    ]
    assert (written[3]["probability"], written[3]["reason"]) == ("0.002", REASONS["wall"])
