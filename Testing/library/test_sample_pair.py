"""The sample pair that ships: light, attributed, and what its truth says."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.truth import Truth, read_truth

SAMPLE = Path(__file__).resolve().parents[2] / "Resources" / "SamplePair"


@pytest.fixture(scope="module")
def sample() -> tuple[Volume, Volume, Truth]:
    volumes = []
    for name in ("reference", "template"):
        image = sitk.ReadImage(str(SAMPLE / f"{name}.nrrd"))
        volumes.append(Volume(sitk.GetArrayFromImage(image), Grid.of_image(image)))
    return volumes[0], volumes[1], read_truth(SAMPLE / "truth.json")


def test_sample_pair_is_light_and_the_one_the_truth_describes(sample):
    reference, template, truth = sample
    total = 0
    for name, volume in (("reference", reference), ("template", template)):
        path = SAMPLE / f"{name}.nrrd"
        total += path.stat().st_size
        assert hashlib.sha256(path.read_bytes()).hexdigest() == truth.about[name]["sha256"]
        assert list(volume.grid.shape) == truth.about[name]["shape"]
        np.testing.assert_allclose(volume.grid.spacing_mm, truth.about[name]["spacing_mm"])
        assert volume.array.dtype == np.int16
    assert total < 12e6


def test_sample_pair_says_what_it_is():
    truth = json.loads((SAMPLE / "truth.json").read_text())
    assert "synthetic change" in truth["about"]
    assert truth["source"]["licence"] == "CC BY 3.0"
    attribution, readme = (SAMPLE / "ATTRIBUTION.txt").read_text(), (SAMPLE / "README.md").read_text()
    assert truth["source"]["doi"] in attribution
    assert "creativecommons.org/licenses/by/3.0" in attribution
    assert "synthetic" in readme


def test_sample_pair_has_the_changes_that_the_demo_promises(sample):
    changes = sample[2].changes
    count = {kind: sum(c.kind == kind and c.solid for c in changes) for kind in ("new", "grown", "shrunk", "resolved")}
    assert min(count.values()) >= 2
    assert sum(c.kind == "stable" for c in changes) >= 2
    assert all(c.diameter_change_mm >= 6 for c in changes if c.is_change)
    assert {c.side for c in changes if c.is_change} == {"left", "right"}
    assert {c.place for c in changes if c.is_change} == {"free", "vessel", "pleura"}
    assert len({c.id for c in changes}) == len(changes)


def test_sample_pairs_points_follow_its_motion(sample):
    reference, template, truth = sample
    np.testing.assert_allclose(truth.motion(truth.points.reference_mm), truth.points.template_mm, atol=3e-3)
    assert len(truth.points.reference_mm) >= 300
    assert reference.grid.contains(truth.points.reference_mm).all()
    assert template.grid.contains(truth.points.template_mm).all()


def test_every_solid_change_of_the_sample_pair_can_be_seen_at_the_true_motion(sample):
    reference, template, truth = sample
    for change in truth.changes:
        now, before, box = change.inside(reference.grid)
        crop = reference.grid.crop([s.start for s in box], [s.stop for s in box])
        field = truth.motion.field(crop)
        moved = warp(template.array, template.grid, crop, field, outside=-1024)
        difference = np.abs(np.clip(reference.array[box], -1000, 50) - np.clip(moved, -1000, 50)) / 1050
        above = int(((difference >= 0.68) & (now ^ before)).sum())
        if change.is_change and change.solid:
            assert above >= 15, change
        if not change.is_change:
            assert difference[now].max() < 0.68, change
