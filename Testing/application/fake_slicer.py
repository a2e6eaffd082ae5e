"""Stands for the application in tests of ``.github/slicer.sh``: the stand-in host, started with Slicer's options."""

from __future__ import annotations

import argparse
import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module" / "host"))


def main() -> int:
    """Start the host, load the modules, run the script, and stay until it ends the application."""
    options = argparse.ArgumentParser()
    options.add_argument("--version", action="store_true")
    for name in ("--no-splash", "--testing", "--disable-settings", "--ignore-slicerrc"):
        options.add_argument(name, action="store_true")
    options.add_argument("--additional-module-paths", type=Path)
    options.add_argument("--python-script")
    given = options.parse_args()
    if given.version:
        print("Slicer 5.10.0")
        return 0
    # as in Slicer, where nothing of this repository can be imported but what lies beside a module
    root = str(Path(__file__).resolve().parents[2])
    sys.path[:] = [path for path in sys.path if path not in (root, "")]
    sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in str(one).lower()]
    import slicerhost

    application = slicerhost.boot()
    import slicer

    ended: list[int] = []
    slicer.util.exit = ended.append
    application.setTestingEnabled(given.testing)
    application.mainWindow().resize(1366, 768)
    for path in sorted(given.additional_module_paths.glob("*.py")):
        slicerhost.load_module(path)
    if root in sys.path:  # Slicer itself puts it there when it runs from the source tree; the module never needs it
        print("the module has put the repository on sys.path")
        return 1
    # the whole self-test takes a minute, and is run from the installed tree in Testing/cmake
    slicer.selfTests["ChangeMapJoint"] = sys.modules["ChangeMapJoint"].ChangeMapJointTest().test_inputsOfSamplePair
    runpy.run_path(given.python_script, run_name="__main__")
    while not ended and not given.testing:  # as in Slicer, which then ends with the script
        application.processEvents()
        time.sleep(0.01)
    if slicerhost.errors.entries:
        print(slicerhost.errors)
        return 1
    application.quit_for_test()
    return ended[0] if ended else 0


if __name__ == "__main__":
    sys.exit(main())
