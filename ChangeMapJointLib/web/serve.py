"""Start the viewer's server and open the browser."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io.sources import reason_of

if TYPE_CHECKING:
    from ChangeMapJointLib.web.guard import Guard

PACKAGES = ("trame", "trame_client", "trame_rca", "trame_slicer", "slicer", "aiohttp")
LOCAL = "127.0.0.1"
WARNING = (
    "WARNING: the viewer listens on {host}, not only on this computer. Whoever has its address sees the scans, and "
    "the connection is not encrypted. Use a trusted network only."
)


@dataclass(frozen=True)
class Place:
    """Where the viewer listens.

    Attributes:
        port: 0 for any free one.
        host: an address of this computer.
        browser: open the address in the browser.
    """

    port: int = 0
    host: str = LOCAL
    browser: bool = True


def check_viewer_packages() -> None:
    """Raise an InputError that names the extra if a package of the viewer is missing."""
    from importlib.util import find_spec

    missing = [name.replace("_", "-") for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the browser viewer needs packages that are not installed: {', '.join(missing)}",
            remedy='install them with pip install "changemapjoint[view]"',
        )


def check_port(place: Place) -> None:
    """Raise an InputError if nothing can listen there."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((place.host, place.port))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {place.host} ({reason_of(error)})",
            field="port",
            value=place.port,
            remedy=("give another one with ", Argument("port")),
        ) from error


def serve(place: Place, prepare: Callable[[Any], None], *, closing: Callable[[], None] = lambda: None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        place: where to listen.
        prepare: called with the :class:`~ChangeMapJointLib.web.viewer.Viewer` before the address is printed.
        closing: called at the end.

    Raises:
        InputError: a package is missing, or nothing can listen there.
    """
    check_viewer_packages()
    check_port(place)
    from ChangeMapJointLib.web.guard import LOCAL_NAMES, Guard
    from ChangeMapJointLib.web.pictures import quiet_wslink
    from ChangeMapJointLib.web.viewer import Viewer

    if place.host not in LOCAL_NAMES:
        sys.stderr.write(WARNING.format(host=place.host) + "\n")
    quiet_wslink()
    for logger in ("aiohttp.server", "wslink.protocol"):
        logging.getLogger(logger).addFilter(_is_fault)
    guard, loop = Guard(place.host), asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(_unless_closed)

    async def run() -> None:
        viewer = Viewer()
        prepare(viewer)
        viewer.server.controller.on_server_bind.add(lambda bound: guard.install(bound.app, lambda: viewer.report))
        viewer.server.controller.on_server_ready.add(lambda **_: _announce(place, viewer.server.port, guard))
        serving = viewer.server.start(
            port=place.port,
            host=place.host,
            exec_mode="coroutine",
            open_browser=False,
            show_connection_info=False,
            disable_logging=True,
            thread=True,
            timeout=0,
        )
        tasks = [asyncio.ensure_future(work) for work in (serving, viewer.work())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()  # a fault ends the viewer; a page that no longer paints would look alive
        finally:
            for one in tasks:
                one.cancel()

    arguments, sys.argv = sys.argv, sys.argv[:1]  # trame parses the command line of its own accord
    task = loop.create_task(run())
    for name in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C is how it ends; its work wakes the loop for it
        signal.signal(name, lambda *_: task.cancel())
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        pass
    finally:
        sys.argv = arguments
        closing()
    sys.stderr.flush()
    os._exit(0)  # the scene's C++ objects are not taken down in order at the interpreter's end


def _unless_closed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what went wrong in the background, but not that a page was closed while pictures were on their way."""
    if not isinstance(context.get("exception"), ConnectionResetError):
        loop.default_exception_handler(context)


def _is_fault(record: logging.LogRecord) -> bool:
    """Whether something went wrong here.

    A request that is no HTTP is answered, and might hold the token; a page may be closed while an answer is on its way.
    """
    kind = (record.exc_info or sys.exc_info())[0]
    if kind is None:
        return True
    return not (issubclass(kind, ConnectionResetError) or kind.__module__ == "aiohttp.http_exceptions")


def _announce(place: Place, port: int, guard: Guard) -> None:
    host = f"[{place.host}]" if ":" in place.host else place.host
    base = f"http://{host}:{port}"
    sys.stdout.write(f"Viewer: {base}/?token={guard.token}\nCtrl-C ends it.\n")
    sys.stdout.flush()
    if place.browser:
        webbrowser.open(f"{base}/index.html?token={guard.ticket()}")
