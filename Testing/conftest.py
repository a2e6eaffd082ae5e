"""For all tests: one thread per worker, a file per worker, and rigid alignments that are computed once.

Two workers with two threads each would wait for one another.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent / "library"))

from remembered import FOLDER, remember

for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one worker, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers have it from the process that starts them
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="changemap-alignments-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(FOLDER), ignore_errors=True)


@pytest.fixture(scope="module")
def aligned_once() -> Iterator[None]:
    """Comparisons of the same scans share their rigid alignment."""
    with pytest.MonkeyPatch.context() as patch:
        remember(patch)
        yield
