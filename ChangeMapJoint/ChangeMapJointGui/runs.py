"""Comparisons: two volume nodes to a background job, and its result to nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.signals import Signal, ignore
from ChangeMapJointLib.background.job import End, Job, JobInput, JobRequest, clean_up, recoverable
from ChangeMapJointLib.background.request import SIDES
from ChangeMapJointLib.change.method_table import METHOD_NAMES
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, DEFAULT_METHOD, DEFAULT_PRESET
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io import run_files

if TYPE_CHECKING:  # it takes most of a second to import
    from ChangeMapJointLib.scene.results import Results

KEPT_JOBS = 5
REPORT = "ChangeMapJoint.report"  # attribute of the record node: where the report is
resultsLoaded: Signal[Results] = Signal()  # whoever loaded them: the panel or a script


class Runs:
    """One comparison at a time, in a process of its own."""

    def __init__(self) -> None:
        self.lastJob: Job | None = None
        self._run: Any = None

    @property
    def root(self) -> Path:
        """Folder of the jobs: below Slicer's temporary folder, which the user can choose in its settings."""
        return Path(slicer.app.temporaryPath) / "ChangeMapJoint" / "jobs"

    @property
    def running(self) -> bool:
        """Is a comparison under way?"""
        return self._run is not None and self._run.running

    def process(
        self,
        reference: Any,
        template: Any,
        *,
        method: str = DEFAULT_METHOD,
        waitForCompletion: bool = True,
        **options: Any,
    ) -> Any:
        """Compare two scans from a script.

        Args:
            reference: volume node of the current scan.
            template: volume node of the prior scan.
            method: ``rigid``, ``sequential`` or ``joint``.
            waitForCompletion: return the results; else return the :class:`Job` at once.
            options: as in :meth:`start`.

        Returns:
            ``scene.results.Results``, or the job.

        Raises:
            RuntimeError: the comparison failed or was declined; the text says why.
        """
        ends: list[End] = []
        told = options.pop("onEnd", ignore)

        def onEnd(end: End) -> None:
            ends.append(end)
            told(end)

        if not self.start(reference, template, method=method, onEnd=onEnd, **options):
            raise RuntimeError(_("The comparison was not started: a needed package was declined."))
        if not waitForCompletion:
            return self.lastJob
        self._run.wait()
        if not ends or ends[0].state != "finished":
            raise RuntimeError(ends[0].message if ends else _("The comparison did not end."))
        return self.load(self.lastJob)

    def start(
        self,
        reference: Any,
        template: Any,
        *,
        method: str = DEFAULT_METHOD,
        device: str = DEFAULT_DEVICE,
        threshold: float | None = None,
        smallestVoxels: int | None = None,
        preset: str = DEFAULT_PRESET,
        configurationFile: str = "",
        offlineFolder: str = "",
        onEvent: Callable[[dict[str, Any]], None] = ignore,
        onEnd: Callable[[End], None] = ignore,
    ) -> bool:
        """Start a comparison in the background.

        Args:
            reference: volume node of the current scan.
            template: volume node of the prior scan.
            method: ``rigid``, ``sequential`` or ``joint``.
            device: ``auto``, ``cpu`` or ``cuda``.
            threshold: of the change map for the findings in the report, in (0, 1].
            smallestVoxels: smallest region that is a finding.
            preset: of the registration: ``fast``, ``default`` or ``accurate``; a preset in the file goes first.
            configurationFile: JSON with options; empty for the defaults.
            offlineFolder: wheels for computers without a network; empty for none.
            onEvent: told of progress.
            onEnd: told how it ended.

        Returns:
            False when the user declined a needed package.

        Raises:
            InputError: an input cannot be used, or the job's folder cannot be made.
            RuntimeError: a comparison is under way.
        """
        from ChangeMapJointGui.packages import PackagesDeclined, ensure
        from ChangeMapJointGui.process import BackgroundRun

        if self.running:
            raise RuntimeError(_("A comparison is under way; cancel it first."))
        _checkMethod(method)
        configuration = {"preset": preset, **_configuration(configurationFile, threshold, smallestVoxels)}
        try:
            ensure(offlineFolder)
        except PackagesDeclined as declined:
            slicer.util.warningDisplay(str(declined))
            return False
        clean_up(self.root, keep=KEPT_JOBS)
        request = JobRequest(*_inputs(reference, template), method, device, configuration)
        self.lastJob = Job.create(self.root, request)
        self._run = BackgroundRun(self.lastJob, onEvent=onEvent, onEnd=onEnd)
        self._run.start()
        return True

    def cancel(self) -> None:
        """Stop the comparison that is under way; its end is told when it is gone."""
        if self._run is not None:
            self._run.cancel()

    def recoverable(self) -> Job | None:
        """The newest finished job whose result nobody has loaded."""
        return recoverable(self.root)

    def load(self, job: Job | None, *, recover: bool = False) -> Any:
        """The result of a finished job as nodes in the scene.

        Args:
            job: a finished job.
            recover: load its scans, too, where they are no longer in the scene as they were.

        Returns:
            The results; None where the scans are gone, or not as they were, and ``recover`` is off.

        Raises:
            InputError: the job has no result.
        """
        from ChangeMapJointLib.scene.nodes import remove
        from ChangeMapJointLib.scene.results import load

        if job is None or job.result is None:
            raise InputError(_("There is no finished comparison to load."))
        request = job.read()
        nodes = {side: _nodeOf(getattr(request, side), job.input_file(side)) for side in SIDES}
        lacking = [side for side in SIDES if nodes[side] is None]
        if lacking and not recover:
            return None
        try:
            for side in lacking:
                nodes[side] = _loaded(job.input_file(side), getattr(request, side).name)
            results = load(job.result, nodes["reference"], nodes["template"])
        except Exception:
            for side in lacking:
                remove(nodes[side])  # the scene is as it was
            raise
        results.record.SetAttribute(REPORT, str(job.result / run_files.REPORT))
        job.mark_loaded()
        resultsLoaded.emit(results)
        return results

    def close(self) -> None:
        """The application ends: so does the comparison, with its children."""
        if self._run is not None and self._run.running:
            self._run.stop()
        self._run = None


