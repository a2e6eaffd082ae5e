"""Errors in words for the person at the screen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import qt
import slicer

from ChangeMapJointLib.core.errors import InputError


@contextmanager
def tellingErrors(message: str) -> Iterator[None]:
    """Show an error of the block as ``message`` and its own words, and go on; the cursor waits meanwhile.

    What nobody foresaw goes to Slicer's error log with its traceback, too.
    """
    slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
    waiting = True
    try:
        yield
    except Exception as error:
        slicer.app.restoreOverrideCursor()
        waiting = False
        if not isinstance(error, (InputError, OSError)):
            logging.exception(message)
        slicer.util.errorDisplay(f"{message}\n\n{error or type(error).__name__}")
    finally:
        if waiting:
            slicer.app.restoreOverrideCursor()
