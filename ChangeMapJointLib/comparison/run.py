"""Compare two files and write the result folder, as the command line and the Slicer module do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.compare import compare
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.inputs import Input, Label, check_inputs
from ChangeMapJointLib.comparison.output import check_output
from ChangeMapJointLib.comparison.result import Result
from ChangeMapJointLib.comparison.stages import Listener, Stages, ignore_progress
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.refusal import write_refusal
from ChangeMapJointLib.io.read import split_selector
from ChangeMapJointLib.lungs.check import UnlikelyLungs

REFUSED = ".refused.png"  # appended to the name of the output folder


@dataclass(frozen=True)
class Request:
    """What to compare, and where to write the result.

    Attributes:
        reference: R (current): a file, a DICOM folder or zip; ``PATH#SERIES`` picks one of several.
        template: T (prior), likewise.
        out: the folder to make.
        config: all options.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace an earlier run's folder of that name.
        notices: sentences for the top of the report.
        attribution: where the scans come from and under which licence.
        reference_label: name and acquisition of the reference, where its file does not hold them.
        template_label: likewise for the template.
        compress: compress the volumes; without it they are written and loaded faster.
        deformation: files of another program's deformation; see :func:`~ChangeMapJointLib.comparison.compare.compare`.
        refine: start our registration from it.
        keep_names: write the names of the input files into the outputs; else hashes stand for them.
        full_field: write every vector of the deformation, see :meth:`Result.save`.
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
    deformation: tuple[Path, ...] = ()
    refine: bool = False
    keep_names: bool = False
    full_field: bool = False


def run(request: Request, listener: Listener = ignore_progress) -> Result:
    """Compare the scans of ``request`` and write the result folder, complete or not at all.

    Args:
        request: what to compare, and where to write the result.
        listener: called with progress events; may raise ``Cancelled`` to stop.

    Raises:
        InputError: an input, an option or the output folder cannot be used. Nothing is written, except a picture
            beside ``out`` if the lung masks are implausible.
        Cancelled: the listener asked to stop; nothing is left on disk.
    """
    inputs = [split_selector(path)[0] for path in (request.reference, request.template)]
    check_inputs(inputs)
    check_output(request.out, [*inputs, *request.deformation], overwrite=request.overwrite)
    stages = Stages(METHODS[request.config.method].shares, listener)
    try:
        result = compare(
            Input(request.reference, request.reference_label),
            Input(request.template, request.template_label),
            config=request.config,
            device=request.device,
            stages=stages,
            deformation=request.deformation or None,
            refine=request.refine,
        )
    except UnlikelyLungs as error:
        raise error.with_remedy(_write_picture(request.out, error)) from error
    result.save(
        request.out,
        overwrite=request.overwrite,
        compress=request.compress,
        notices=request.notices,
        attribution=request.attribution,
        stages=stages,
        keep_names=request.keep_names,
        full_field=request.full_field,
    )
    return replace(result, record=replace(result.record, stages=tuple(stages.reports)))


def _write_picture(out: Path, error: UnlikelyLungs) -> str:
    """Write a picture of the refused lung masks beside ``out``; return the words that say where it is."""
    path = out.with_name(f"{out.name}{REFUSED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_refusal(path, error.hu, error.labels)
    except (InputError, OSError):
        return " (no picture of it could be written)"
    return f" (picture: {path})"
