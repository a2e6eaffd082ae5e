"""The demo's score against the truth, with perfect, empty and wrong results."""

from types import SimpleNamespace

import numpy as np
import pytest

from ChangeMapJointLib.cli.demo import demo_request, is_demo, score
from ChangeMapJointLib.comparison.save import synthetic_notice
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.synthesis.truth import read_truth


@pytest.fixture(scope="module")
def reference():
    return read_volume(resource("SamplePair", "reference.nrrd"))


def result(reference, changes, field, possible=()):
    """A run's result whose findings are exactly the true regions of ``changes``; those of ``possible`` are no more."""
    labels = np.zeros(reference.grid.shape, np.int32)
    items = []
    for number, change in enumerate((*changes, *possible), 1):
        now, before, box = change.inside(reference.grid)
        labels[box][now ^ before] = number
        section = "finding" if number <= len(changes) else "possible"
        items.append(
            SimpleNamespace(id=number, kind=change.kind, centre_mm=change.centre_reference_mm, section=section)
        )
    return SimpleNamespace(
        pair=SimpleNamespace(reference=reference),
        findings=SimpleNamespace(
            items=tuple(items[: len(changes)]), others=tuple(items[len(changes) :]), labels=labels
        ),
        deformation=field,
    )


def test_a_perfect_result_scores_full_marks(reference) -> None:
    truth = read_truth(resource("SamplePair", "truth.json"))
    assert truth.motion is not None
    changes = [c for c in truth.changes if c.is_change]
    scored = score(result(reference, changes, truth.motion.field(reference.grid)))
    figures = scored.figures()
    assert (figures["solid_changes"], figures["solid_changes_found"]) == (8, 8)
    assert (figures["other_changes"], figures["other_changes_found"]) == (1, 1)
    assert figures["kinds_right"] == 9
    assert figures["false_findings"] == 0
    assert figures["error_after_mm"] < 0.1 < 20 < figures["error_before_mm"]
    assert "Missed" not in " ".join(scored.lines())


def test_nothing_found_is_said(reference) -> None:
    still = DisplacementField.from_affine(np.eye(4), reference.grid.corners())
    scored = score(result(reference, [], still))
    assert scored.figures()["solid_changes_found"] == 0
    assert scored.error_after_mm == pytest.approx(scored.error_before_mm)
    assert scored.lines()[0].startswith("Found 0 of 8")
    assert "Missed: new solid 0 to 8 mm" in scored.lines()[-1]


def test_a_missed_change_is_told_with_the_section_that_holds_it(reference) -> None:
    truth = read_truth(resource("SamplePair", "truth.json"))
    changes = [c for c in truth.changes if c.is_change]
    still = DisplacementField.from_affine(np.eye(4), reference.grid.corners())
    scored = score(result(reference, changes[:-1], still, possible=changes[-1:]))
    assert scored.figures()["false_findings"] == 0
    assert scored.lines()[-1].startswith("Missed: ")
    assert scored.lines()[-1].endswith(" mm (listed as possible).")


def test_a_stable_lesion_called_changed_is_a_false_finding(reference) -> None:
    truth = read_truth(resource("SamplePair", "truth.json"))
    stable = next(c for c in truth.changes if not c.is_change and c.inserted)
    wrong = SimpleNamespace(
        inside=lambda grid: (stable.inside(grid)[0], np.zeros_like(stable.inside(grid)[0]), stable.inside(grid)[2]),
        kind="new",
        centre_reference_mm=stable.centre_reference_mm,
    )
    still = DisplacementField.from_affine(np.eye(4), reference.grid.corners())
    figures = score(result(reference, [wrong], still)).figures()
    assert figures["false_findings"] == 1
    assert figures["largest_false_ml"] == pytest.approx(stable.volume_reference_ml, rel=0.15)


def test_only_an_earlier_demo_is_replaced_unasked(tmp_path) -> None:
    assert not demo_request(tmp_path / "new", "cpu").overwrite
    (tmp_path / "run.json").write_text('{"schema": "changemap.run/1", "reference": {"sha256": "of a patient"}}')
    assert not is_demo(tmp_path)
    assert not demo_request(tmp_path, "cpu").overwrite
    assert demo_request(tmp_path, "cpu", overwrite=True).overwrite


def test_a_scan_of_the_sample_pair_is_said_to_be_synthetic(reference) -> None:
    sample, other = (SimpleNamespace(volume=one) for one in (reference, SimpleNamespace(array=np.zeros((2, 2, 2)))))
    notices = synthetic_notice(SimpleNamespace(pair=SimpleNamespace(reference=other, template=sample)))
    assert ["SYNTHETIC" in notice for notice in notices] == [True]
    assert synthetic_notice(SimpleNamespace(pair=SimpleNamespace(reference=other, template=other))) == ()
