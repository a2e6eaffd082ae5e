"""Both chosen scans are on screen before they are compared, and the views are given back afterwards."""

from __future__ import annotations

import numpy as np
import slicer
from panel_samples import GRID, SHIFT_MM, chest, finished_job, nodes
from panel_views import centre_lps
from slicerhost import leave_module, open_module, user

from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node, existing, slice_node
from ChangeMapJointLib.scene.volumes import node_of


def shown_in(views) -> set[str | None]:
    return {composite_node(view).GetBackgroundVolumeID() for view in views}


def choose(widget, current, prior) -> None:
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, prior)


def test_the_prior_is_shown_below_the_current_scan_as_soon_as_it_is_chosen(widget) -> None:
    current, prior = nodes()
    mine = slicer.app.layoutManager().layout
    user.choose(widget.ui.referenceSelector, current)
    assert slicer.app.layoutManager().layout == mine  # one scan is no pair
    user.choose(widget.ui.templateSelector, prior)
    assert slicer.app.layoutManager().layout == layouts.COMPARE
    assert (shown_in(CURRENT), shown_in(PRIOR)) == ({current.GetID()}, {prior.GetID()})
    np.testing.assert_allclose(centre_lps(PRIOR[0]) - centre_lps("Red"), SHIFT_MM, atol=1e-3)  # each fits its own scan
    preview = widget.panel.preview
    assert [preview.title(view) for view in ("Red", PRIOR[0])] == ["CURRENT", "PRIOR\nas acquired"]
    user.click(widget.ui.boneButton)
    assert prior.GetDisplayNode().GetLevel() == current.GetDisplayNode().GetLevel() == 400
    assert slice_node("Red").GetViewGroup() != slice_node(PRIOR[0]).GetViewGroup()
    layouts.set_layers(["Red"], background=node_of(chest(), GRID, "Other patient", kind="scan"))
    assert [preview.title(view) for view in CURRENT] == ["", "CURRENT", "CURRENT"]


def test_the_views_are_given_back(widget) -> None:
    current, prior = nodes()
    mine = node_of(chest(), GRID, "Mine", kind="scan")
    layouts.set_layers(existing(CURRENT), background=mine)
    before = slicer.app.layoutManager().layout
    choose(widget, current, prior)
    other = node_of(chest(), GRID, "An older one", kind="scan")
    other.GetDisplayNode().SetWindowLevel(333.0, -77.0)
    arranged = []
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    observer = node.AddObserver("ModifiedEvent", lambda *_: arranged.append(node.GetViewArrangement()))
    user.choose(widget.ui.templateSelector, other)
    node.RemoveObserver(observer)
    assert set(arranged) <= {layouts.COMPARE}  # without a detour
    assert other.GetDisplayNode().GetLevel() == -600
    preview = widget.panel.preview
    leave_module("ChangeMapJoint")
    assert (other.GetDisplayNode().GetWindow(), other.GetDisplayNode().GetLevel()) == (333.0, -77.0)
    assert (slicer.app.layoutManager().layout, shown_in(CURRENT)) == (before, {mine.GetID()})
    assert preview.title("Red") == ""
    open_module("ChangeMapJoint")
    assert shown_in(PRIOR) == {other.GetID()}
    slicer.mrmlScene.RemoveNode(other)
    slicer.app.processEvents()
    assert (slicer.app.layoutManager().layout, shown_in(CURRENT)) == (before, {mine.GetID()})
    assert widget.panel.preview is None


def test_a_run_takes_the_place_of_the_preview_and_gives_back_what_was_before_both(widget) -> None:
    current, prior = nodes()
    before = slicer.app.layoutManager().layout
    choose(widget, current, prior)
    assert widget.panel.loadJob(finished_job(widget.logic.runs.root, current, prior))
    assert widget.panel.preview is None
    assert widget.panel.session is not None
    third = node_of(chest(), GRID, "Third", kind="scan")
    user.choose(widget.ui.templateSelector, third)  # the run stays: its list would not belong to what is seen
    assert widget.panel.preview is None
    assert widget.panel.session is not None
    leave_module("ChangeMapJoint")
    assert slicer.app.layoutManager().layout == before
