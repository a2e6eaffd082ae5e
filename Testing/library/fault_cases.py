"""A program that lets runs fail in every stage, in every way, and tells what was left: for ``test_faults.py``.

    python fault_cases.py DISK own|shared

DISK is a folder; a small disk of its own, which may be filled up and made read-only, where the second word says so.
Every case is a process forked from this one: the command line or the background worker as users start them, with real
reading and writing; in the stages between, which write nothing, only their names pass. One line of JSON a case.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from archive_samples import free_port, storage
from dicom_samples import make_sample
from export_samples import finding as new
from export_samples import findings, grown, quality
from job_samples import STAGES
from phantoms import LUNG_CENTRES_MM, Sphere, chest_phantom
from warm_python import load_command_line, load_kernels

from ChangeMapJointLib.background import worker
from ChangeMapJointLib.background.job import Job, JobInput, JobRequest
from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.cli import main as cli
from ChangeMapJointLib.comparison import compare
from ChangeMapJointLib.comparison.result import Maps, Result
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.export import report
from ChangeMapJointLib.io.run_files import RUN as MARKER
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.registration.deformable.register import Registration
from ChangeMapJointLib.registration.rigid.align import Overlap, RigidAlignment
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

SCANS = {"reference": chest_phantom(lesions=[Sphere((60.0, 0.0, 20.0), 12.0)]), "template": chest_phantom()}
PAGE = 4096
FILLER = "filler"
DAY_S = 86_400.0


# -- a run without its computations ----------------------------------------------------
def played(reference: Volume, template: Volume, *, stages: Stages, **_: object) -> Result:
    """What :func:`ChangeMapJointLib.comparison.compare.compare_scans` gives, stage by stage, without computing."""
    for name in STAGES[1:-1]:
        with stages.stage(name) as progress:
            progress(0.5)
    grid = reference.grid
    labels = np.zeros(grid.shape, dtype=np.uint8)
    k, j, i = np.indices(grid.shape)
    points = grid.to_physical(np.stack((i, j, k), -1))
    for side, centre in enumerate(LUNG_CENTRES_MM, 1):
        labels[np.linalg.norm(points - np.asarray(centre), axis=-1) < 45.0] = side
    signed = (reference.array - template.array).astype(np.int16)
    field = DisplacementField.from_affine(np.eye(4), grid)
    ones = np.ones(grid.shape, dtype=np.float32)
    maps = Maps((np.abs(signed) / 2100).astype(np.float32), signed, ones, ones, labels > 0)
    items = findings(new(1, centre_mm=LUNG_CENTRES_MM[0]), grown(2)).items
    found = Findings(items, np.zeros(grid.shape, dtype=np.int32))
    lungs = Lungs(labels, grid, 1000.0, 1000.0)
    rigid = RigidAlignment(np.eye(4), 0.0, (0.0, 0.0, 0.0), Overlap(1.0, 1.0), 1.0, 1.0, 1.0, "Aligned.")
    return Result(
        ScanPair(Scan(reference, lungs), Scan(template, lungs)),
        rigid,
        Deformation(field, grid, template.grid),
        template.array.astype(np.int16),
        quality(),
        Registration(field, np.eye(4), (), 0.0, "Converged."),
        maps,
        found,
        found,
    )


# -- what goes wrong -------------------------------------------------------------------
def kill(_: Path) -> None:
    """As the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill(disk: Path, pages: int = 0) -> None:
    """Leave ``pages`` pages free."""
    with (disk / FILLER).open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(b"x" * PAGE):
            pass
    size = (disk / FILLER).stat().st_size
    os.truncate(disk / FILLER, max(size - pages * PAGE, 0))


def read_only(disk: Path) -> None:
    """The disk is remounted, as Linux does after an error of its own."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def set_back(_: Path) -> None:
    """Every clock goes back a day, even the one that cannot."""
    for name in ("time", "monotonic"):
        clock = getattr(time, name)
        setattr(time, name, lambda clock=clock: clock() - DAY_S)


def wait_for_another(disk: Path) -> None:
    """A second run into the same folder begins and ends here."""
    pid = os.fork()
    if pid == 0:
        command_line(disk, None)
    os.waitpid(pid, 0)


FAULTS: dict[str, Callable[[Path], None]] = {
    "kill": kill,
    "full": fill,
    "read-only": read_only,
    "clock": set_back,
    "two": wait_for_another,
}


# -- the two ways to start a run -------------------------------------------------------
def at(stage: str | None, fault: Callable[[Path], None], disk: Path) -> None:
    """Let ``fault`` strike at the first word of ``stage``."""
    tell, struck = Stages._notify, []

    def told(self: Stages, name: str, fraction: float, message: str) -> None:
        if name == stage and not struck:
            struck.append(name)
            fault(disk)
        tell(self, name, fraction, message)

    Stages._notify = told  # type: ignore[method-assign]


def command(disk: Path, words: list[object]) -> None:
    """Any command in this process, to its end; standard output and error are ``DISK.out`` and ``DISK.err``."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{disk}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["changemap", *map(str, words), *(("--progress", "json") if words[0] != "report" else ())]
    try:
        cli.main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)


