"""A Python that starts in milliseconds: forked from a process that has imported what a comparison needs.

A test that starts many workers spends most of its time on their imports. :func:`warm_python` makes an executable to be
used in place of ``sys.executable``. As Slicer's launcher does, it starts the interpreter as another process, hands its
streams and environment over, waits for its end and ends in the same way; its own death leaves the other running.
One process serves all workers of a session: whichever needs it first starts it, and ends it with itself; a launcher
that finds no server any more becomes a plain Python.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from remembered import FOLDER, remember

IMPORTED = (
    *(f"ChangeMapJointLib.{name}" for name in ("comparison.run", "comparison.save", "cli.main", "background.job")),
    *(f"ChangeMapJointLib.{name}" for name in ("export.report", "core.kernels", "registration.keypoints.kernels")),
    "PIL.PngImagePlugin",
    "torch",
)  # not what is run as a program of its own, such as the background worker
POLL_S, LAST_S = 0.01, 120.0
LAUNCHER = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
try:
    server.connect({address!r})
except OSError:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
job = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(job).to_bytes(8, "big")], [0, 1, 2])
server.sendall(job)
code = int(server.makefile().readline())
if code < 0:
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@cache
def warm_python() -> str:
    """Path of the executable. Where processes cannot be forked, plain Python."""
    if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
        return sys.executable
    import fcntl

    shared = os.environ.get(FOLDER)
    folder = Path(shared or tempfile.mkdtemp(prefix="warm-python-")) / "warm"
    folder.mkdir(exist_ok=True)
    address, launcher = str(folder / "socket"), folder / "PythonSlicer"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not launcher.exists():
            command = [sys.executable, __file__, address]
            server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            atexit.register(_end, server, None if shared else folder.parent)
            launcher.write_text(LAUNCHER.format(python=sys.executable, address=address))
            launcher.chmod(0o755)
    return str(launcher)


def _end(server: subprocess.Popen[bytes], folder: Path | None) -> None:
    """What another worker of the tests has under way goes on to its end."""
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(LAST_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """Forks a child for each connection, and tells it the child's exit code."""

    def __init__(self, address: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(address)
        self.listener.listen(16)
        self.waiting: dict[int, socket.socket] = {}  # by child

    def serve(self) -> None:
        """Until standard input is closed, which happens when the tests end, however they end."""
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        print("ready", flush=True)
        ending = False
        while self.waiting or not ending:
            for key, _ in selector.select(POLL_S if self.waiting else None):
                if key.fileobj != 0:
                    self.fork(self.listener.accept()[0])
                    continue
                ending = True
                selector.unregister(0)
                selector.unregister(self.listener)
                self.listener.close()
            self.reap()

    def fork(self, client: socket.socket) -> None:
        size, streams, _, _ = socket.recv_fds(client, 8, 3)
        job = b""
        while len(job) < int.from_bytes(size, "big"):
            job += client.recv(1 << 16)
        child = os.fork()
        if child == 0:
            self.listener.close()
            client.close()
            for one in self.waiting.values():
                one.close()
            become(streams, *json.loads(job))
        for stream in streams:
            os.close(stream)
        self.waiting[child] = client

    def reap(self) -> None:
        for child, client in list(self.waiting.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del self.waiting[child]
                with suppress(OSError):  # the launcher was killed
                    client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                client.close()


def load_kernels() -> None:
    """Those that every run needs, which it would load from the disk."""
    import numpy as np

    from ChangeMapJointLib.core.displacement import DisplacementField, warp
    from ChangeMapJointLib.core.grid import Grid
    from ChangeMapJointLib.core.resample import resample

    grid = Grid((4, 4, 4))
    image = np.zeros(grid.shape, np.float32)
    resample(image, grid, grid, matrix=np.eye(4))
    warp(image, grid, grid, DisplacementField.from_affine(np.eye(4), grid))


def load_command_line() -> None:
    """What Typer imports only when it reads a command's first option: Pydantic, and a check of each option's type."""
    from typer.testing import CliRunner

    from ChangeMapJointLib.cli.main import app

    CliRunner().invoke(app, ["run"])  # which says that options are missing


def become(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Do what ``python ARGUMENTS`` does, and end."""
    code: Any = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", errors, line_buffering=True)
            for number, errors in ((1, "strict"), (2, "backslashreplace"))
        )
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(arguments: list[str]) -> None:
    while arguments[0] == "-u":
        del arguments[0]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    gc.disable()
    for module in IMPORTED:
        __import__(module)
    load_kernels()
    load_command_line()
    remember()
    gc.freeze()
    gc.enable()
    Server(sys.argv[1]).serve()
