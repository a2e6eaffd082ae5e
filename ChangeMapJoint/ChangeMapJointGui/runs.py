"""Comparisons: hand two volume nodes to a background job, and load its result as nodes."""

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
from ChangeMapJointLib.background.job import End, Job, JobInput, JobRequest, clean_up_jobs, recoverable
from ChangeMapJointLib.background.request import SIDES
from ChangeMapJointLib.change.method_table import METHOD_NAMES
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, DEFAULT_METHOD
from ChangeMapJointLib.core.errors import Argument, InputError

if TYPE_CHECKING:  # it takes most of a second to import
    from ChangeMapJointLib.scene.results import Results

KEPT_JOBS = 5
JOB = "ChangeMapJoint.job"  # attribute of a run's record: name of the job's folder, in which its files stay for a while
resultsLoaded: Signal[Results] = Signal()  # emitted when the panel or a script has loaded a result


class Runs:
    """Runs one comparison at a time, in a separate process."""

    def __init__(self) -> None:
        self.lastJob: Job | None = None
        self._run: Any = None
        self._guard: Any = None  # asks before Slicer quits while a comparison runs

    @property
    def root(self) -> Path:
        """Folder of the jobs, below the temporary folder that is chosen in Slicer's settings."""
        return Path(slicer.app.temporaryPath) / "ChangeMapJoint" / "jobs"

    @property
    def running(self) -> bool:
        """Whether a comparison is running."""
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
            waitForCompletion: wait and return the results; else return the :class:`Job` at once.
            options: further arguments of :meth:`start`.

        Returns:
            ``scene.results.Results``, or the job.

        Raises:
            InputError: an input or an option cannot be used.
            RuntimeError: the comparison failed or could not be started; the text says why.
        """
        ends: list[End] = []
        callback = options.pop("onEnd", ignore)

        def onEnd(end: End) -> None:
            ends.append(end)
            callback(end)

        if not self.start(reference, template, method=method, onEnd=onEnd, **options):
            raise RuntimeError(_("The comparison was not started: a required package was not installed."))
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
        operatingPoint: str | None = None,
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
            threshold: of the change map for the findings in the report, in (0, 1]; None for the method's default.
            smallestVoxels: size in voxels from which a region is a finding; None for the default.
            operatingPoint: how probable a finding must be, ``sensitive``, ``standard`` or ``specific``; None for the
                default; one in the file takes precedence.
            configurationFile: JSON file with options; empty for the defaults.
            offlineFolder: folder of wheels for computers without a network; empty for none.
            onEvent: called with each event of the worker.
            onEnd: called once, with how the run ended.

        Returns:
            False if a required package is missing and was not installed.

        Raises:
            InputError: an input cannot be used, or the job's folder cannot be made.
            RuntimeError: a comparison is already running.
        """
        from ChangeMapJointGui.packages import PackagesDeclined, ensure
        from ChangeMapJointGui.process import BackgroundRun
        from ChangeMapJointGui.quitting import QuitGuard

        if self.running:
            raise RuntimeError(_("A comparison is already running; cancel it first."))
        _checkMethod(method)
        configuration = _configuration(configurationFile, threshold, smallestVoxels, operatingPoint)
        try:
            ensure(offlineFolder)
        except PackagesDeclined as declined:
            slicer.util.warningDisplay(str(declined))
            return False
        clean_up_jobs(self.root, keep=KEPT_JOBS)
        request = JobRequest(*_inputs(reference, template), method, device, configuration)
        self.lastJob = Job.create(self.root, request)
        guard = self._guard = QuitGuard()

        def ended(end: End) -> None:
            guard.release()
            onEnd(end)

        self._run = BackgroundRun(self.lastJob, onEvent=onEvent, onEnd=ended)
        self._run.start()
        guard.watch()
        return True

    def cancel(self) -> None:
        """Stop the running comparison; ``onEnd`` is called when its process is gone."""
        if self._run is not None:
            self._run.cancel()

    def recoverable(self) -> Job | None:
        """Return the newest finished job whose result was not loaded yet, or None."""
        return recoverable(self.root)

    def load(self, job: Job | None, *, recover: bool = False) -> Any:
        """Load the result of a finished job into the scene.

        Args:
            job: a finished job.
            recover: also load its scans, if they were changed in or removed from the scene.

        Returns:
            The results; None if the scans were changed or removed and ``recover`` is False.

        Raises:
            InputError: the job has no result.
        """
        from ChangeMapJointLib.scene.nodes import remove
        from ChangeMapJointLib.scene.results import load

        if job is None or job.result is None:
            raise InputError(_("There is no finished comparison to load."))
        request = job.read()
        nodes = {side: _nodeOf(getattr(request, side), job.input_file(side)) for side in SIDES}
        missing = [side for side in SIDES if nodes[side] is None]
        if missing and not recover:
            return None
        try:
            for side in missing:
                nodes[side] = _loadScan(job.input_file(side), getattr(request, side).name)
            results = load(job.result, nodes["reference"], nodes["template"])
        except Exception:
            for side in missing:
                remove(nodes[side])  # leave the scene as it was
            raise
        results.record.SetAttribute(JOB, job.folder.name)
        job.mark_loaded()
        resultsLoaded.emit(results)
        return results

    def folderOf(self, results: Results) -> Path | None:
        """Return the folder with the files of a run, if it is still among the stored ones."""
        from ChangeMapJointLib.io import run_files
        from ChangeMapJointLib.io.run_seal import file_sha256
        from ChangeMapJointLib.scene.results import SEAL

        name, seal = results.record.GetAttribute(JOB), results.record.GetAttribute(SEAL)
        folder = Job(self.root / name).result if name and Path(name).name == name else None
        return folder if folder is not None and file_sha256(folder / run_files.RUN) == seal else None

    def close(self) -> None:
        """End the running comparison with its child processes: the application quits."""
        if self._run is not None and self._run.running:
            self._run.stop()
        if self._guard is not None:
            self._guard.release()
        self._run = self._guard = None