def command_line(disk: Path, stage: str | None, fault: Callable[[Path], None] = kill, *more: str) -> None:
    """``changemap run`` in this process, to its end; standard output and error are ``DISK.out`` and ``DISK.err``."""
    compare.compare_scans = played
    at(stage, fault, disk)
    scans = [f"--{side}={disk}.{side}.nrrd" for side in SCANS]
    options = [*scans, f"--out={disk / 'out'}", *(more or ("--overwrite",))]
    command(disk, ["run", *options])


def background(disk: Path, stage: str | None, fault: Callable[[Path], None]) -> None:
    """The background worker at the one job in the disk's folder ``jobs``."""
    compare.compare_scans = played
    at(stage, fault, disk)
    os.dup2(os.open(f"{disk}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    (folder,) = (disk / "jobs").iterdir()
    os._exit(worker.main([str(folder)]))


# -- one case --------------------------------------------------------------------------
def forked(call: Callable[[], None]) -> int:
    """The exit code of ``call`` in a process of its own; of a signal, its number below 0."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        call()
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def said(disk: Path) -> dict[str, Any]:
    """What the process printed."""
    streams = {name: Path(f"{disk}.{name}") for name in ("out", "err")}
    texts = {name: path.read_text("utf-8") if path.exists() else "" for name, path in streams.items()}
    for path in streams.values():
        path.unlink(missing_ok=True)
    return {"events": [json.loads(line) for line in texts["out"].splitlines()], "error": texts["err"]}


def listing(folder: Path) -> list[str]:
    """Every file below ``folder``, and every empty folder."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name != FILLER and (path.is_file() or not any(path.iterdir()))
    )


def restore(disk: Path, *, own: bool) -> None:
    """Free the disk and make it writable."""
    if own:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (disk / FILLER).unlink(missing_ok=True)


def earlier(disk: Path) -> None:
    """The folder of an earlier run, which must stay."""
    (disk / "out").mkdir()
    (disk / "out" / MARKER).write_text('{"schema": "changemap.run/1", "earlier": true}')


def tell(case: dict[str, Any]) -> None:
    print(json.dumps(case), flush=True)


def case_of_command_line(
    disk: Path, kind: str, stage: str, fault: Callable[[Path], None], *, own: bool, file: str | None = None
) -> None:
    """A run over an earlier one fails; then a second one begins."""
    shutil.rmtree(disk / "out", ignore_errors=True)
    earlier(disk)
    code = forked(lambda: command_line(disk, stage, fault))
    told = {"way": "command line", "kind": kind, "stage": file or stage, "code": code, **said(disk)}
    told["left"] = listing(disk)
    told["earlier"] = "earlier" in json.loads((disk / "out" / MARKER).read_text())
    if code == 0:
        told["record"] = json.loads((disk / "out" / MARKER).read_text())
    restore(disk, own=own)
    if any(".partial" in name for name in told["left"]):  # which the next run removes, however it ends
        forked(lambda: command_line(disk, None))
        told["next"], _ = listing(disk), said(disk)
    tell(told)


def case_of_worker(disk: Path, kind: str, stage: str, fault: Callable[[Path], None], *, own: bool) -> None:
    """A job fails; then Slicer looks at how it ended."""
    shutil.rmtree(disk / "out", ignore_errors=True)
    given = {side: JobInput(side, volume=volume) for side, volume in SCANS.items()}
    job = Job.create(disk / "jobs", JobRequest(**given))
    job.write_inputs()
    code = forked(lambda: background(disk, stage, fault))
    told: dict[str, Any] = {"way": "worker", "kind": kind, "stage": stage, "code": code, **said(disk)}
    end = job.conclude(code, told["events"])  # while the disk is still full
    told |= {"state": end.state, "message": end.message, "left": listing(job.folder), "log": job.log()}
    restore(disk, own=own)
    told["state later"] = job.state().state
    job.remove()
    (disk / "jobs").rmdir()
    tell(told)


def files_of_a_run(disk: Path) -> list[tuple[str, int]]:
    """The files that a run writes, in this order, and their pages on the disk."""
    order = Path(f"{disk}.order")

    def noting() -> None:
        replace = Path.replace

        def noted(self: Path, target: Path) -> Path:
            with order.open("a") as stream:
                stream.write(f"{target.name}\n")
            return replace(self, target)

        Path.replace = noted  # type: ignore[method-assign]
        command_line(disk, None)

    forked(noting)
    told = said(disk)
    if told["events"][-1]["event"] != "finished":
        raise RuntimeError(told["error"])
    names = [*order.read_text().split(), MARKER]
    return [(name, -(-(disk / "out" / name).stat().st_size // PAGE)) for name in names]


# -- commands after a run --------------------------------------------------------------
def serve(disk: Path, port: int) -> None:
    """An archive that takes everything; with the first object the disk becomes full, once."""
    taken = []

    def handle(_event: object) -> int:
        if not taken:
            fill(disk)
        taken.append(True)
        return 0

    with storage(handle, port=port):
        signal.pause()


def cases_of_commands(disk: Path) -> None:
    """What is made of a run, onto a disk that is full, or that becomes full at the second page."""
    shutil.rmtree(disk / "out", ignore_errors=True)
    sample = make_sample(disk.with_name("scans"))
    run = sample.result.save(disk.with_name("saved"))
    scans = ["--reference", sample.current, "--template", sample.prior]
    commands: dict[str, list[object]] = {
        "report --pdf": ["report", run, "--pdf", disk / "report.pdf"],
        "export --field": ["export", run, "--field", disk / "field.nrrd"],
        "export --dicom": ["export", run, "--dicom", disk / "objects", *scans],
    }
    for name, words in commands.items():
        for free in (0, 2):
            fill(disk, free)
            code = forked(lambda words=words: command(disk, words))
            tell(
                {
                    "way": f"{free} pages",
                    "kind": "made",
                    "stage": name,
                    "code": code,
                    **said(disk),
                    "left": listing(disk),
                }
            )
            restore(disk, own=True)
    port = free_port()
    server = os.fork()
    if server == 0:
        serve(disk, port)
    objects = disk / "objects"
    code = forked(lambda: command(disk, commands["export --dicom"]))
    told = said(disk)
    send = ["send", objects, "--to", f"STORE@localhost:{port}"]
    for way in ("full before", "full at the first", "free"):
        if way == "full before":
            fill(disk)
        code = forked(lambda: command(disk, send))
        told = {"way": way, "kind": "sent", "stage": "send", "code": code, **said(disk)}
        told["left"] = [name for name in listing(disk) if not name.startswith("objects/")]
        tell(told)
        restore(disk, own=True)
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)


def main() -> None:
    """All cases; the report's pictures, which take most of the time, are not drawn."""
    report.render_report = lambda content: f"<p>{content.method}</p>"
    load_command_line()
    load_kernels()
    disk, own = Path(sys.argv[1]), sys.argv[2] == "own"
    for side, volume in SCANS.items():
        write_nrrd(f"{disk}.{side}.nrrd", volume.array, volume.grid)
    for stage in STAGES:
        for kind in ("kill", "full", "read-only"):
            if own or kind == "kill":
                case_of_command_line(disk, kind, stage, FAULTS[kind], own=own)
                if kind != "read-only":  # a file that is open, as the log is, keeps a disk from becoming read-only
                    case_of_worker(disk, kind, stage, FAULTS[kind], own=own)
    for stage in ("lungs", "write"):
        case_of_command_line(disk, "clock", stage, set_back, own=own)
    case_of_command_line(disk, "two", "write", wait_for_another, own=own)
    shutil.rmtree(disk / "out")
    code = forked(lambda: command_line(disk, "write", wait_for_another, "--threshold", "0.5"))
    tell(
        {
            "way": "command line",
            "kind": "two, no --overwrite",
            "stage": "write",
            "code": code,
            **said(disk),
            "left": listing(disk),
        }
    )
    if not own:
        return
    shutil.rmtree(disk / "out")
    pages = 0
    for name, count in files_of_a_run(disk):
        free = pages + count // 2
        case_of_command_line(disk, "full at", "write", lambda _, free=free: fill(disk, free), own=own, file=name)
        pages += count
    cases_of_commands(disk)


if __name__ == "__main__":
    main()