def _checkMethod(method: str) -> None:
    """Refuse at once what the worker would refuse later."""
    from ChangeMapJointGui.method import jointUnavailable

    if method not in METHOD_NAMES:
        known = _("one of {known}").format(known=", ".join(map(repr, METHOD_NAMES)))
        raise InputError(_("found {value}").format(value=repr(method)), field="method", expected=known)
    reason = jointUnavailable() if method == "joint" else ""
    if reason:
        raise InputError(reason, field="method", value=method)


def _inputs(reference: Any, template: Any) -> tuple[JobInput, JobInput]:
    """Both scans for the worker; whether their patients differ is told, and no key of a patient is stored.

    Raises:
        InputError: one is none, or no CT.
    """
    found = [_input(node) for node in (reference, template)]
    keys = [dict(one.acquisition).get("patient_key") for one in found]
    names: list[str | None] = [None, None]
    if all(keys):
        names = ["first patient", "first patient" if keys[0] == keys[1] else "second patient"]
    ours, theirs = (
        replace(one, acquisition={**one.acquisition, "patient_key": name})
        for one, name in zip(found, names, strict=True)
    )
    return ours, theirs


def _input(node: Any) -> JobInput:
    """What the worker needs of a volume node.

    Raises:
        InputError: it is none, or no CT.
    """
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(_("Choose two CT volumes to compare."))
    from ChangeMapJointGui.dates import acquisitionOf
    from ChangeMapJointLib.scene.volumes import volume_of

    acquisition = acquisitionOf(node)
    known = {key: value for key, value in asdict(acquisition).items() if value is not None and key != "date"}
    return JobInput(node.GetName(), acquisition.date, node.GetID(), known, volume_of(node))


def _nodeOf(given: JobInput, file: Path) -> Any:
    """The volume node of a job, if it is what was compared: IDs are used again, and scans are moved and edited."""
    from ChangeMapJointLib.io.read import read_array
    from ChangeMapJointLib.scene.volumes import volume_of

    node = slicer.mrmlScene.GetNodeByID(given.node_id) if given.node_id else None
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        return None
    try:
        now = volume_of(node)
        voxels, grid = read_array(file)
    except InputError:
        return None
    return node if grid.same_as(now.grid) and np.array_equal(voxels, now.array) else None


def _loaded(file: Path, name: str) -> Any:
    """A job's scan as a node; it forgets the job's file, which a saved scene must not point to.

    Raises:
        InputError: the file is gone.
    """
    if not file.exists():
        raise InputError(_("the scan is no longer there"), field=file, remedy=_("run the comparison again"))
    node = slicer.util.loadVolume(str(file), {"name": name})
    storage = node.GetStorageNode()
    node.SetAndObserveStorageNodeID(None)
    slicer.mrmlScene.RemoveNode(storage)
    return node


def _configuration(file: str, threshold: float | None, smallestVoxels: int | None) -> dict[str, Any]:
    """Options for the worker, which checks them."""
    values: dict[str, Any] = {}
    where = Argument("configurationFile", file)
    if file:
        try:
            values = json.loads(Path(file).read_text("utf-8-sig"))
        except OSError as error:
            raise InputError(_("cannot be read ({why})").format(why=error.strerror), field=where) from error
        except (ValueError, RecursionError) as error:
            raise InputError(_("not JSON ({why})").format(why=error), field=where) from error
        if not isinstance(values, dict):
            raise InputError(field=where, expected=_("an object with options"))
    listed = values.get("findings") or {}
    if not isinstance(listed, dict):
        raise InputError(_("found {value}").format(value=f"findings = {listed}"), field=where, expected=_("an object"))
    listed = dict(listed)
    if threshold is not None:
        listed["threshold"] = threshold
    if smallestVoxels is not None:
        listed["min_voxels"] = smallestVoxels
    return {**values, "findings": listed} if listed else values
