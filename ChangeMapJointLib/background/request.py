"""The file ``job.json``: what the background worker compares, and how."""

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
        name: the user's name for it, for example the volume node's name.
        date: of the acquisition, ISO (YYYY-MM-DD); None if unknown.
        node_id: of the volume node, to which the result is attached.
        acquisition: other known values, by the field names of
            :class:`~ChangeMapJointLib.scan.volume.Acquisition`.
        volume: voxels and grid; None in a job that was read from its folder.
    """

    name: str
    date: str | None = None
    node_id: str | None = None
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    volume: Volume | None = None


@dataclass(frozen=True)
class JobRequest:
    """What to compare, and how.

    Attributes:
        reference: the current scan.
        template: the prior scan.
        method: ``rigid``, ``sequential`` or ``joint``.
        device: ``auto``, ``cpu`` or ``cuda``.
        configuration: options that differ from the defaults of ``RunConfig``, nested as in JSON.
    """

    reference: JobInput
    template: JobInput
    method: str = DEFAULT_METHOD
    device: str = DEFAULT_DEVICE
    configuration: Mapping[str, Any] = field(default_factory=dict)


def write_request(path: Path, request: JobRequest) -> None:
    """Write ``request`` to ``path``, without the volumes.

    Raises:
        OSError: the file cannot be written.
    """
    values: dict[str, Any] = {"schema": SCHEMA, "owner": os.getpid()}
    for side in SIDES:
        scan: JobInput = getattr(request, side)
        values[side] = {
            "file": f"{side}.nrrd",
            "name": scan.name,
            "date": scan.date,
            "node_id": scan.node_id,
            "acquisition": dict(scan.acquisition),
        }
    values |= {"method": request.method, "device": request.device, "configuration": dict(request.configuration)}
    write_json(path, values)


def read_request(path: Path) -> JobRequest:
    """Read the request in the file at ``path``; its scans have no volumes.

    Raises:
        InputError: the file is missing, is not JSON, has another schema, or a value of the wrong type.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, remedy=AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", field=path, remedy=AGAIN) from error
    schema = values.get("schema") if isinstance(values, dict) else type(values).__name__
    if schema != SCHEMA:
        raise InputError(f"found schema {schema!r}", field=path, expected=repr(SCHEMA))
    reference, template = (_input(path, side, values.get(side)) for side in SIDES)
    method, device = (_typed(path, values, name, str) for name in ("method", "device"))
    return JobRequest(reference, template, method, device, _typed(path, values, "configuration", dict))


def _input(path: Path, side: str, values: Any) -> JobInput:
    if not isinstance(values, dict):
        raise InputError(f"found {side} = {values!r}", field=path, expected="an object with file and name")
    acquired = values.get("date")
    try:
        valid = acquired is None or bool(date.fromisoformat(acquired))
    except (ValueError, TypeError):
        valid = False
    if not valid:
        raise InputError(f"found {side}.date = {acquired!r}", field=path, expected="YYYY-MM-DD or null")
    if values.get("file") != f"{side}.nrrd":
        raise InputError(f"found {side}.file = {values.get('file')!r}", field=path, expected=f"'{side}.nrrd'")
    node_id = values.get("node_id")
    acquisition = _typed(path, {"acquisition": {}, **values}, "acquisition", dict)
    return JobInput(_typed(path, values, "name", str), acquired, None if node_id is None else str(node_id), acquisition)


def _typed(path: Path, values: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(values.get(name), kind):
        raise InputError(f"found {name} = {values.get(name)!r}", field=path, expected=kind.__name__)
    return values[name]


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file is missing or holds no object."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file by renaming a temporary one: readers never see a part of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()
