"""One application with six small views for all tests; every test starts with an empty scene."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import slicer
from headless import Application, SliceView, make_application

from ChangeMapJointLib.scene.colors import MARKS, SCALES, change_table
from ChangeMapJointLib.scene.nodes import CURRENT, ORIENTATIONS, PRIOR

SIZE = (120, 120)


@pytest.fixture(scope="session")
def _everything() -> tuple[Application, dict[str, SliceView]]:
    application = make_application()
    for kind in (*SCALES, *MARKS):
        change_table(kind)  # made once and kept, so that tests can count nodes
    pairs = zip((*CURRENT, *PRIOR), ORIENTATIONS * 2, strict=True)
    return application, {name: SliceView(application, name, orientation, SIZE) for name, orientation in pairs}


@pytest.fixture
def views(
    _everything: tuple[Application, dict[str, SliceView]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, SliceView]]:
    """Slice views by their names, in a scene without data."""
    application, views = _everything
    slicer.mrmlScene = application.scene
    errors: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _traceback: errors.append(error))
    yield views
    application.scene.Clear(0)
    assert not errors  # VTK prints what an observer raises, and goes on


@pytest.fixture
def scene(views: dict[str, SliceView]) -> object:
    """The scene, without data."""
    return slicer.mrmlScene
