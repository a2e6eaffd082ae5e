"""``reading.json`` beside a run: a reader's decisions on its findings and on the registration.

Several viewers may have the same run open. Each writes one decision at a time, under a lock, into what the file holds
then; so nobody's decision is lost. A decision that another one replaces is kept with it, under ``earlier``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.process import lock
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.io.write import atomic_path

SCHEMA_NAME = "changemap.reading-file/"
SCHEMA = f"{SCHEMA_NAME}1"
DECISIONS = ("accepted", "rejected")
VERDICTS = ("fine", "doubtful", "wrong")
LOCK_SUFFIX = ".lock"
NOT_STORED = "nothing was stored; free space there, or make the folder writable"
PATIENCE_S, POLL_S = 10.0, 0.01
Content = dict[str, Any]


class ReadingFile:
    """Reads and changes the reading of one run.

    Attributes:
        path: of ``reading.json``.
        reader: who decides; may be empty.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> one, other = ReadingFile(folder, "R1"), ReadingFile(folder, "R2")
        >>> content = one.decide(4711, decision="accepted", about={"id": 1})
        >>> content = other.decide(4711, comment="two of them")
        >>> entry = one.read()["findings"]["4711"]
        >>> entry["decision"], entry["comment"]
        ('accepted', 'two of them')
    """

    def __init__(self, folder: Path, reader: str = "", *, now: Callable[[], datetime] | None = None) -> None:
        """Read and write ``reading.json`` in the folder of a run.

        Args:
            folder: of the run.
            reader: who decides.
            now: the time of day; for tests.
        """
        self.path, self.reader = folder / run_files.READING, reader
        self._now = now or (lambda: datetime.now(timezone.utc))

    def read(self) -> Content:
        """Return the content, ``findings`` by key and ``registration``; both empty without a file.

        Raises:
            InputError: the file cannot be read, is from a newer version, or is not as a viewer writes it.
        """
        try:
            content = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {"schema": SCHEMA, "findings": {}, "registration": {}}
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"not readable ({reason_of(error)})", field=self.path, remedy="move it away") from error
        fault = _fault(content)
        if fault:
            raise InputError(fault, field=self.path, remedy="move it away")
        return {**content, "findings": dict(content["findings"]), "registration": dict(content["registration"])}

    def decide(
        self,
        key: int | str,
        *,
        decision: str | None = None,
        comment: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Content:
        """Store a decision or a comment on a finding.

        Args:
            key: of the finding, see :class:`~ChangeMapJointLib.change.threshold_list.ListedChange`.
            decision: 'accepted', 'rejected', or empty for none; None keeps what is stored.
            comment: the reader's remark; None keeps what is stored.
            about: what tells a reader of the file which finding that is, such as its number, kind and centre.

        Returns:
            The whole content after the change.

        Raises:
            InputError: the file cannot be read or written.
            ValueError: ``decision`` is none of these.
        """
        if decision not in (None, "", *DECISIONS):
            raise ValueError(f"decide() 'decision' must be one of {DECISIONS}, empty or None, got {decision!r}")

        def change(content: Content) -> None:
            entry = dict(content["findings"].get(str(key), {}))
            for name, value in (("decision", decision), ("comment", comment)):
                if value is not None:
                    entry = _with(entry, name, value, self._stamp())
            content["findings"][str(key)] = {**dict(about or {}), **entry}

        return self._change(change)

    def judge(self, verdict: str) -> Content:
        """Store the reader's verdict on the registration: 'fine', 'doubtful', 'wrong', or empty for none.

        Raises:
            InputError: the file cannot be read or written.
            ValueError: ``verdict`` is none of these.
        """
        if verdict not in ("", *VERDICTS):
            raise ValueError(f"judge() 'verdict' must be one of {VERDICTS} or empty, got {verdict!r}")

        def change(content: Content) -> None:
            content["registration"] = _with(content["registration"], "verdict", verdict, self._stamp())

        return self._change(change)

    def _stamp(self) -> dict[str, str]:
        at = self._now().astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"at": at, **({"reader": self.reader} if self.reader else {})}

    def _change(self, change: Callable[[Content], None]) -> Content:
        with self.locked():
            content = self.read()
            change(content)
            with (
                atomic_path(self.path, remedy=NOT_STORED) as temporary,
                temporary.open("w", encoding="utf-8") as stream,
            ):
                json.dump(content, stream, indent=2, ensure_ascii=False)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
        return content

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this file, which other viewers wait for. It lies beside the run's folder, not in it.

        Raises:
            InputError: the lock cannot be made, or another viewer holds it for long.
        """
        folder = self.path.parent.resolve()
        path = folder.parent / f".{folder.name}.{self.path.name}{LOCK_SUFFIX}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"cannot be written ({error.strerror})", field=path, remedy=NOT_STORED) from error
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not lock(descriptor):
                if time.monotonic() > deadline:
                    raise InputError("is being written by another viewer", field=self.path, remedy="try again")
                time.sleep(POLL_S)
            yield
        finally:
            os.close(descriptor)


def _with(entry: Mapping[str, Any], name: str, value: str, stamp: Mapping[str, str]) -> Content:
    """Return ``entry`` with a new value; the one that it replaces goes to ``earlier`` with its time and reader."""
    changed = dict(entry)
    if changed.get(name, "") == value:
        return changed
    stamps = dict(changed.get("stamps", {}))
    if name in changed and changed[name] != "":
        changed["earlier"] = [*changed.get("earlier", []), {name: changed[name], **stamps.get(name, {})}]
    changed[name] = value
    changed["stamps"] = {**stamps, name: dict(stamp)}
    return changed


def _fault(content: Any) -> str:
    """Return what is not as a viewer writes it, or an empty string."""
    if not isinstance(content, dict):
        return f"found {type(content).__name__}, expected an object"
    schema = content.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, str) and schema.startswith(SCHEMA_NAME)
        return f"found schema {schema!r}, expected {SCHEMA}" + ("; a newer version wrote it" if newer else "")
    findings, registration = content.get("findings"), content.get("registration")
    if not isinstance(findings, dict) or not isinstance(registration, dict):
        return "'findings' or 'registration' is not an object"
    for key, entry in (*findings.items(), ("registration", registration)):
        texts = ("decision", "comment", "verdict")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name, ""), str) for name in texts):
            return f"the entry {key!r} is not as a viewer writes it"
        if not isinstance(entry.get("stamps", {}), dict) or not isinstance(entry.get("earlier", []), list):
            return f"the entry {key!r} is not as a viewer writes it"
    return ""
