"""Options that several commands share."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, METHODS
from ChangeMapJointLib.core.choices import DEFAULT_METHOD, DeviceName, Method


class ProgressStyle(str, Enum):
    """Choices of ``--progress``."""

    bar = "bar"
    json = "json"
    none = "none"


def _default_thresholds() -> str:
    """Return the defaults of ``--threshold``: the default method's, then those that differ from it."""
    others = [m for m in METHODS.values() if m.threshold != DEFAULT_THRESHOLD]
    return "; ".join([f"{DEFAULT_THRESHOLD:g}", *(f"{m.name}: {m.threshold:g}" for m in others)])


DeviceOption = Annotated[DeviceName, typer.Option(help="Device that computes the registration.")]
ProgressOption = Annotated[ProgressStyle, typer.Option(help="Progress bar, JSON lines on standard output, or nothing.")]
MethodOption = Annotated[
    Method | None, typer.Option(help="Method; rigid makes no change map.", show_default=DEFAULT_METHOD)
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(help="Threshold of the change map, above 0 and up to 1.", show_default=_default_thresholds()),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Workers on this machine.", show_default="as many as cores and memory allow; one per GPU"),
]
MemoryOption = Annotated[
    float, typer.Option(help="Memory in GB that a worker on this machine may use before it is stopped.")
]
OtherOverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace results made with other options or from other scans.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(readable=False, help="JSON file with options, named as under configuration in any run.json."),
]


def log_beside(out: Path) -> Path:
    """Return the path of the log for the traceback of a fault: beside ``out``, which does not exist then."""
    absolute = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() follows links, and may fail on them
    return absolute.parent / f"{absolute.name or 'changemap'}.fault.log"


ReferenceOption = Annotated[
    Path | None,
    typer.Option(
        readable=False, help="Current scan: NRRD, NIfTI, MHA, or a DICOM folder or zip (PATH#SERIES picks one)."
    ),
]
TemplateOption = Annotated[Path | None, typer.Option(readable=False, help="Prior scan, likewise.")]
FieldOption = Annotated[
    list[Path] | None,
    typer.Option(
        readable=False,
        help="Deformation of another program, used instead of our registration: field, ITK or elastix transform. "
        "It maps points of the current scan (fixed) to the prior (moving). Give warp and matrix in this order.",
    ),
]
