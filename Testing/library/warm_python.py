"""A Python that starts in milliseconds: forked from a process that has imported what a comparison needs.

A test that starts many workers spends most of its time on their imports. :func:`warm_python` makes an executable to be
used in place of ``sys.executable``. As Slicer's launcher does, it starts the interpreter as another process, hands its
streams and environment over, waits for its end and ends in the same way; its own death leaves the other running.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import runpy
import selectors
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

from remembered import remember

IMPORTED = ("ChangeMapJointLib.comparison.run", "ChangeMapJointLib.export.report", "numba", "PIL.PngImagePlugin")
POLL_S = 0.01
LAUNCHER = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
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
    """Path of the executable; its server ends with this process. Where processes cannot be forked, plain Python."""
    if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="warm-python-"))
    address, launcher = str(folder / "socket"), folder / "PythonSlicer"
    launcher.write_text(LAUNCHER.format(python=sys.executable, address=address))
    launcher.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    atexit.register(_end, server, folder)
    return str(launcher)


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.kill()
    server.wait()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


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
        while True:
            for key, _ in selector.select(POLL_S if self.waiting else None):
                if key.fileobj == 0:
                    return
                self.fork(self.listener.accept()[0])
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
    for module in IMPORTED:
        __import__(module)
    remember()
    Server(sys.argv[1]).serve()
