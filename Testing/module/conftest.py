"""Every test here runs in the stand-in host on an empty scene, and fails if it leaves an error in a slot or a form."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "host"))

import slicerhost

slicerhost.boot()


@pytest.fixture(autouse=True)
def host():
    """``slicer.app``; afterwards no error may be on record, and no prepared answer left over."""
    slicerhost.reset()
    yield slicerhost.boot()
    slicerhost.boot().processEvents()
    unused = slicerhost.dialogs.unused()
    for name in slicerhost.boot().moduleManager().modulesNames():
        slicerhost.close_module(name)
    recorded = str(slicerhost.errors)
    slicerhost.reset()
    assert not recorded, recorded
    assert not unused, f"nobody asked what the test prepared to answer: {unused}"
