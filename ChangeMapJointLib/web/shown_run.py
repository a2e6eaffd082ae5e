"""One run in the scene: its volumes, the layers over them, and the lists of what changed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, METHODS
from ChangeMapJointLib.change.sections import BY_MAP
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid, lps_to_ras
from ChangeMapJointLib.core.sample_pair import is_sample
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.opened_run import OpenedRun
from ChangeMapJointLib.io.run_seal import file_sha256
from ChangeMapJointLib.scene import check, findings, layouts
from ChangeMapJointLib.scene.map_files import SIGNED, MapFiles
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, Node, hide_extra, show_extra
from ChangeMapJointLib.scene.overlay import Overlay
from ChangeMapJointLib.scene.probe import Probe
from ChangeMapJointLib.scene.results import SEAL, Results, load
from ChangeMapJointLib.scene.run_lists import RunLists
from ChangeMapJointLib.scene.transforms import map_point
from ChangeMapJointLib.scene.volumes import node_of
from ChangeMapJointLib.web.navigation import Navigation
from ChangeMapJointLib.web.pictures import on_dark
from ChangeMapJointLib.web.settings import NO_CHECK, Settings

CHECK_OPACITY = 0.5
MOST_MARKED = 50  # points in the views: more would hide the lesions
# roles that are not loaded: the overlay holds the map that is shown, and no other is held
MAP_ROLES = ("change_map", "change_learned", "change_difference", "change_combined", "signed")
# views that a setting changes, where these are not the current ones
SEEN_IN = {"window": (*CURRENT, *PRIOR), "prior": tuple(PRIOR), "listed": (), "smallest": ()}


class ShownRun:
    """The nodes of a run and what is shown of them.

    Attributes:
        run: the opened folder.
        results: its nodes, without maps.
        synthetic: whether a scan is of the sample pair, whose change is no patient's.
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
        reference = node_of(*run.current(), "Current", kind="scan")
        prior = run.prior()
        template = reference if prior is None else node_of(*prior, "Prior", kind="scan")
        del prior  # the node holds a copy
        self.synthetic = any(is_sample(slicer.util.arrayFromVolume(node)) for node in (reference, template))
        self.results: Results = load(run.folder, reference, template, without=MAP_ROLES)
        self._files = MapFiles(run.folder)
        self.maps = self._files.keys
        self.lists = RunLists(self.results, self._signed)
        self.rigid_prior = rigid_prior or self.unusable or self.results.deformation is None
        mapping = self.results.rigid if self.rigid_prior else self.results.deformation or self.results.rigid
        self._mapping = mapping
        self.navigation = Navigation(reference, mapping)
        self._overlay = Overlay()
        self._map: tuple[NDArray[np.float32], Grid] | None = None  # of the overlay, which shows thousandths alone
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
            untrusted=bool(self.maps) and not self.rigid_prior,
        )

    @property
    def unusable(self) -> bool:
        """Whether the registration failed; then nothing but the scans, rigidly aligned, is shown."""
        return self.results.verdict == "do not use"

    @property
    def has_findings(self) -> bool:
        """Whether findings may be shown."""
        return bool(self.maps) and not self.unusable

    def check_same(self) -> None:
        """Check that the folder still holds the run that is on screen.

        Maps are read when they are wanted, and decisions are stored beside the run: both would be another run's.

        Raises:
            InputError: the run was replaced, moved or removed.
        """
        try:
            same = file_sha256(self.run.folder / run_files.RUN) == self.results.record.GetAttribute(SEAL)
        except OSError:
            same = False
        if not same:
            raise InputError(
                "was replaced or removed since the viewer opened it; nothing is stored",
                field=self.run.folder,
                remedy="start the viewer again",
            )

    # -- settings ------------------------------------------------------------------------------------
    def apply(self, settings: Settings) -> tuple[str, ...]:
        """Show what the settings say; only what differs from the last ones is done again.

        Returns:
            The views that look different now.
        """
        if not self.maps or self.unusable:
            settings = replace(settings, overlay=False, untrusted=False, edges=False, check=NO_CHECK)
        before, self.settings = self.settings, settings
        self._once("window", settings.window, self._set_window)
        self._once("prior", settings.prior, self._set_prior)
        self._once("edges", settings.edges, self._set_edges)
        self._once("untrusted", settings.untrusted, self._set_untrusted)
        self._once("check", settings.check, self._set_check)
        self._once("flicker", settings.flicker, self._set_flicker)
        if self.maps:
            self._set_map(settings)
        names = [
            field.name for field in fields(Settings) if getattr(before, field.name) != getattr(settings, field.name)
        ]
        return tuple(dict.fromkeys(view for name in names for view in SEEN_IN.get(name, CURRENT)))

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
        if key != self._on_screen.get("map") and shown:  # takes a second on a large scan, so not before it is wanted
            self._overlay.remove()  # before the next one is read: two maps of a large scan take too much memory
            self._map = None
            self._on_screen.pop("map", None)  # should the next one not be readable
            self._map = self._files.signed(key)
            self._overlay.show_signed(*self._map, CURRENT)
            self._on_screen["map"] = key
        if settings.threshold != self._overlay.threshold:
            self._overlay.set_threshold(settings.threshold)
        self._overlay.set_increases(settings.increases)
        self._overlay.set_decreases(settings.decreases)
        self._overlay.set_opacity(settings.opacity)
        self._overlay.set_visible(shown)

    def _signed(self, key: str) -> tuple[NDArray[np.float32], Grid]:
        """Return a map with the sign of the change; the one on screen is not read again."""
        if key == self._on_screen.get("map") and self._map is not None:
            return self._map
        return self._files.signed(key)

    # -- values ------------------------------------------------------------------------------------------
    def values(self) -> str:
        """Return the density in both scans and the change under the crosshair; empty without one."""
        ras = self.navigation.position
        if ras is None:
            return ""
        x, y, z = lps_to_ras(ras).tolist()
        shown = self._map if self.settings.overlay else None
        now, warped, change = Probe([self.results.reference, self.results.warped, shown]).at(ras)
        parts = [f"{x:.0f}, {y:.0f}, {z:.0f} mm (LPS)", f"now {_hu(now)}"]
        if not self.rigid_prior:
            parts.append(f"warped prior {_hu(warped)}")
        elif self.run.template is not None:  # the warped one tells what the comparison found
            parts.append(f"prior {_hu(Probe([self.results.template]).at(map_point(self._mapping, ras))[0])}")
        if change is not None and self.settings.map != SIGNED:
            parts.append(f"change {abs(change):.2f}")
        return " · ".join(parts)

    def mark(self, rows: list[dict[str, Any]]) -> None:
        """Mark listed findings in the current views.

        Args:
            rows: with id, kind, centre_mm (LPS), label.
        """
        if self.results.findings is not None:
            findings.markups(rows[:MOST_MARKED], node=self.results.findings)
            display = self.results.findings.GetDisplayNode()
            display.SetVisibility(bool(rows))
            on_dark(display)

    def close(self) -> None:
        """Remove the run and its scans from the scene."""
        self.navigation.close()
        self._overlay.remove()
        self._map = None
        slicer.mrmlScene.RemoveNode(self.results.reference)
        if self.results.template is not None:
            slicer.mrmlScene.RemoveNode(self.results.template)
        self.results.remove()


KEEP: Any = object()  # no value yet


def _hu(value: float | None) -> str:
    return "outside" if value is None else f"{value:.0f} HU"
