"""For all tests: one thread per worker, a file per worker, and lungs and alignments that are computed once.

Two workers with two threads each would wait for one another.
"""

from __future__ import annotations

import gc
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

gc.disable()  # while tests and what they import are collected: a third of that time; see pytest_collection_finish

for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one worker, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def compile_in_turn(folder: str) -> None:
    """Of the workers that need the same kernel of Numba, one compiles it, and the others load it from the disk."""
    try:
        import fcntl

        from numba.core.dispatcher import Dispatcher
    except ImportError:
        return
    compiles, compile_signature = [], Dispatcher.compile

    def compile_alone(self: Any, signature: Any) -> Any:
        if compiles:  # what it calls
            return compile_signature(self, signature)
        with Path(folder, "compile.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            compiles.append(self)
            try:
                return compile_signature(self, signature)
            finally:
                compiles.clear()

    Dispatcher.compile = compile_alone


def pytest_sessionstart(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        compile_in_turn(os.environ[FOLDER])


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers have it from the process that starts them
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="changemap-alignments-")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays: it is not looked through again and again."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(FOLDER), ignore_errors=True)


@pytest.fixture(scope="module")
def aligned_once() -> Iterator[None]:
    """Comparisons of the same scans share their lungs and their rigid alignment."""
    with pytest.MonkeyPatch.context() as patch:
        remember(patch)
        yield


# -- what several files of Testing/library look at, and none may change -----------------------
@pytest.fixture(scope="session")
def dicom_sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two series full of identifiers, in a folder of a telling name, and the result of comparing them."""
    from dicom_samples import POISON, make_sample

    described = f"{POISON['SeriesDescription']} of Muster Erika"
    return make_sample(tmp_path_factory.mktemp("Poisonfolder"), **{**POISON, "SeriesDescription": described})


@pytest.fixture(scope="session")
def dicom_objects(dicom_sample: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the objects of that result."""
    folder = tmp_path_factory.mktemp("export") / "objects"
    dicom_sample.result.to_dicom(folder)
    return folder


@pytest.fixture(scope="session")
def dicom_run(dicom_sample: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that result."""
    return Path(dicom_sample.result.save(tmp_path_factory.mktemp("saved") / "run", compress=False))
