"""The weights that ship: their card, and that they work on the sample pair, whose patient they have not seen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ChangeMapJointLib.cli.train import training_options
from ChangeMapJointLib.core.options import from_mapping
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.joint.checkpoint import read_checkpoint
from ChangeMapJointLib.joint.inference import run_network, trained_shape
from ChangeMapJointLib.joint.network import NetworkOptions
from ChangeMapJointLib.lungs.segment import LungOptions, segment_both
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.truth import read_truth

MODEL = Path(__file__).parents[2] / "Resources" / "Models" / "default.safetensors"


def test_the_card_says_where_the_weights_come_from() -> None:
    model = read_checkpoint(MODEL)
    card = model.card
    assert trained_shape(model) == (192, 192, 192)
    patients = [name.split("_")[0].removesuffix("_ct") for name in card["split"]["training"]]
    assert patients == ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0314", "LungDx-A0001", "TCGA-34-2605"]
    for collection in ("LIDC-IDRI, CC BY 3.0", "TCGA-LUSC, CC BY 3.0", "Lung-PET-CT-Dx, CC BY 4.0"):
        assert any(collection in line for line in card["attribution"])
    assert card["limits"]
    assert "/" not in json.dumps({k: v for k, v in card.items() if k != "attribution"})  # no path of any machine
    network = from_mapping(NetworkOptions, card["training"]["network"], "card")
    set_after = card["calibration"]["set after training"]
    assert set_after == {"temperature": model.network.options.temperature, "match_resolution": True}
    assert network == replace(model.network.options, temperature=1.0, match_resolution=False)
    assert network == training_options("density").network
    assert MODEL.stat().st_size < 5e6


def test_the_cards_figures_are_those_of_the_benchmark() -> None:
    card = json.loads(MODEL.with_suffix(".json").read_text())
    results = Path(__file__).parents[1] / "benchmarks" / "results" / "joint.json"
    assert card["validation"] == json.loads(results.read_text())["synthetic change and motion on real CT"]
    assert card["validation"]["weights_sha256"] == card["sha256"]


SHAPE = (144, 144, 144)  # coarser than the grid that it was trained on, in 0.4 of the time


@pytest.fixture(scope="module")
def answer() -> tuple[np.ndarray, np.ndarray]:
    """Errors of the known points in mm, before and after the network."""
    folder = resource("SamplePair")
    r, t = (read_volume(folder / f"{side}.nrrd") for side in ("reference", "template"))
    lungs = segment_both(r, t, options=LungOptions(spacing_mm=3.0))  # a quarter of the time
    rigid = align_rigid(*map(Scan.of, (r, t), [side.mask for side in lungs])).matrix
    pair = ScanPair.of(r, t, *(side.mask for side in lungs), rigid=rigid)
    found = run_network(read_checkpoint(MODEL), pair, shape=SHAPE)
    points = read_truth(folder / "truth.json").points
    assert points is not None
    before = points.reference_mm @ rigid[:3, :3].T + rigid[:3, 3]
    errors = [
        np.linalg.norm(at - points.template_mm, axis=1) for at in (before, found.field.apply(points.reference_mm))
    ]
    return errors[0], errors[1]


def test_the_network_finds_the_breathing_of_a_patient_it_has_not_seen(answer: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = answer
    assert before.mean() > 4.0
    assert after.mean() < 2.0
    assert np.percentile(after, 95) < 5.0
