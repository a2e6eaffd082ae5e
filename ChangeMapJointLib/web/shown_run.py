"""One run in the scene: its volumes, the layers over them, and the lists of what changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import slicer
import slicer.util

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, METHODS, SMALLEST_REGION_VOX
from ChangeMapJointLib.change.sections import BY_MAP, DEFAULT_OPERATING_POINT
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.scene import check, findings, layouts
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, Node, hide_extra, show_extra
from ChangeMapJointLib.scene.overlay import Overlay
from ChangeMapJointLib.scene.results import Results, load
from ChangeMapJointLib.scene.run_lists import RunLists
from ChangeMapJointLib.scene.volumes import grid_of, node_of
from ChangeMapJointLib.web.navigation import Navigation
from ChangeMapJointLib.web.opened_run import OpenedRun

MAP_TITLES = {
    "change_combined": "Combined change (CM_comb)",
    "change_learned": "Learned change (CM_learn)",
    "change_difference": "Difference after joint registration (CM_diff)",
    "change_map": "Change map (CM_seq)",
    "signed_change": "Signed difference",
}
CHECKS = {
    "none": "None (change map)",
    "jacobian": "Jacobian: local growth and shrinkage",
    "displacement": "Displacement in mm",
    "trust": "Trust",
}
SIGNED, NO_CHECK, CHECK_OPACITY = "signed_change", "none", 0.5
DEFAULT_OPACITY, LOWEST_THRESHOLD = 0.7, 0.05
MOST_MARKED = 50  # points in the views: more would hide the lesions


@dataclass(frozen=True)
class Settings:
    """What the reader chose to see.

    Attributes:
        map: key of the change map.
        threshold: of the map, in (0, 1].
        overlay: show the map at all.
        increases: show what is denser now.
        decreases: show what is less dense now.
        opacity: of the map, in [0, 1].
        smallest: size in voxels from which a region of the list by the map is listed.
        edges: draw the outlines of the warped prior.
        untrusted: hatch where the registration cannot be trusted.
        check: shown instead of the map: a key of :data:`CHECKS`.
        prior: ``acquired`` or ``warped``.
        window: of the CTs.
        listed: the list: an operating point, or by the map.
        flicker: the current views show the warped prior.
    """

    map: str = "change_map"
    threshold: float = DEFAULT_THRESHOLD
    overlay: bool = False
    increases: bool = True
    decreases: bool = True
    opacity: float = DEFAULT_OPACITY
    smallest: int = SMALLEST_REGION_VOX
    edges: bool = False
    untrusted: bool = True
    check: str = NO_CHECK
    prior: str = "acquired"
    window: str = "lung"
    listed: str = DEFAULT_OPERATING_POINT
    flicker: bool = False


class ShownRun:
    """The nodes of a run and what is shown of them.

    Attributes:
        run: the opened folder.
        results: its nodes.
        maps: keys of its maps, the default one first; empty for method ``rigid``.
        lists: what changed.
        navigation: moves the views.
        settings: as last applied.
        rigid_prior: whether the prior as acquired follows by the rigid alignment alone.
    """

    def __init__(self, run: OpenedRun, *, rigid_prior: bool = False) -> None:
        """Load a run; one that was loaded before is removed.

        Args:
            run: an opened folder.
            rigid_prior: follow with the prior by the rigid alignment alone.

        Raises:
            InputError: a file of the run or a scan cannot be read.
        """
        self.run = run
        current, prior = run.current(), run.prior()
        reference = node_of(*current, "Current", kind="scan")
        template = reference if prior is None else node_of(*prior, "Prior", kind="scan")
        del current, prior  # the nodes hold copies
        self.results: Results = load(run.folder, reference, template)
        self.maps = tuple(key for key in MAP_TITLES if getattr(self.results, key, None) is not None)
        if self.maps[:1] == ("change_combined",):  # change_map of a joint run is the same map
            self.maps = tuple(key for key in self.maps if key != "change_map")
        if self.maps and self.results.signed is not None:
            self.maps += (SIGNED,)
        self.lists = RunLists(self.results)
        self.rigid_prior = rigid_prior or self.unusable or self.results.deformation is None
        mapping = self.results.rigid if self.rigid_prior else self.results.deformation or self.results.rigid
        self._mapping = mapping
        self.navigation = Navigation(reference, mapping)
        self._overlay = Overlay()
        self._on_screen: dict[str, Any] = {}
        self.settings = self.defaults()
        layouts.set_layers(CURRENT, background=reference, foreground=None, label=None)
        self.results.findings.GetDisplayNode().SetVisibility(False) if self.results.findings is not None else None

    # -- what the run says -----------------------------------------------------------------------
    def defaults(self) -> Settings:
        """Return the settings that a run opens with: the originals first."""
        method = METHODS.get(self.run.method)  # type: ignore[call-overload]
        return Settings(
            map=self.maps[0] if self.maps else "",
            threshold=DEFAULT_THRESHOLD if method is None else method.threshold,
            prior="warped" if self.run.template is None else "acquired",
            listed=self.lists.own or BY_MAP,
            untrusted=bool(self.maps),
        )

    @property
    def unusable(self) -> bool:
        """Whether the registration failed; then nothing but the scans, rigidly aligned, is shown."""
        return self.results.verdict == "do not use"

    @property
    def has_findings(self) -> bool:
        """Whether findings may be shown."""
        return bool(self.maps) and not self.unusable

    # -- settings ------------------------------------------------------------------------------------
    def apply(self, settings: Settings) -> None:
        """Show what the settings say; only what differs from the last ones is done again."""
        if not self.maps or self.unusable:
            settings = replace(settings, overlay=False, untrusted=False, edges=False, check=NO_CHECK)
        self.settings = settings
        self._once("window", settings.window, self._set_window)
        self._once("prior", settings.prior, self._set_prior)
        self._once("edges", settings.edges, self._set_edges)
        self._once("untrusted", settings.untrusted, self._set_untrusted)
        self._once("check", settings.check, self._set_check)
        self._once("flicker", settings.flicker, self._set_flicker)
        if self.maps:
            self._set_map(settings)

    def _once(self, name: str, value: Any, act: Any) -> None:
        if self._on_screen.get(name, KEEP) != value:
            act(value)
            self._on_screen[name] = value

    def _set_window(self, name: str) -> None:
        layouts.apply_window((self.results.reference, self.results.template, self.results.warped), name)

    def _set_prior(self, prior: str) -> None:
        acquired = prior == "acquired" and self.run.template is not None
        layouts.set_layers(PRIOR, background=self.results.template if acquired else self.results.warped)
        self.navigation.follow(self._mapping if acquired else None)

    def _set_edges(self, shown: bool) -> None:
        if not shown and "edges" not in self._on_screen:
            return
        outlines = check.edges_of(self.results.warped)
        for view in CURRENT:
            (show_extra if shown else hide_extra)(view, outlines)

    def _set_untrusted(self, shown: bool) -> None:
        trust, lungs = self.results.trust, self.results.lungs
        layouts.set_layers(CURRENT, label=check.hatch_of(trust, lungs) if shown and trust is not None else None)

    def _set_check(self, kind: str) -> None:
        layouts.set_layers(CURRENT, foreground=self.check_node(kind), opacity=CHECK_OPACITY)

    def check_node(self, kind: str) -> Node | None:
        """Return the node of a check overlay; None for none."""
        if kind == "displacement" and self.results.deformation is not None:
            return check.displacement_of(self.results.deformation)
        return {"jacobian": self.results.jacobian, "trust": self.results.trust}.get(kind)

    def _set_flicker(self, on: bool) -> None:
        layouts.set_layers(CURRENT, background=self.results.warped if on else self.results.reference)

    def _set_map(self, settings: Settings) -> None:
        key = settings.map if settings.map in self.maps else self.maps[0]
        shown = settings.overlay and settings.check == NO_CHECK
        if key != self._on_screen.get("map") and shown:  # half a second on a large scan, so not before it is wanted
            self._overlay.show(None if key == SIGNED else getattr(self.results, key), self.results.signed, CURRENT)
            self._on_screen["map"] = key
        if settings.threshold != self._overlay.threshold:
            self._overlay.set_threshold(settings.threshold)
        self._overlay.set_increases(settings.increases)
        self._overlay.set_decreases(settings.decreases)
        self._overlay.set_opacity(settings.opacity)
        self._overlay.set_visible(shown)

    # -- values ------------------------------------------------------------------------------------------
    def values(self) -> str:
        """Return the density in both scans and the change under the crosshair; empty without one."""
        ras = self.navigation.position
        if ras is None:
            return ""
        x, y, z = lps_to_ras(ras).tolist()
        now, before = (_value(node, (x, y, z)) for node in (self.results.reference, self.results.warped))
        parts = [f"{x:.0f}, {y:.0f}, {z:.0f} mm (LPS)", f"now {_hu(now)}", f"warped prior {_hu(before)}"]
        node = getattr(self.results, self.settings.map, None) if self.settings.map != SIGNED else None
        if node is not None and self.settings.overlay:
            change = _value(node, (x, y, z))
            parts.append(f"change {change:.2f}" if change is not None else "")
        return " · ".join(filter(None, parts))

    def mark(self, rows: list[dict[str, Any]]) -> None:
        """Mark listed findings in the current views.

        Args:
            rows: with id, kind, centre_mm (LPS), label.
        """
        if self.results.findings is not None:
            findings.markups(rows[:MOST_MARKED], node=self.results.findings)
            self.results.findings.GetDisplayNode().SetVisibility(bool(rows))

    def close(self) -> None:
        """Remove the run and its scans from the scene."""
        self.navigation.close()
        self._overlay.remove()
        slicer.mrmlScene.RemoveNode(self.results.reference)
        if self.results.template is not None:
            slicer.mrmlScene.RemoveNode(self.results.template)
        self.results.remove()


KEEP: Any = object()  # no value yet


def _hu(value: float | None) -> str:
    return "outside" if value is None else f"{value:.0f} HU"


def _value(node: Node, point_mm: tuple[float, float, float]) -> float | None:
    """Return the voxel of a volume node at a point (LPS, mm); None outside."""
    i, j, k = (round(float(value)) for value in grid_of(node).to_index(point_mm))
    array = slicer.util.arrayFromVolume(node)
    inside = all(0 <= index < size for index, size in zip((k, j, i), array.shape, strict=True))
    return float(array[k, j, i]) if inside else None
