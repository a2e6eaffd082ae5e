"""Damaged weights, run folders, configurations and job files: an InputError of one line, or what they should be."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from fuzzing import answer, damaged, damaged_json, empty, fuzz, json_text
from hypothesis import given
from hypothesis import strategies as st

from ChangeMapJointLib.background.request import JobInput, JobRequest, read_request, write_request
from ChangeMapJointLib.cli.demo import is_demo
from ChangeMapJointLib.comparison.config import RunConfig, config_from, read_config
from ChangeMapJointLib.comparison.output import check_output, is_run, run_folder
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.io.run_files import FILES
from ChangeMapJointLib.io.run_files import RUN as MARKER
from ChangeMapJointLib.io.run_records import read_records
from ChangeMapJointLib.io.write import read_displacement, read_rigid, write_displacement, write_rigid
from ChangeMapJointLib.joint.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from ChangeMapJointLib.joint.network import JointNetwork, NetworkOptions

SMALL = NetworkOptions(factors=(1,), channels=(1,), reach=(0,), depth=1)
NESTED = b"[" * 100_000
RECORDS = {
    "run": {"schema": "changemap.run/1", "configuration": {"method": "joint"}, "reference": {"sha256": "ab"}},
    "quality": {"quality": {"verdict": "good", "reasons": ["Nothing folds."]}},
    "findings": {"findings": [{"id": 1, "kind": "new", "centre_mm": [-4.0, 30.0, -20.0], "remark": "New."}]},
    "candidates": {"threshold": 0.4, "findings": [{"id": 2, "kind": "grown", "centre_mm": [1, 2, 3]}]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, bytes]:
    """A small network's card and weights."""
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    write_checkpoint(path, JointNetwork(SMALL), {"data": "none"})
    return json.loads(path.with_suffix(".json").read_text()), path.read_bytes()


def damaged_text(data: st.DataObject, values: object) -> bytes:
    """A JSON file of ``values``, damaged as JSON or as bytes."""
    if data.draw(st.integers(0, 9)) == 0:
        return NESTED
    content = json_text(data.draw(damaged_json(values)))
    return data.draw(damaged(content)) if data.draw(st.integers(0, 3)) == 0 else content


@fuzz(30)
@given(data=st.data())
def test_weights(folder: Path, weights: tuple[dict, bytes], data: st.DataObject) -> None:
    """The card's checksum is mended, so that what is behind it is reached."""
    empty(folder)
    card, content = weights
    content = data.draw(damaged(content, within=data.draw(st.sampled_from((None, 400)))))
    mended = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "a.safetensors").write_bytes(content)
    (folder / "a.json").write_bytes(damaged_text(data, mended))
    found = answer(lambda: read_checkpoint(folder / "a.safetensors"), folder)
    assert found is None or isinstance(found, Checkpoint)


@fuzz(80)
@given(data=st.data())
def test_configurations(folder: Path, data: st.DataObject) -> None:
    path = empty(folder) / "config.json"
    path.write_bytes(damaged_text(data, to_mapping(RunConfig())))
    found = answer(lambda: read_config(path), folder)
    assert found is None or config_from(to_mapping(found)) == found  # what was read can be written and read again


@fuzz(60)
@given(data=st.data())
def test_job_files(folder: Path, data: st.DataObject) -> None:
    path = empty(folder) / "job.json"
    write_request(path, JobRequest(JobInput("R", "2024-01-31", "node"), JobInput("T"), configuration={"lungs": {}}))
    path.write_bytes(damaged_text(data, json.loads(path.read_text())))
    found = answer(lambda: read_request(path), folder)
    assert found is None or asdict(found)


@fuzz(80)
@given(data=st.data())
def test_records_of_a_run(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    victim = data.draw(st.sampled_from(sorted(RECORDS)))
    for name, values in RECORDS.items():
        (folder / f"{name}.json").write_bytes(damaged_text(data, values) if name == victim else json_text(values))
    found = answer(lambda: read_records(folder), folder)
    for values in (found or {}).values():
        for row in values.get("findings", ()):
            assert np.isfinite(row["centre_mm"]).all()
    assert isinstance(answer(lambda: is_demo(folder), folder), bool)


@fuzz(60)
@given(data=st.data())
def test_folders_in_the_way_of_a_run(folder: Path, data: st.DataObject) -> None:
    """Nothing but an earlier run is replaced, and nothing is written beside the folder that was asked for."""
    parent = empty(folder) / "results"
    parent.mkdir()
    (parent / "other.txt").write_text("stays")
    name = data.draw(st.sampled_from(("run", "run#1", "a b", "é", "..", ".", "", "x" * 300, "run/deeper", "other.txt")))
    out = parent / name
    inside = data.draw(st.lists(st.sampled_from((*sorted(FILES)[:4], "thesis.doc", ".hidden", "sub"))))
    if data.draw(st.booleans()) and name in ("run", "run#1", "a b", "é"):
        out.mkdir()
        for one in inside:
            (out / one).write_text("x")
        if data.draw(st.booleans()):
            (out / MARKER).write_bytes(damaged_text(data, RECORDS["run"]))
    overwrite = data.draw(st.booleans())
    foreign = [out / one for one in inside if one not in FILES and os.path.lexists(out / one)]
    assert isinstance(answer(lambda: is_run(out), parent), bool)

    def whole_run() -> bool:
        check_output(out, [], overwrite=overwrite)
        with run_folder(out, overwrite=overwrite) as working:
            (working / MARKER).write_text(json.dumps(RECORDS["run"]))
        return True

    done = answer(whole_run, parent)
    assert (parent / "other.txt").read_text() == "stays"
    assert all(path.exists() for path in foreign)
    assert not done or is_run(out)


@fuzz(60)
@given(data=st.data())
def test_transforms_of_a_run(folder: Path, data: st.DataObject) -> None:
    empty(folder)
    field = DisplacementField(np.ones((3, 4, 5, 3), np.float32), Grid((3, 4, 5)))
    write_displacement(folder / "deformation.nrrd", field)
    write_rigid(folder / "rigid.tfm", np.eye(4))
    for name, read in (("deformation.nrrd", read_displacement), ("rigid.tfm", read_rigid)):
        path = folder / name
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        found = answer(lambda path=path, read=read: read(path), folder)
        assert name == "deformation.nrrd" or found is None or np.isfinite(found).all()
