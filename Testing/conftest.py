"""One thread per worker: the suite runs several workers, and two of them with two threads each wait for one another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one worker, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


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