def _checkMethod(method: str) -> None:
    """Raise an InputError for an unusable method at once, rather than later in the worker."""
    from ChangeMapJointGui.method import jointUnavailable

    if method not in METHOD_NAMES:
        known = _("one of {known}").format(known=", ".join(map(repr, METHOD_NAMES)))
        raise InputError(_("found {value}").format(value=repr(method)), field="method", expected=known)
    reason = jointUnavailable() if method == "joint" else ""
    if reason:
        raise InputError(reason, field="method", value=method)


def _inputs(reference: Any, template: Any) -> tuple[JobInput, JobInput]:
    """Return both scans for the worker. It learns whether the patients differ, but no patient's key is stored.

    Raises:
        InputError: a node is not a volume, or not a CT.
    """
    if reference is not None and reference is template:
        raise InputError(_("Reference and template are the same volume; choose two scans."))
    scans = [_input(node) for node in (reference, template)]
    keys = [dict(scan.acquisition).get("patient_key") for scan in scans]
    names: list[str | None] = [None, None]
    if all(keys):
        names = ["first patient", "first patient" if keys[0] == keys[1] else "second patient"]
    current, prior = (
        replace(scan, acquisition={**scan.acquisition, "patient_key": name})
        for scan, name in zip(scans, names, strict=True)
    )
    return current, prior


def _input(node: Any) -> JobInput:
    """Return what the worker needs of a volume node.

    Raises:
        InputError: the node is not a volume, or not a CT.
    """
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(_("Choose two CT volumes to compare."))
    from ChangeMapJointGui.dates import acquisitionOf
    from ChangeMapJointLib.scene.volumes import volume_of

    acquisition = acquisitionOf(node)
    known = {key: value for key, value in asdict(acquisition).items() if value is not None and key != "date"}
    return JobInput(node.GetName(), acquisition.date, node.GetID(), known, volume_of(node))


def _nodeOf(scan: JobInput, file: Path) -> Any:
    """Return the volume node of a job's scan, or None if it no longer holds the voxels and grid that were compared.

    Node IDs are reused, and nodes may have been moved or edited since.
    """
    from ChangeMapJointLib.io.read import read_array
    from ChangeMapJointLib.scene.volumes import volume_of

    node = slicer.mrmlScene.GetNodeByID(scan.node_id) if scan.node_id else None
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        return None
    try:
        volume = volume_of(node)
        voxels, grid = read_array(file)
    except InputError:
        return None
    return node if grid.same_as(volume.grid) and np.array_equal(voxels, volume.array) else None


def _loadScan(file: Path, name: str) -> Any:
    """Load a job's scan as a node without a storage node: a saved scene must not point to the job's file.

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


def _configuration(
    file: str, threshold: float | None, smallestVoxels: int | None, operatingPoint: str | None = None
) -> dict[str, Any]:
    """Collect the options for the worker, which checks them."""
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
    findings = values.get("findings") or {}
    if not isinstance(findings, dict):
        raise InputError(
            _("found {value}").format(value=f"findings = {findings}"), field=where, expected=_("an object")
        )
    findings = dict(findings)
    if threshold is not None:
        findings["threshold"] = threshold
    if smallestVoxels is not None:
        findings["min_voxels"] = smallestVoxels
    if operatingPoint is not None:
        findings.setdefault("operating_point", operatingPoint)
    return {**values, "findings": findings} if findings else values
