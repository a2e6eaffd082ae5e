"""One run on screen: what the panel needs from the scene, without Qt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

from ChangeMapJointGui.check_layers import CheckLayers
from ChangeMapJointGui.findings_words import FindingRow
from ChangeMapJointGui.lists import PanelLists
from ChangeMapJointGui.panes import Panes
from ChangeMapJointLib.change.threshold_list import ListedChange
from ChangeMapJointLib.export.unseen import unseen_of_records
from ChangeMapJointLib.gate.answer import GateAnswer, GateReason
from ChangeMapJointLib.scene import check, findings, layouts
from ChangeMapJointLib.scene.decisions import SceneDecisions
from ChangeMapJointLib.scene.follow import PriorFollower
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, LayerWatch, composite_node, existing, ids_of
from ChangeMapJointLib.scene.overlay import Overlay
from ChangeMapJointLib.scene.results import Results

MAPS = ("change_combined", "change_learned", "change_difference", "change_map")
SIGNED = "signed_change"
LAYOUTS = {"compare": layouts.COMPARE, "read": layouts.READ, "check": layouts.CHECK}
MOST_MARKED = 50  # points in the views: more would hide the lesions


class Session:
    """Shows the nodes of one run, and stores the reader's verdicts and comments.

    Attributes:
        results: the run's nodes and tables.
        maps: keys of the maps that the run has; empty for method ``rigid``.
        lists: what changed, by section and by the map.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.maps = tuple(name for name in MAPS if getattr(results, name) is not None)
        if self.maps[:1] == ("change_combined",):  # change_map of a joint run is the same map
            self.maps = tuple(name for name in self.maps if name != "change_map")
        if self.maps and results.signed is not None:
            self.maps += (SIGNED,)
        self.lists = PanelLists(results)
        self._reading = SceneDecisions(results.reading)
        self._overlay = Overlay()
        self._panes = Panes(results)
        self._reveal: check.Reveal | None = None
        self._follower: PriorFollower | None = None
        self._mapOnScreen = self._priorOnScreen = ""
        self._shown = True
        self._checkLayers = CheckLayers(results)
        self._views: list[str] = []  # those of the current scan that show this run's scans
        self._watch: LayerWatch | None = None

    # -- results of the run ------------------------------------------------------------
    @property
    def hasFindings(self) -> bool:
        """Whether the run has a change map, and so findings."""
        return bool(self.maps)

    @property
    def verdict(self) -> str:
        """The program's verdict on the registration."""
        return self.results.verdict or ""

    @property
    def reasons(self) -> list[str]:
        """The reasons for the verdict."""
        return list(self.results.content.get("quality", {}).get("quality", {}).get("reasons", []))

    @property
    def gate(self) -> tuple[str, tuple[str, ...]]:
        """The gate's answer and its reasons as sentences; the answer is empty for runs of older versions."""
        record = self.results.content.get("quality", {}).get("gate") or {}
        gate = GateAnswer(
            record.get("answer", ""),
            tuple(GateReason(**{**reason, "value": None}) for reason in record.get("reasons", [])),
        )
        return gate.answer, gate.sentences

    def isOf(self, reference: Any, template: Any) -> bool:
        """Return whether the run compares these two nodes."""
        return reference is not None and (reference, template) == (self.results.reference, self.results.template)

    @property
    def unusable(self) -> bool:
        """Whether the registration failed; then there are no findings, only both scans rigidly side by side."""
        return self.verdict == "do not use"

    @property
    def withheld(self) -> int:
        """Number of findings that are withheld since the registration failed."""
        record = self.results.content.get("findings", {})
        return int(record.get("withheld", 0)) or len(record.get("findings", []))

    @property
    def mapNode(self) -> Any:
        """The node of the map that the run shows by default."""
        return getattr(self.results, self.maps[0]) if self.maps else None

    # -- the overlay ------------------------------------------------------------------
    def showMap(
        self, key: str, threshold: float, shown: bool, increases: bool, decreases: bool, opacity: float
    ) -> None:
        """Apply these settings to the overlay; only what has changed is computed again."""
        if not self.maps:
            return
        key = key if key in self.maps else self.maps[0]
        if key != self._mapOnScreen:
            mapNode = None if key == SIGNED else getattr(self.results, key)
            self._overlay.show(mapNode, self.results.signed, self._views)
            self._mapOnScreen = key
        if threshold != self._overlay.threshold:
            self._overlay.set_threshold(threshold)
        self._overlay.set_increases(increases)
        self._overlay.set_decreases(decreases)
        self._overlay.set_opacity(opacity)
        self._shown = shown
        self._overlay.set_visible(shown and not self._checkLayers.covers)
        self._reading.threshold = round(threshold, 3)  # sliders give 0.45999999999999996

    # -- findings ---------------------------------------------------------------------
    def findings(self, threshold: float, smallest: int, signs: Sequence[int]) -> list[ListedChange]:
        """List the regions of the map at a threshold.

        Args:
            threshold: of the map on screen, in (0, 1].
            smallest: size in voxels from which a region is listed.
            signs: +1 for increases, -1 for decreases.

        Returns:
            The rows; empty if the registration failed.
        """
        if self.unusable:
            return []
        key = self._mapOnScreen if self._mapOnScreen in MAPS else self.maps[0]
        return self.lists.regions(key, threshold, smallest, signs)

    @property
    def listChoices(self) -> tuple[str, ...]:
        """Keys of the lists that can be shown: operating points of the judge, and by the map."""
        return self.lists.choices if self.hasFindings and not self.unusable else ()

    def sections(self, point: str) -> dict[str, list[ListedChange]]:
        """Return the judged changes by section at an operating point; empty if the registration failed."""
        return {} if self.unusable else self.lists.judged(point)

    @property
    def threshold(self) -> float:
        """The threshold that the reader chose for this run; before that, the one with which it was made."""
        stored = self._reading.threshold
        return round(self.mapThreshold if stored is None else stored, 3)

    @property
    def mapThreshold(self) -> float:
        """The threshold of the map with which the run was made."""
        return float(self.results.content.get("findings", {}).get("threshold", 1.0))

    @property
    def notSeen(self) -> tuple[str, ...]:
        """What the comparison cannot see, one sentence each; empty for method ``rigid``."""
        return unseen_of_records(self.results.content)

    def jumpTo(self, row: ListedChange, *, zoom: bool = False) -> None:
        """Center all views on a finding; the prior's views on its place in the prior.

        Args:
            row: the finding.
            zoom: also make it fill a third of each view.
        """
        views = existing(CURRENT)
        if self._follower is None:
            views += existing(PRIOR)
        if zoom:
            findings.zoom_to(findings.extent_mm(row.measured, row.volume_ml), views)
        findings.go_to({"centre_mm": row.centre_mm}, views)

    def markFindings(self, rows: Sequence[FindingRow], selected: ListedChange | None) -> None:
        """Mark the listed findings in the views, except the selected one: it is in the middle, and nothing hides it."""
        if self.results.findings is None:
            return
        marked = [row for row in rows if selected is None or row.change.key != selected.key]
        findings.markups(
            [
                {
                    "id": row.number,
                    "kind": row.change.kind,
                    "centre_mm": _markedPlace(row.change),
                    "remark": (row.change.measured or {}).get("remark", ""),
                    "label": row.section if row.section in ("possible", "explained", "stable") else row.change.kind,
                }
                for row in marked[:MOST_MARKED]
            ],
            node=self.results.findings,
        )

    def review(self, key: int) -> dict[str, str]:
        """Return the reader's ``verdict`` (accepted, rejected or empty) and ``comment`` on a finding."""
        return {"verdict": self._reading.decision(key) or "", "comment": self._reading.comment(key)}

    def setReview(self, key: int, *, verdict: str | None = None, comment: str | None = None) -> None:
        """Store the reader's verdict or comment on a finding; None keeps the stored value."""
        old = self.review(key)
        verdict = old["verdict"] if verdict is None else verdict
        self._reading.decide(key, verdict or None, old["comment"] if comment is None else comment)

    @property
    def decided(self) -> dict[str, Any]:
        """Return the threshold and both verdicts on the registration, by the column of a table."""
        return {
            "map_threshold": self._reading.threshold,
            "registration_verdict": self.verdict,
            "reader_registration_verdict": self.readerVerdict,
        }

    # -- registration check -----------------------------------------------------------
    @property
    def readerVerdict(self) -> str:
        """The reader's own verdict on the registration; empty without one."""
        return self._reading.registration or ""

    def setReaderVerdict(self, verdict: str) -> None:
        """Store the reader's verdict on the registration in the scene; empty for none."""
        self._reading.registration = verdict or None

    def showCheck(self, edges: bool, untrusted: bool, overlay: str, prior: str) -> None:
        """Show the tools of the registration check.

        Args:
            edges: outlines of the warped prior on the current scan.
            untrusted: hatching where trust is low.
            overlay: shown instead of the change map: ``jacobian``, ``displacement``, ``trust``, or ``none``.
            prior: what the prior's views show: ``warped``, ``acquired`` or ``rigid``.
        """
        self._checkLayers.choose(edges=edges, untrusted=untrusted, overlay=overlay)
        self._drawChecks(self._views)
        if prior != self._priorOnScreen:
            self._priorOnScreen = prior
            self._showPrior(prior)

    def _drawChecks(self, views: Sequence[str]) -> None:
        """Draw edges, hatching and overlay of the check in these views."""
        self._dropReveal()
        self._checkLayers.draw(views)
        if self.maps:
            self._overlay.set_visible(self._shown and not self._checkLayers.covers)

    def checkRange(self, overlay: str) -> tuple[float, float]:
        """Return the values of the lowest and highest color of a check overlay."""
        return self._checkLayers.rangeOf(overlay)

    def _showPrior(self, prior: str) -> None:
        run, views = self.results, existing(PRIOR)
        mapping = run.rigid if prior == "rigid" or self.unusable else run.deformation or run.rigid
        acquired = prior in ("acquired", "rigid") and mapping is not None and run.template is not None
        if self._follower is not None:
            self._follower.remove()
            self._follower = None
        layouts.set_layers(views, background=run.template if acquired else run.warped)
        layouts.link(views, layouts.PRIOR_GROUP if acquired else layouts.CURRENT_GROUP)
        pairs = [pair for pair in zip(CURRENT, PRIOR, strict=True) if len(existing(pair)) == len(pair)]
        if acquired and pairs:
            self._follower = PriorFollower(mapping, *zip(*pairs, strict=True))
        elif not acquired:
            for view, like in zip(PRIOR, CURRENT, strict=True):
                if view in views and existing([like]):
                    layouts.match(view, like)
        self._panes.show(warped=not acquired)

    def flicker(self, on: bool) -> None:
        """While on, the current views show the warped prior, without overlay and markers."""
        layouts.set_layers(self._views, background=self.results.warped if on else self.results.reference)
        self._panes.flicker(on)
        self._showMarks(not on)

    def _showMarks(self, shown: bool) -> None:
        """Show or hide what is drawn over the scans: a flicker compares the scans alone."""
        if self.maps:
            self._overlay.set_visible(shown and self._shown and not self._checkLayers.covers)
        if self.results.findings is not None:
            findings.show_in(self.results.findings, self._views if shown else ())

    def swipe(self, share: float) -> None:
        """Show the warped prior in this share of what the axial view shows, from the patient's left; 0 hides it."""
        self._showMarks(share <= 0)
        if share <= 0:
            self._dropReveal()
            return
        if self._reveal is None:
            self._reveal = check.Reveal(self._views, self.results.warped)
        self._reveal.swipe(self._reveal.fraction_at(layouts.across(CURRENT[0], 1 - share)))
        self._panes.divide(self._reveal.plane)

    def _dropReveal(self) -> None:
        if self._reveal is not None:
            self._reveal.remove()
            self._reveal = None
            self._panes.divide(None)

    # -- views ------------------------------------------------------------------------
    def arrange(self, layout: str) -> None:
        """Arrange the views and show the scans; call :meth:`fitViews` once the views have their sizes."""
        layouts.apply(LAYOUTS.get(layout, layouts.COMPARE), slicer.app.layoutManager())
        current = existing(CURRENT)
        layouts.set_layers(current, background=self.results.reference)
        layouts.set_layers(existing(PRIOR), background=self.results.warped)
        layouts.link(current, layouts.CURRENT_GROUP)
        self._priorOnScreen = ""  # the layout may have created its views
        if self._watch is None:
            self._watch = LayerWatch(CURRENT, self._onLayers)
        self._onLayers()

    def fitViews(self) -> None:
        """Fit the views to the whole scan."""
        if self.results.reference is not None:
            layouts.fit(existing(CURRENT), self.results.reference)

    @property
    def scans(self) -> tuple[Any, ...]:
        """The nodes of the current, the prior and the warped prior scan that are still in the scene."""
        run = self.results
        return tuple(node for node in (run.reference, run.template, run.warped) if node is not None and node.GetScene())

    def _onLayers(self) -> None:
        """Show the run exactly in those views that show its scans: another patient's may have been loaded."""
        ours = {*ids_of(self.scans), None}  # nothing: the scan was removed
        views = [view for view in existing(CURRENT) if composite_node(view).GetBackgroundVolumeID() in ours]
        if views == self._views:
            return
        left, came = set(self._views) - set(views), [view for view in views if view not in self._views]
        self._views = views
        self._overlay.set_views(views)
        self._panes.limit(views)
        self._checkLayers.clear(existing(list(left)))
        self._drawChecks(came)
        if self.results.findings is not None:
            findings.show_in(self.results.findings, views)

    def setWindow(self, name: str) -> None:
        """Show all CTs in the window ``lung``, ``mediastinum`` or ``bone``."""
        layouts.apply_window((self.results.reference, self.results.template, self.results.warped), name)

    def leave(self) -> None:
        """Take everything off the views and stop observing; :meth:`arrange` shows the run again."""
        self._panes.remove()
        for part in (self._watch, self._follower, self._reveal):
            if part is not None:
                part.remove()
        self._watch = self._follower = self._reveal = None
        self._checkLayers.clear(existing(self._views))
        for view in existing(self._views):  # VTK reports an error where the last layers of a view go
            if not composite_node(view).GetBackgroundVolumeID():
                layouts.set_layers([view], background=next(iter(self.scans), None))
        self._overlay.set_views(())
        self._views, self._priorOnScreen = [], ""
        if self.results.findings is not None and self.results.findings.GetScene() is not None:
            findings.show_in(self.results.findings, ())

    def close(self) -> None:
        """Remove the run from the screen and stop observing; its nodes stay in the scene."""
        self.leave()
        self._overlay.remove()


def _markedPlace(change: ListedChange) -> Any:
    """Return where a change is marked: in the lesion that the current scan shows, else in the region of change.

    A nodule that shrank on one side has its region of change beside it.
    """
    lesion = (change.measured or {}).get("lesion_reference") or {}
    return lesion.get("centre_mm") or change.centre_mm
