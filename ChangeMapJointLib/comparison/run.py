"""Two files in, one folder out: the main job as the command line and the Slicer module start it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.compare import compare
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.inputs import Input, Label, check_inputs
from ChangeMapJointLib.comparison.output import check_output
from ChangeMapJointLib.comparison.result import Result
from ChangeMapJointLib.comparison.stages import Listener, Stages, nobody
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.refusal import write_refusal
from ChangeMapJointLib.io.read import split_selector
from ChangeMapJointLib.lungs.check import UnlikelyLungs

REFUSED = ".refused.png"  # behind the name of the folder that was asked for


@dataclass(frozen=True)
class Request:
    """What to compare and where to put it.

    Attributes:
        reference: R (current): a file, a DICOM folder or zip; ``PATH#SERIES`` picks one of several.
        template: T (prior), likewise.
        out: the folder that the run makes.
        config: all options.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace an earlier run's folder of that name.
        notices: sentences for the top of the report.
        attribution: where the scans come from and under which licence.
        reference_label: for a reference whose file says nothing of it.
        template_label: likewise.
        compress: the volumes; without, they are written and loaded faster.
    """

    reference: Path
    template: Path
    out: Path
    config: RunConfig = field(default_factory=RunConfig)
    device: str = DEFAULT_DEVICE
    overwrite: bool = False
    notices: tuple[str, ...] = ()
    attribution: tuple[str, ...] = ()
    reference_label: Label | None = None
    template_label: Label | None = None
    compress: bool = True


def run(request: Request, listener: Listener = nobody) -> Result:
    """Compare the scans of ``request`` and write the run's folder, whole or not at all.

    Raises:
        InputError: an input, an option or the output folder cannot be used; nothing is written, but a picture beside
            ``out`` where lungs could not be found reliably.
        Cancelled: the listener asked to stop; nothing is left.
    """
    inputs = [split_selector(p)[0] for p in (request.reference, request.template)]
    check_inputs(inputs)
    check_output(request.out, inputs, overwrite=request.overwrite)
    stages = Stages(METHODS[request.config.method].shares, listener)
    try:
        result = compare(
            Input(request.reference, request.reference_label),
            Input(request.template, request.template_label),
            config=request.config,
            device=request.device,
            stages=stages,
        )
    except UnlikelyLungs as error:
        raise error.with_remedy(_pictured(request.out, error)) from error
    result.save(
        request.out,
        overwrite=request.overwrite,
        compress=request.compress,
        notices=request.notices,
        attribution=request.attribution,
        stages=stages,
    )
    return replace(result, record=replace(result.record, stages=tuple(stages.reports)))


def _pictured(out: Path, error: UnlikelyLungs) -> str:
    """Keep a picture of what was found beside ``out``; the words that say where it is."""
    path = out.with_name(f"{out.name}{REFUSED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_refusal(path, error.hu, error.labels)
    except (InputError, OSError):
        return " (no picture of it could be written)"
    return f" (picture: {path})"
