"""``changemap view``: finished runs and reading sessions in a browser. It loads no torch, so that it starts quickly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ChangeMapJointLib.cli.console import exit_codes
from ChangeMapJointLib.cli.wording import COMMAND_LINE
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers.log import Arm
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.run_records import RUN_AGAIN
from ChangeMapJointLib.web.serve import LOCAL, Place, serve

DEMO = Path("demo-output")
EXAMPLE = "Example: changemap view result"


def view_command(
    run: Annotated[
        Path | None, typer.Argument(readable=False, help="Folder of a finished run.", show_default=False)
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(readable=False, help="Current scan, if it is not beside the run.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option(readable=False, help="Prior scan, if it is not beside the run.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help=f"Show {DEMO}, which changemap demo makes.")] = False,
    reader: Annotated[str, typer.Option(help="Your name, stored with your decisions and in reading logs.")] = "",
    worklist: Annotated[
        Path | None,
        typer.Option(readable=False, help="CSV of cases for a reading session, with columns case and run."),
    ] = None,
    arm: Annotated[
        Arm | None, typer.Option(help="Arm of the reading session.", show_default="the column arm of the worklist")
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the study.", show_default="the worklist's name")] = "",
    session: Annotated[str, typer.Option(help="Name of the session.", show_default="the arm")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random order of the cases.")] = 0,
    log: Annotated[
        Path | None,
        typer.Option(help="Reading log to write or to resume.", show_default="STUDY-READER-SESSION.jsonl"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other computers can reach any but the default.")
    ] = LOCAL,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Show a finished run in a browser, or hold a reading session over a list of cases."""
    place = Place(port, host, browser)
    with exit_codes("none"):
        if worklist is not None:
            if run is not None or demo:
                raise InputError("is given with a run", field="worklist", value=worklist, remedy="leave the run out")
            from ChangeMapJointLib.evaluation.readers.reading_session import SessionRequest
            from ChangeMapJointLib.web.study import hold_session

            hold_session(SessionRequest(worklist, reader, arm, study, session, seed, log), place)
            return
        show_run(_folder(run, demo=demo), place, reader=reader, scans={"reference": reference, "template": template})


def show_run(folder: Path, place: Place, *, reader: str, scans: dict[str, Path | None]) -> None:
    """Show one run; a damaged one as a page that says what is wrong with it.

    Raises:
        InputError: the folder is not that of a run, a scan is missing, or the viewer cannot start.
    """
    from ChangeMapJointLib.io.opened_run import OpenedRun, open_run

    if not folder.is_dir() or not (folder / run_files.RUN).exists():
        found = "has no run.json" if folder.is_dir() else "no such folder"
        raise InputError(found, field=folder, expected="the folder of a finished run", remedy=RUN_AGAIN)
    run: OpenedRun | None = None
    fault = ""
    try:
        run = open_run(folder, reference=scans["reference"], template=scans["template"])
    except InputError as error:
        if any(field in ("reference", "template") for field in (error.field, *_arguments(error))):
            raise
        fault = error.render(COMMAND_LINE)
        sys.stderr.write(f"changemap: {fault}\n")

    def prepare(viewer: Any) -> None:
        viewer.reader = reader
        if run is None:
            viewer.fail(fault)
            return
        try:
            viewer.open(run)
        except InputError as error:
            viewer.fail(error.render(COMMAND_LINE))

    serve(place, prepare)


def _arguments(error: InputError) -> tuple[str, ...]:
    return tuple(part.name for part in error.remedy if not isinstance(part, str))


def _folder(run: Path | None, *, demo: bool) -> Path:
    if run is not None and not demo:
        return run
    if not demo:
        raise InputError("is missing", field="run", expected="the folder of a finished run, or --demo or --worklist")
    folder = DEMO if run is None else run
    if not (folder / run_files.RUN).exists():
        raise InputError("no such run", field=folder, remedy="make it first with changemap demo")
    return folder


def main() -> None:
    """Entry point of ``changemap view``, without the rest of the command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command("view", epilog=EXAMPLE)(view_command)
    app.callback()(lambda: None)
    app(prog_name="changemap")
