"""Export of a run as DICOM objects: whether it can be made, and the process that makes it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.process import POLL_MS, guarded, launch, libraryEnvironment, libraryRoot, pythonOfSlicer
from ChangeMapJointLib.core.process import end_group

if TYPE_CHECKING:  # not for an empty panel, which would open later
    from ChangeMapJointLib.background.dicom_export import ExportRequest

PROGRAM = "ChangeMapJointLib.background.dicom_export"
STOP_S = 5.0


def seriesFiles(node: Any, *, all_: bool = True) -> tuple[str, ...]:
    """Return the files of the DICOM series that a volume was loaded from; empty if one is not in Slicer's database.

    Args:
        node: the volume node.
        all_: look up every file, not only the first.
    """
    database = getattr(slicer, "dicomDatabase", None)
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not instances:
        return ()
    files = [str(database.fileForInstance(one) or "") for one in (instances if all_ else instances[:1])]
    return tuple(files) if all(one and Path(one).is_file() for one in files) else ()


def dicomUnavailable(session: Any, runs: Any) -> str:
    """Return why the run on screen cannot be exported as DICOM; empty if nothing is known to speak against it."""
    nodes = (session.results.reference, session.results.template)
    if any(node is None or node.GetScene() is None for node in nodes):
        return _("A scan of this comparison is no longer in the scene.")
    strange = [node.GetName() for node in nodes if not seriesFiles(node, all_=False)]
    if strange:
        return _("Not loaded from the DICOM database of this Slicer: {names}.").format(names=", ".join(strange))
    if runs.folderOf(session.results) is None:
        return _("The files of this comparison are no longer stored: compare the scans again.")
    return ""


class DicomExport:
    """Writes the objects in a process of its own; callbacks are called on the main thread."""

    def __init__(self, onEnd: Callable[[int | None], None], onError: Callable[[str], None]) -> None:
        """``onEnd`` gets the number of objects, ``onError`` a sentence."""
        self._onEnd, self._onError = onEnd, onError
        self._process: Any = None
        self._folder: Any = None
        self._lines: queue.Queue[str | int] = queue.Queue()
        self._last: dict[str, Any] = {}

    @property
    def running(self) -> bool:
        """Whether objects are being written."""
        return self._process is not None

    def start(self, wanted: ExportRequest) -> None:
        """Start the export; returns at once.

        Raises:
            OSError: the process cannot be started.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="ChangeMapJoint", ignore_cleanup_errors=True)
        request = Path(self._folder.name) / "request.json"
        wanted.write(request)
        self._last, self._lines = {}, queue.Queue()
        command = [pythonOfSlicer(), "-m", PROGRAM, str(request)]
        try:
            self._process = launch(command, {**os.environ, **libraryEnvironment()}, libraryRoot())
        except OSError:
            self._folder.cleanup()
            raise
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()
        qt.QTimer.singleShot(POLL_MS, self._onPoll)

    def stop(self) -> None:
        """End the process now; nothing is kept, and no callback is called."""
        if self._process is not None:
            end_group(self._process.pid, force=os.name == "nt")  # asked to end, it leaves nothing behind
            if os.name == "nt":  # it was given no chance to remove its copies of the scans, and holds them open
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_S)
            self._process = None
            self._folder.cleanup()

    @staticmethod
    def _read(process: Any, lines: queue.Queue[str | int]) -> None:
        """Queue the lines, then the exit code; runs in a thread."""
        with process.stdout as stream:
            for line in stream:
                lines.put(line)
        lines.put(process.wait())

    def _onPoll(self) -> None:
        if self._process is None:
            return
        while not self._lines.empty():
            item = self._lines.get()
            if isinstance(item, int):
                self._process = None
                self._folder.cleanup()
                self._conclude(item)
                return
            self._last = _event(item) or self._last
        qt.QTimer.singleShot(POLL_MS, self._onPoll)

    def _conclude(self, code: int) -> None:
        if code == 0 and self._last.get("event") == "finished":
            guarded(self._onEnd, self._last.get("files"))
        else:
            why = str(self._last.get("message") or _("the process ended with code {code}").format(code=code))
            guarded(self._onError, why)


def _event(line: str) -> dict[str, Any]:
    """Return a line of the process as an event; empty for anything else that was printed."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) and "event" in event else {}
