"""Runs the checks and the module's self-test inside 3D Slicer, and ends it with what came of them.

    Slicer --testing --additional-module-paths ChangeMapJoint --python-script Testing/application/run_checks.py

The last line is ``PASSED`` or ``FAILED`` and the reason; :file:`.github/slicer.sh` believes nothing else.
"""

from __future__ import annotations

import sys
import traceback
import unittest
from pathlib import Path

import qt
import slicer
import slicer.util

HERE = Path(__file__).resolve().parent
AFTER_STARTUP_MS = 2000  # what modules do when the application has started is done by then
PASSED, FAILED = "changemap checks: PASSED", "changemap checks: FAILED"


def main() -> None:
    """Run everything, say how it went, and end the application."""
    try:
        why = problem()
    except BaseException as error:  # a check that exits must not look like one that passed
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    print(f"{FAILED}: {why}" if why else PASSED, flush=True)
    slicer.util.exit(1 if why else 0)


def problem() -> str:
    """Return what went wrong; empty if nothing did."""
    print(f"3D Slicer {slicer.app.applicationVersion}, Python {sys.version.split()[0]}", flush=True)
    if not hasattr(slicer.modules, "changemapjoint"):
        return "the module was not loaded"
    sys.path += [str(HERE), str(HERE.parent / "module")]
    import checks
    from ChangeMapJointGui.packages import missing

    if lacking := ", ".join(map(str, missing())):
        return f"packages are missing: {lacking}"
    suite = unittest.defaultTestLoader.loadTestsFromModule(checks)
    if suite.countTestCases() == 0:
        return "no check was found"
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
    if not result.wasSuccessful():
        return f"{len(result.failures) + len(result.errors)} of {result.testsRun} checks"
    slicer.selfTests["ChangeMapJoint"]()
    return ""


def wait(milliseconds: int) -> None:
    """Let the application work for a while; it ends with the script, so :func:`main` cannot be left to a timer."""
    loop = qt.QEventLoop()
    qt.QTimer.singleShot(milliseconds, loop.quit)
    loop.exec_()


if __name__ == "__main__":
    wait(AFTER_STARTUP_MS)
    main()
