"""The steps of the workflow *slicer*, with a stand-in for the application: what passes, and that nothing else does."""

from __future__ import annotations

import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".github" / "slicer.sh"
PASSED = "echo 'changemap checks: PASSED'"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the script is for Linux")


def script(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script, with no screen but Qt's own."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "OMP_NUM_THREADS": "1", **more}
    environment.pop("DISPLAY", None)
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


def slicer_at(folder: Path, lines: str) -> Path:
    """An application that answers ``--version`` and else runs these lines."""
    folder.mkdir()
    program = folder / "Slicer"
    program.write_text(f'#!/usr/bin/env bash\n[ "$1" != --version ] || {{ echo Slicer 5.10.0; exit; }}\n{lines}\n')
    program.chmod(0o755)
    return folder


def test_the_checks_pass_in_the_stand_in(tmp_path):
    folder = slicer_at(tmp_path / "slicer", f'exec "{sys.executable}" "{ROOT}/Testing/application/fake_slicer.py" "$@"')
    done = script("check", folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "changemap checks: PASSED\n" in done.stdout


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (f"{PASSED}; exit 1", "ended with status 1"),
        (f"{PASSED}; kill -SEGV $$", "ended with status 139"),
        ("exit 0", "did not say that they passed"),
        ("echo 'changemap checks: FAILED: 1 of 6 checks'", "did not say that they passed"),
        (f"echo 'Traceback (most recent call last)'; {PASSED}", "an error was printed"),
        ("sleep 60", "stopped after 1 s"),
    ],
)
def test_nothing_but_a_pass_is_one(tmp_path, lines, why):
    limit_s = "1" if lines.startswith("sleep") else "60"
    done = script("check", slicer_at(tmp_path / "slicer", lines), SLICER_LIMIT_S=limit_s)
    assert done.returncode == 1
    assert why in done.stderr


def test_the_module_and_the_checks_are_handed_to_slicer(tmp_path):
    done = script("check", slicer_at(tmp_path / "slicer", f'printf "%s\\n" "$@"; {PASSED}'))
    given = done.stdout.splitlines()
    assert given[given.index("--additional-module-paths") + 1] == str(ROOT / "ChangeMapJoint")
    assert Path(given[given.index("--python-script") + 1]).is_file()
    assert "--testing" in given


def test_without_a_display_slicer_gets_a_virtual_one_for_its_version_too(tmp_path):
    """Slicer 5.12 does not even tell its version without a display."""
    folder = slicer_at(tmp_path / "slicer", PASSED)
    program = folder / "Slicer"
    program.write_text(program.read_text().replace("bash\n", 'bash\n[ -n "$DISPLAY" ] || exit 1\n', 1))
    virtual = tmp_path / "bin" / "xvfb-run"
    virtual.parent.mkdir()
    virtual.write_text('#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do shift; done\nDISPLAY=:9 exec "$@"\n')
    virtual.chmod(0o755)
    done = script("check", folder, QT_QPA_PLATFORM="", PATH=f"{virtual.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def server():
    """A server with one package; the queries that it got."""
    packed, program = io.BytesIO(), b"#!/bin/sh\necho Slicer 5.10.0\n"
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("Slicer-5.10.0-linux-amd64/Slicer")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.partition("?")[2])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(packed.getvalue() if "nightly" not in self.path else b"<html>moved</html>")

        def log_message(self, *_):
            pass

    web = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}/download", asked
    web.shutdown()
    web.server_close()


def test_the_version_that_was_asked_for_is_fetched_or_refused(tmp_path, server):
    address, asked = server
    for version, problem in (
        ("5.10", ""),
        ("release", ""),
        ("5.12", "asked for Slicer 5.12, got 5.10.0"),
        ("preview", "no archive of Slicer"),
        ("newest", "expected a number, release or preview"),
    ):
        done = script("fetch", version, tmp_path / version, SLICER_SERVER=address)
        assert done.returncode == (1 if problem else 0), done.stderr
        assert problem in done.stderr
    assert asked[0] == "os=linux&stability=release&version=5.10"
    assert asked[1] == "os=linux&stability=release"
    assert asked[3] == "os=linux&stability=nightly"
    assert "is there already" in script("fetch", "5.10", tmp_path / "5.10", SLICER_SERVER=address).stderr


def test_packages_leave_what_slicer_ships_as_it_is(tmp_path):
    folder = slicer_at(tmp_path / "slicer", "")
    (folder / "bin").mkdir()
    python = folder / "bin" / "PythonSlicer"
    python.write_text(
        f'#!/usr/bin/env bash\nprintf "%s " "$@" >>"{tmp_path}/calls"; echo >>"{tmp_path}/calls"\n'
        f'[ "$3" != list ] || echo pydicom==2.4.4\n'
        f'[ "${{@: -2:1}}" != -c ] || cat "${{@: -1}}" >>"{tmp_path}/kept"\n'
    )
    python.chmod(0o755)
    assert script("packages", folder).returncode == 0
    _listed, torch, rest = (tmp_path / "calls").read_text().splitlines()
    assert " torch " in torch
    assert "Resources/requirements.txt" in rest
    assert (tmp_path / "kept").read_text() == 2 * "pydicom==2.4.4\n"
