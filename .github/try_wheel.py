"""Install what is in a folder into a fresh environment and run the demo from there: ``try_wheel.py FOLDER``.

FOLDER holds one wheel or one source distribution of the project. It is installed as a user would, without extras; the
program then runs in an empty folder, so that nothing of the source tree can help it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path


def main(folder: str) -> None:
    """Install, ask for help, compare the sample pair."""
    built = [path.resolve() for path in Path(folder).glob("changemapjoint-*") if path.suffix in (".whl", ".gz")]
    if len(built) != 1:
        sys.exit(f"{folder}: found {[path.name for path in built]}, expected one wheel or one source distribution")
    with tempfile.TemporaryDirectory() as empty:
        environment = Path(empty, "environment")
        venv.create(environment, with_pip=True)
        programs = environment / ("Scripts" if sys.platform == "win32" else "bin")

        def run(*command: str) -> None:
            print("+", *command, flush=True)
            subprocess.run([str(programs / command[0]), *command[1:]], cwd=empty, check=True)

        run("python", "-m", "pip", "install", "--disable-pip-version-check", str(built[0]))
        run("changemap", "--version")
        run("changemap", "run", "--help")
        run("changemap", "demo", "--out", "demo-output", "--progress", "none")
        if not Path(empty, "demo-output", "report.html").is_file():
            sys.exit("changemap demo: no report")


if __name__ == "__main__":
    main(sys.argv[1])
