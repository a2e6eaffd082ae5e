"""``changemap run --method joint`` on small scans, with weights that are only made for the test."""

import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from job_samples import QUICK, sample_request
from phantoms import Sphere, chest_phantom

from ChangeMapJointLib.comparison.config import config_from
from ChangeMapJointLib.comparison.run import Request, run
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.io.run_files import WITH_NETWORK
from ChangeMapJointLib.io.write import read_displacement, write_nrrd
from ChangeMapJointLib.joint.checkpoint import write_checkpoint
from ChangeMapJointLib.joint.inference import JointPrediction, run_network
from ChangeMapJointLib.joint.network import JointNetwork, NetworkOptions
from ChangeMapJointLib.registration.deformable.register import Registration, register_deformable
from ChangeMapJointLib.registration.keypoints.detect import KeypointOptions
from ChangeMapJointLib.scan.pair import ScanPair

pytestmark = pytest.mark.usefixtures("aligned_once")
MOVED_MM = np.array((4.0, 0.0, 6.0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best shift before each block, blocks that add nothing, and 0.95 for change."""
    network = JointNetwork(NetworkOptions(factors=(2, 1), channels=(1, 1), reach=(2, 1), depth=1))
    with torch.no_grad():
        for block in network.blocks:
            for value in (*block.deformation.parameters(), *block.change.parameters()):  # type: ignore[union-attr]
                value.zero_()
        network.blocks[-1].change.bias[1] = float(np.log(19.0))  # type: ignore[union-attr,index]
    path = tmp_path_factory.mktemp("weights") / "known.safetensors"
    write_checkpoint(path, network, {"training": {"shape": [32, 32, 32]}})
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("scans")
    now = chest_phantom(edge_mm=5.0, lesions=[Sphere((60.0, 0.0, 20.0), 12.0)])
    before = chest_phantom(edge_mm=5.0, moved=lambda points: points + MOVED_MM)
    for name, volume in (("now", now), ("before", before)):
        write_nrrd(folder / f"{name}.nrrd", volume.array, volume.grid)
    return folder / "now.nrrd", folder / "before.nrrd"


@pytest.fixture(scope="module")
def unmoved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where it does not matter what is found: hardly anything, which takes half of the time."""
    folder, asked = tmp_path_factory.mktemp("unmoved"), sample_request()
    for name, given in (("now", asked.reference), ("before", asked.template)):
        write_nrrd(folder / f"{name}.nrrd", given.volume.array, given.volume.grid)
    return folder / "now.nrrd", folder / "before.nrrd"


def request(scans: tuple[Path, Path], out: Path, weights: Path, **joint: object) -> Request:
    config = config_from({**QUICK, "method": "joint", "joint": {"model": str(weights), "instance": [5], **joint}})
    return Request(*scans, out, replace(config, keypoints=KeypointOptions()), "cpu")


@pytest.fixture(scope="module")
def finished(scans: tuple[Path, Path], weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joint") / "result"
    run(request(scans, out, weights))
    return out


def test_all_maps_are_written_on_the_references_grid(finished: Path, scans: tuple[Path, Path]) -> None:
    names = ("change_map", "change_combined", "change_difference", "change_learned")
    maps = {name: read_array(finished / f"{name}.nrrd") for name in names}
    grid = read_array(scans[0])[1]
    assert all(found.same_as(grid) and values.dtype == np.float32 for values, found in maps.values())
    combined, difference, learned = (maps[name][0] for name in names[1:])
    assert np.array_equal(maps["change_map"][0], combined)  # the one that is shown
    assert combined == pytest.approx(difference * learned, abs=2 / 4096)  # each is rounded
    lungs = read_array(finished / "lungs_reference.nrrd")[0] > 0
    assert np.median(learned[lungs]) == pytest.approx(0.95, abs=0.001)
    assert not learned[(difference == 0) & ~lungs].any()
    k, j, i = np.rint(grid.to_index(np.array([60.0, 0.0, 20.0]))[::-1]).astype(int)
    assert combined[k, j, i] > 0.6
    assert {path.name for path in finished.iterdir()} == WITH_NETWORK
    assert len(json.loads((finished / "findings.json").read_text())["findings"]) >= 1


def test_the_record_says_which_weights_and_what_each_step_gave(finished: Path, weights: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    card = json.loads(weights.with_suffix(".json").read_text())
    assert record["model_sha256"] == card["sha256"]
    joint = record["joint"]
    assert joint["model"] == "known.safetensors"
    assert str(weights.parent) not in json.dumps(record)
    assert (joint["shape"], joint["device"], joint["notes"]) == ([32, 32, 32], "cpu", [])
    for step in ("network", "optimised"):
        assert joint[step]["folding_percent"] == 0.0
    assert [stage["name"] for stage in record["stages"]][3:7] == ["gate", "network", "keypoints", "register"]
    y = read_displacement(finished / "deformation.nrrd")
    inner = np.array([[60.0, 10.0, -20.0], [-60.0, 0.0, 0.0]])
    assert np.linalg.norm(y.at(inner) + MOVED_MM, axis=1).max() < 1.5


def test_without_instance_optimisation_y_is_the_networks(
    scans: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    result = run(request(scans, tmp_path / "out", weights, instance=[], shape=[16, 32, 32]))
    assert result.joint is not None
    assert result.joint.optimised is None
    assert result.joint.shape == (16, 32, 32)
    assert result.registration is not None
    assert not result.registration.levels


def test_weights_that_are_not_there_are_told_before_anything_is_read(
    scans: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    events: list[object] = []
    for wrong, said in (("nobodys", "missing from this installation"), (str(tmp_path / "x.safetensors"), "x.json")):
        with pytest.raises(InputError, match=said):
            run(request(scans, tmp_path / "out", Path(wrong)), events.append)
    with pytest.raises(InputError, match="multiples of 4"):
        run(request(scans, tmp_path / "out", weights, shape=[16, 18, 32]))
    assert not events
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["sequential", "joint"])
@pytest.mark.parametrize("room", [0, 1])
def test_what_a_gpu_cannot_hold_goes_on_on_the_cpu(
    method: str, room: int, unmoved: tuple[Path, Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is one that torch knows by name, and that is full after ``room`` registrations."""
    asked: list[str] = []

    def full(pair: ScanPair, *, device: object, **how: object) -> Registration:
        asked.append(str(device))
        if str(device) == "mps" and len(asked) > room:
            raise torch.OutOfMemoryError("MPS backend out of memory")
        return register_deformable(pair, **{**how, "device": "cpu"})  # type: ignore[arg-type]

    def on_cpu(*args: object, device: object, **how: object) -> JointPrediction:
        return run_network(*args, device="cpu", **how)  # type: ignore[arg-type]

    monkeypatch.setattr("ChangeMapJointLib.comparison.methods.register_deformable", full)
    monkeypatch.setattr("ChangeMapJointLib.comparison.assess.register_deformable", full)
    monkeypatch.setattr("ChangeMapJointLib.comparison.methods.run_network", on_cpu)
    for module in ("compare", "steps"):
        monkeypatch.setattr(f"ChangeMapJointLib.comparison.{module}.choose_device", lambda _: torch.device("mps"))
    wanted = request(unmoved, tmp_path / "out", weights)
    config = replace(wanted.config, method=method, keypoints=KeypointOptions(most=200))  # type: ignore[arg-type]
    result = run(replace(wanted, config=config))
    assert asked == [["mps", "cpu", "cpu"], ["mps", "mps", "cpu"]][room]  # forward, and backward
    (note,) = result.notes
    assert note in json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    assert note in html.unescape((tmp_path / "out" / "report.html").read_text("utf-8"))


def test_other_failures_of_the_registration_are_not_hidden(
    scans: tuple[Path, Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*scans: object, **how: object) -> Registration:
        raise RuntimeError("device-side assert")

    monkeypatch.setattr("ChangeMapJointLib.comparison.methods.register_deformable", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        run(request(scans, tmp_path / "out", weights))
    assert not (tmp_path / "out").exists()


def test_the_report_names_the_weights_and_what_each_step_gave(finished: Path, weights: Path) -> None:
    page = (finished / "report.html").read_text("utf-8")
    joint = json.loads((finished / "run.json").read_text())["joint"]
    card = json.loads(weights.with_suffix(".json").read_text())
    for said in ("known.safetensors", card["sha256"], "32 x 32 x 32"):
        assert said in page
    for step, name in (("network", "network alone"), ("optimised", "after instance optimisation")):
        for row in (f"distance of keypoints (mm), {name}", f"folding (% of the lung), {name}"):
            assert row in page
        assert joint[step]["folding_percent"] == 0.0
