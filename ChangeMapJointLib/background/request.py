"""The file ``job.json``: what the background worker shall compare, and how."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, DEFAULT_METHOD
from ChangeMapJointLib.core.errors import InputError

if TYPE_CHECKING:
    from ChangeMapJointLib.scan.volume import Volume

SCHEMA = "changemap.job/1"
SIDES = ("reference", "template")
AGAIN = "start the comparison again"


@dataclass(frozen=True)
class JobInput:
    """One scan of a job.

    Attributes:
        name: what the user calls it, for example the volume node's name.
        date: of the acquisition, ISO (YYYY-MM-DD); None where it is not known.
        node_id: of the volume node, so that the result finds it again.
        acquisition: what else is known, by the names of
            :class:`~ChangeMapJointLib.scan.volume.Acquisition`.
        volume: the voxels; None in a job that was read from its folder.
    """

    name: str
    date: str | None = None
    node_id: str | None = None
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    volume: Volume | None = None


@dataclass(frozen=True)
class JobRequest:
    """What to compare and how; ``configuration`` holds what differs from the defaults of ``RunConfig``."""

    reference: JobInput
    template: JobInput
    method: str = DEFAULT_METHOD
    device: str = DEFAULT_DEVICE
    configuration: Mapping[str, Any] = field(default_factory=dict)


def write_request(path: Path, request: JobRequest) -> None:
    """Write ``request`` to ``path``, without the volumes.

    Raises:
        OSError: it cannot be written.
    """
    values: dict[str, Any] = {"schema": SCHEMA, "owner": os.getpid()}
    for side in SIDES:
        given: JobInput = getattr(request, side)
        values[side] = {
            "file": f"{side}.nrrd",
            "name": given.name,
            "date": given.date,
            "node_id": given.node_id,
            "acquisition": dict(given.acquisition),
        }
    values |= {"method": request.method, "device": request.device, "configuration": dict(request.configuration)}
    write_json(path, values)


def read_request(path: Path) -> JobRequest:
    """What the file at ``path`` says.

    Raises:
        InputError: missing, not JSON, of another schema, or a value of the wrong type.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, remedy=AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", field=path, remedy=AGAIN) from error
    found = values.get("schema") if isinstance(values, dict) else type(values).__name__
    if found != SCHEMA:
        raise InputError(f"found schema {found!r}", field=path, expected=repr(SCHEMA))
    reference, template = (_input(path, side, values.get(side)) for side in SIDES)
    method, device = (_typed(path, values, name, str) for name in ("method", "device"))
    return JobRequest(reference, template, method, device, _typed(path, values, "configuration", dict))


def _input(path: Path, side: str, values: Any) -> JobInput:
    if not isinstance(values, dict):
        raise InputError(f"found {side} = {values!r}", field=path, expected="an object with file and name")
    when = values.get("date")
    try:
        good = when is None or bool(date.fromisoformat(when))
    except (ValueError, TypeError):
        good = False
    if not good:
        raise InputError(f"found {side}.date = {when!r}", field=path, expected="YYYY-MM-DD or null")
    if values.get("file") != f"{side}.nrrd":
        raise InputError(f"found {side}.file = {values.get('file')!r}", field=path, expected=f"'{side}.nrrd'")
    node_id = values.get("node_id")
    acquisition = _typed(path, {"acquisition": {}, **values}, "acquisition", dict)
    return JobInput(_typed(path, values, "name", str), when, None if node_id is None else str(node_id), acquisition)


def _typed(path: Path, values: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(values.get(name), kind):
        raise InputError(f"found {name} = {values.get(name)!r}", field=path, expected=kind.__name__)
    return values[name]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all: it may be read at any moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()
