"""Every test here runs in the stand-in host on an empty scene, and fails if it leaves an error in a slot or a form."""

import hashlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent / "host"))

import slicerhost

slicerhost.boot()

import panel_samples
import slicer
from panel_views import MODULE
from slicerhost.sliceviews import qMRMLSliceView

from ChangeMapJointLib.gate import checks
from ChangeMapJointLib.scan import padding

qMRMLSliceView.paints_late = True
_left = []  # what is as the last test has left it, which is empty


@pytest.fixture(scope="session", autouse=True)
def padding_once():
    """The padding of the same scans, which every panel that opens is to find, is found once."""
    known, find = {}, padding.find_padding

    def find_padding(hu):
        key = (hu.shape, hu.dtype.str, hashlib.sha1(hu.tobytes()).digest())
        if key not in known:
            known[key] = find(hu)
        return None if known[key] is None else known[key].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padding, "find_padding", find_padding)
        yield


@pytest.fixture(scope="session", autouse=True)
def checked_once():
    """So is whether the same scan is a CT; what is refused is looked at again."""
    known, check = {}, checks.check_ct

    def check_ct(volume):
        about = repr((volume.grid, volume.source, volume.acquisition, volume.unseen is None))
        key = (about, volume.array.dtype.str, hashlib.sha1(volume.array.tobytes()).digest())
        if volume.unseen is not None:
            return check(volume)
        if key not in known:
            known[key] = check(volume)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "check_ct", check_ct)
        yield


@pytest.fixture(autouse=True)
def host():
    """``slicer.app``; afterwards no error may be on record, and no prepared answer left over."""
    slicerhost.reset(is_empty=bool(_left))
    _left.clear()
    yield slicerhost.boot()
    slicerhost.boot().processEvents()
    slicerhost.boot().layoutManager().paint_due("Red", "ChangeMapPriorRed")
    unused = slicerhost.dialogs.unused()
    for name in slicerhost.boot().moduleManager().modulesNames():
        slicerhost.close_module(name)
    recorded = str(slicerhost.errors)
    slicerhost.reset()
    _left.append(True)
    assert not recorded, recorded
    assert not unused, f"nobody asked what the test prepared to answer: {unused}"


@pytest.fixture
def widget(tmp_path, monkeypatch):
    """The open module; its jobs are kept in the test's own folder."""
    module = slicerhost.load_module(MODULE)
    from ChangeMapJointGui import findings_table
    from ChangeMapJointGui.runs import Runs

    monkeypatch.setattr(findings_table, "REST_MS", 0)  # the table follows as soon as events are processed
    monkeypatch.setattr(Runs, "root", tmp_path / "jobs")
    return slicerhost.open_module(module)


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """An installation without trained weights."""
    resources = Path(__file__).parents[2] / "Resources"
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "SamplePair").symlink_to(resources / "SamplePair")
    monkeypatch.setattr("ChangeMapJointLib.core.resources.resource_folders", lambda: [tmp_path / "without"])


@pytest.fixture
def shown(widget):
    """The open module with a run on screen."""
    job = panel_samples.finished_job(widget.logic.runs.root, *panel_samples.nodes())
    assert widget.panel.loadJob(job)
    slicer.app.mainWindow().activateWindow()  # keys go to the active window
    slicer.app.processEvents()
    return widget


@pytest.fixture
def own_imports():
    """The test imports the project's packages anew; afterwards they are the ones that other tests have imported."""

    def ours() -> dict[str, ModuleType]:
        return {name: one for name, one in sys.modules.items() if name.split(".")[0].startswith("ChangeMapJoint")}

    before = ours()
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)
