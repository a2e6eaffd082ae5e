"""The gate on anatomy: a closed-form chest that is no mirror image of itself, turned, cropped and diseased."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import LUNG_VOLUME_ML, centred_grid, chest_phantom, rotation, voxel_points

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid, apply_affine
from ChangeMapJointLib.gate.anatomy import chest_view, orientation
from ChangeMapJointLib.gate.answer import ALL_FINE, GateAnswer
from ChangeMapJointLib.gate.checks import check_ct, check_pair
from ChangeMapJointLib.gate.comparable import covered_fractions
from ChangeMapJointLib.gate.rules import BY_NAME, RULES
from ChangeMapJointLib.lungs import segment
from ChangeMapJointLib.lungs.segment import LungOptions, segment_lungs
from ChangeMapJointLib.registration.rigid import any_size
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.registration.rigid.verdict import Overlap, RigidOptions, alignment_warnings, rule_of_warning
from ChangeMapJointLib.scan.body_size import as_adult, body_scale
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

AXES = {"head_feet": 0, "front_back": 1, "left_right": 2}
Known = tuple[Volume, Lungs]


def lungs_of(labels: np.ndarray, grid: Grid) -> Lungs:
    right, left = (float((labels == side).sum() * grid.voxel_volume_ml) for side in (RIGHT, LEFT))
    return Lungs(labels, grid, right, left)


def chest(seed: int = 0, noise_hu: float = 15.0, full: float = 1.0) -> Known:
    """Lungs with apices and domes, the right dome higher, the heart on the left, the spine behind; 4 mm voxels.

    ``full``: how far the lungs are breathed in, against full inspiration.
    """
    grid = centred_grid((64, 64, 84), (4.0, 4.0, 4.0))
    x, y, z = np.moveaxis(voxel_points(grid), -1, 0)
    labels = np.zeros(grid.shape, np.uint8)
    for side, cx, dome in ((RIGHT, -68.0, -75.0), (LEFT, 68.0, -90.0)):
        base = dome + 170.0 * (1 - full)
        across = ((x - cx) / 58.0) ** 2 + (y / 85.0) ** 2
        under = base + 60.0 * (1 - across)
        labels[(across + (np.maximum(z + 60.0, 0) / 170.0) ** 2 < 1) & (z > under)] = side
    heart = ((x - 30.0) / 55.0) ** 2 + ((y + 25.0) / 45.0) ** 2 + ((z + 45.0) / 55.0) ** 2 < 1
    spine = np.hypot(x, y - 75.0) < 20.0
    labels[heart | spine | (np.abs(x) < 8)] = 0
    hu = np.where((x / 155.0) ** 2 + (y / 110.0) ** 2 < 1, 40.0, -1000.0)
    hu[labels > 0] = -850.0
    hu[heart] = 45.0
    hu[spine] = 300.0
    hu += np.random.default_rng(seed).normal(0.0, noise_hu, hu.shape)
    return Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), grid, Path("chest")), lungs_of(labels, grid)


@pytest.fixture(scope="module")
def now() -> Known:
    return chest()


@pytest.fixture(scope="module")
def before() -> Known:
    return chest(seed=1)


def asked(now: Known, before: Known, matrix: np.ndarray | None = None) -> GateAnswer:
    matrix = np.eye(4) if matrix is None else matrix
    return check_pair(now[0], before[0], lungs=(now[1], before[1]), rigid=matrix)


def rules(answer: GateAnswer, scan: str | None = None) -> set[str]:
    """Without that of the phantom's voxels, which are coarse for speed."""
    return {one.rule for one in answer.reasons if scan in (None, one.scan)} - {"voxel_mm"}


def turned(scan: Known, *axes: int) -> Known:
    """The content mirrored along array axes, under the same header; masks as they would be found in it."""
    volume, lungs = scan
    labels = np.flip(lungs.labels, axes)
    if 2 in axes:
        labels = np.where(labels > 0, 3 - labels, 0).astype(np.uint8)
    array = np.ascontiguousarray(np.flip(volume.array, axes))
    return replace(volume, array=array), lungs_of(np.ascontiguousarray(labels), volume.grid)


def filled(scan: Known, where: np.ndarray, hu: float, *, masked: bool = True) -> Known:
    """The scan with ``hu`` at some voxels, with some noise; they leave the lung mask unless it takes them in."""
    volume, lungs = scan
    array = volume.array.astype(float)
    array[where] = hu + np.random.default_rng(5).normal(0.0, 10.0, int(where.sum()))
    labels = lungs.labels if masked else np.where(where, 0, lungs.labels).astype(np.uint8)
    clipped = np.clip(np.rint(array), -1024, 3071).astype(np.int16)
    return replace(volume, array=clipped), lungs_of(labels, volume.grid)


# -- a pair as it should be -----------------------------------------------------------------
def test_a_pair_of_one_chest_is_fine(now, before):
    assert rules(asked(now, before)) == set()
    assert "Inputs: fine" in ALL_FINE.text


# -- orientation ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ((2,), {"left_right"}),
        ((1,), {"front_back"}),
        ((0,), {"head_feet"}),
        ((1, 2), {"front_back", "left_right"}),
        ((0, 2), {"head_feet", "left_right"}),
        ((0, 1), {"head_feet", "front_back"}),
        ((0, 1, 2), {"head_feet", "front_back", "left_right"}),
    ],
)
def test_a_header_that_the_anatomy_contradicts_is_doubted_by_axis(now, before, axes, expected):
    """Also where both scans are turned alike, which no registration would notice."""
    answer = asked(turned(now, *axes), turned(before, *axes))
    assert answer.answer == "look"
    for scan in ("Reference", "Template"):
        assert rules(answer, scan) == expected
    if 2 in axes:
        assert "situs inversus" in answer.text


def test_a_prone_patient_and_stored_axes_of_any_order_are_no_doubt(now, before):
    """The spine is at the back whatever the patient lies on; how the voxels are stored is not looked at."""
    volume, lungs = now
    grid = volume.grid
    direction = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
    x, y, z = grid.to_physical((grid.size[0] - 1, grid.size[1] - 1, 0)).tolist()
    stored = Grid(grid.shape, grid.spacing_mm, (x, y, z), direction)
    flip = (slice(None), slice(None, None, -1), slice(None, None, -1))
    again = (
        replace(volume, array=volume.array[flip], grid=stored),
        replace(lungs, labels=lungs.labels[flip], grid=stored),
    )
    assert rules(asked(again, before)) == set()


def test_sides_are_not_told_where_a_lung_is_much_smaller(now):
    volume, lungs = filled(now, (now[1].labels == LEFT) & (np.arange(64) > 26)[:, None, None], 20.0, masked=False)
    view = chest_view(volume, lungs)
    assert view is not None
    assert orientation(view).left_right is None


# -- coverage and breathing -------------------------------------------------------------------
def test_what_only_one_scan_saw_is_named(now, before):
    volume, lungs = before
    z0 = 24
    part = volume.grid.crop((z0, 0, 0), volume.grid.shape)
    cut = replace(volume, array=volume.array[z0:], grid=part), lungs_of(lungs.labels[z0:], part)
    answer = asked(now, cut)
    (found,) = [one for one in answer.reasons if one.rule == "coverage"]
    assert "right lung's lower half" in found.sentence
    assert "upper" not in found.sentence
    assert found.sentence.startswith("The prior scan covers only ")
    assert found.sentence.endswith(" in the current scan.")
    assert "breathing" not in rules(answer)  # lungs that were not seen are not breathed out


def test_coverage_follows_the_alignment(now, before):
    shift = np.eye(4)
    shift[2, 3] = -90.0
    shares = covered_fractions(now[1], before[0], shift)
    assert set(shares) == {f"{side} lung's {half} half" for side in ("right", "left") for half in ("upper", "lower")}
    assert shares["right lung's upper half"][0] == 1.0
    assert shares["right lung's lower half"][0] < 0.9


def test_lungs_that_are_breathed_in_differently_are_said(now):
    out = chest(seed=1, full=0.62)
    assert max(now[1].right_ml / out[1].right_ml, now[1].left_ml / out[1].left_ml) > 1.6
    (found,) = [one for one in asked(now, out).reasons if one.rule == "breathing"]
    assert found.value == pytest.approx(
        (now[1].right_ml + now[1].left_ml) / (out[1].right_ml + out[1].left_ml), rel=0.02
    )


# -- how they were acquired -------------------------------------------------------------------
def test_noise_is_measured(now, before):
    loud = chest(seed=2, noise_hu=90.0)
    assert {"noise_hu", "noise_ratio"} <= rules(asked(loud, before))
    assert "noise_hu" not in rules(asked(loud, before), "Template")


def test_contrast_agent_is_seen_without_a_header(now, before):
    x, y, z = np.moveaxis(voxel_points(now[0].grid), -1, 0)
    heart = ((x - 30.0) / 50.0) ** 2 + ((y + 25.0) / 40.0) ** 2 + ((z + 45.0) / 50.0) ** 2 < 1
    assert rules(asked(filled(now, heart, 220.0), before)) == {"blood_hu"}


# -- what a chest may hold --------------------------------------------------------------------
@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_fluid_behind_a_lung_is_said(now, before, side):
    behind = np.moveaxis(voxel_points(now[0].grid), -1, 0)[1] > 30.0
    answer = asked(filled(now, (now[1].labels == side) & behind, 10.0, masked=False), before)
    (found,) = [one for one in answer.reasons if one.rule == "fluid_percent"]
    assert f"{'right' if side == RIGHT else 'left'} lung" in found.sentence
    assert "effusion" in found.sentence


def test_dense_lung_is_said_whether_the_mask_takes_it_in_or_not(now, before):
    low = np.moveaxis(voxel_points(now[0].grid), -1, 0)[2] < -20.0
    for masked in (True, False):
        answer = asked(filled(now, (now[1].labels == RIGHT) & low, 55.0, masked=masked), before)
        assert "dense_percent" in rules(answer, "Reference")
        assert "dense_percent" not in rules(answer, "Template")


def test_free_air_is_said(now, before):
    front = np.moveaxis(voxel_points(now[0].grid), -1, 0)[1] < -30.0
    answer = asked(filled(now, (now[1].labels == RIGHT) & front, -1005.0), before)
    (found,) = [one for one in answer.reasons if one.rule == "gas_percent"]
    assert "pneumothorax" in found.sentence
    assert "right" in found.sentence


def test_a_missing_lung_is_said(now, before):
    answer = asked(filled(now, now[1].labels == LEFT, 30.0, masked=False), before)
    (found,) = [one for one in answer.reasons if one.rule == "one_lung"]
    assert found.sentence.startswith("The left lung is missing or very small, 0.0 l")


@pytest.mark.parametrize(("side", "name", "other"), [(RIGHT, "right", "left"), (LEFT, "left", "right")])
def test_a_scan_cropped_to_one_lung_is_no_disease(now, side, name, other):
    """The field of view is the reason, whether nothing or a slice of the other lung is in it; no lung is called ill."""
    volume, lungs = now
    x = np.flatnonzero((lungs.labels == side).any(axis=(0, 1)))
    beyond = {0: "at", 2: "8 mm beyond", 8: "32 mm beyond"}
    for margin, words in beyond.items():
        columns = slice(0, int(x[-1]) + 1 + margin) if side == RIGHT else slice(int(x[0]) - margin, None)
        start, stop = (0, 0, columns.start), (*volume.grid.shape[:2], columns.stop or volume.grid.shape[2])
        box = np.s_[:, :, columns]
        part = replace(volume, array=volume.array[box], grid=volume.grid.crop(start, stop))
        cropped = (part, lungs_of(lungs.labels[box], part.grid))
        (found,) = [
            one for one in asked(cropped, cropped).reasons if one.scan == "Reference" and one.rule != "voxel_mm"
        ]
        assert found.rule == "one_sided"
        assert found.sentence.startswith(f"The field of view ends {words} the {name} lung and holds ")
        assert found.sentence.endswith(f" of the {other} lung.")
        assert ("nothing" in found.sentence) == (margin < 8)


def test_a_crop_that_was_padded_again_is_one(now):
    """The other side holds no voxel that was measured."""
    volume, lungs = now
    unseen = np.zeros(volume.array.shape, dtype=bool)
    unseen[:, :, 44:] = True
    array = np.where(unseen, -1024, volume.array).astype(np.int16)
    labels = np.where(unseen, 0, lungs.labels).astype(np.uint8)
    padded = (replace(volume, array=array, unseen=unseen), lungs_of(labels, volume.grid))
    assert "one_sided" in rules(asked(padded, padded))
    assert "one_lung" not in rules(asked(padded, padded))


@pytest.mark.parametrize("fill", [0, -1024, -2000])
def test_lungs_alone_are_refused_with_the_reason(now, fill):
    """As public collections mask them: there is no body to look for lungs in."""
    masked = replace(now[0], array=np.where(now[1].mask, now[0].array, fill).astype(np.int16))
    with pytest.raises(InputError, match=r"only \d\.\d% of what was measured is soft tissue.*all except the lungs"):
        check_ct(masked)


def test_emphysema_is_no_free_air(now, before):
    """Lung that fades to the density of air, as against air that ends at the chest wall."""
    x, y, z = np.moveaxis(voxel_points(now[0].grid), -1, 0)
    distance = np.sqrt((x + 68.0) ** 2 + (y / 1.3) ** 2 + z**2)
    hu = np.where(now[1].labels == RIGHT, np.minimum(-1005.0 + 1.6 * distance, -850.0), now[0].array)
    emphysema = (replace(now[0], array=np.rint(hu).astype(np.int16)), now[1])
    assert "gas_percent" not in rules(asked(emphysema, before))


def test_metal_is_said(now, before):
    points = voxel_points(now[0].grid)
    pacemaker = np.linalg.norm(points - (70.0, -75.0, 40.0), axis=-1) < 10.0
    assert "metal_ml" in rules(asked(filled(now, pacemaker, 3050.0), before), "Reference")


# -- bodies of any size -----------------------------------------------------------------------
@pytest.mark.parametrize("size", [0.33, 0.5, 0.6])
def test_limits_scale_with_the_body(now, size):
    volume = now[0]
    child = replace(volume, grid=as_adult(volume.grid, 1 / size))
    scale = body_scale(child)
    assert scale == pytest.approx(size, rel=0.2)
    assert as_adult(child.grid, size).same_as(replace(volume.grid, origin_mm=child.grid.origin_mm))


def test_an_adult_is_an_adult(now):
    assert body_scale(now[0]) == 1.0
    lungs_only = now[0].grid.crop((4, 8, 8), (60, 56, 76))
    assert body_scale(Volume(now[0].array[4:60, 8:56, 8:76], lungs_only)) == 1.0


# -- the documentation ------------------------------------------------------------------------
def test_the_documents_table_is_that_of_the_code():
    """Every rule with its bars and its words; ``Testing/benchmarks/gate_table.py`` writes it."""
    lines = (Path(__file__).parents[2] / "docs" / "gate.md").read_text("utf-8").splitlines()
    found = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    assert [cells[0].strip("`") for cells in found] == [rule.name for rule in RULES]
    for rule, (_, quantity, look, refuse, said, measured) in zip(RULES, found, strict=True):
        assert quantity == rule.quantity
        for shown, bar in ((look, rule.look), (refuse, rule.refuse)):
            assert shown.strip() == ("" if bar is None else f"{'above' if rule.rises else 'below'} {bar:g}")
        assert said.startswith(rule.sentence)
        assert said.endswith(rule.remedy)
        assert len(measured) > 10


# -- children ---------------------------------------------------------------------------------
def test_the_lungs_of_a_newborn_are_found(monkeypatch):
    measured: list[float] = []

    def measure(volume: Volume) -> float:
        measured.append(body_scale(volume))
        return measured[-1]

    monkeypatch.setattr(segment, "body_scale", measure)  # once: each further time would enlarge the scan again
    enlarged: list[Volume] = []
    attempt = segment._attempt

    def see(volume: Volume, *others: object, **options: bool) -> object:
        enlarged.append(volume)
        return attempt(volume, *others, **options)

    monkeypatch.setattr(segment, "_attempt", see)
    adult = chest_phantom((72, 74, 108), (3.0, 3.0, 3.0), noise_hu=15.0)
    size = 0.4
    small = as_adult(adult.grid, 1 / size)
    start, stop = (0, -40, -30), (small.shape[0], small.shape[1] + 20, small.shape[2] + 50)
    room = [(-a, b - n) for a, b, n in zip(start, stop, small.shape, strict=True)]
    air = np.random.default_rng(0).normal(-1000.0, 15.0, small.crop(start, stop).shape).astype(np.int16)
    inner = tuple(slice(a, a + n) for (a, _), n in zip(room, small.shape, strict=True))
    air[inner] = adult.array
    newborn = Volume(air, small.crop(start, stop))  # in a field of view for adults
    found = segment_lungs(newborn)
    assert found.grid.same_as(newborn.grid)
    assert len(measured) == 1
    assert enlarged[0].array.size < 0.6 * newborn.array.size
    assert found.mask[inner].sum() == found.mask.sum()
    for ml in (found.right_ml, found.left_ml):
        assert ml == pytest.approx(LUNG_VOLUME_ML * size**3, rel=0.03)
    with pytest.raises(
        InputError, match=r"no lungs, no chest was found: 2\.\d\d l .* or lower config\.lungs\.minimum_ml"
    ):
        segment_lungs(newborn, options=LungOptions(minimum_ml=5000.0))


def test_a_child_is_aligned_as_large_as_an_adult(monkeypatch):
    """The matrix is that of the child: points of the one scan to points of the other, each where its header says."""
    size, turn = 0.4, np.eye(4)
    turn[:3, :3] = rotation(3.0, -4.0, 5.0)
    turn[:3, 3] = (7.0, -5.0, 11.0)
    adult = chest_phantom((36, 40, 60), (5.0, 5.0, 5.0))
    child = replace(adult, grid=as_adult(adult.grid, 1 / size))
    x, y, z = np.add(child.grid.origin_mm, (40.0, -30.0, 20.0)).tolist()
    other = replace(child, grid=replace(child.grid, origin_mm=(x, y, z)))
    seen: list[Scan] = []

    def align(reference: Known, template: Known, **options: object) -> RigidAlignment:
        seen.extend((reference, template))
        return RigidAlignment(
            turn, 7.0, (10.0, 0.0, 0.0), Overlap(1.0, 1.0), 1.0, 0.9, 0.9, "Aligned: the lungs moved by 10.0 mm, x."
        )

    monkeypatch.setattr(any_size, "align_rigid", align)
    lungs = np.ones(child.grid.shape, np.uint8)
    found = any_size.align_any_size(Scan.of(child, lungs), Scan.of(other, lungs))
    assert seen[0].grid.spacing_mm[0] == pytest.approx(5.0 * size / body_scale(child))
    index = np.array([[0.0, 0, 0], [10, 20, 30], [59, 39, 35]])
    large = apply_affine(turn, seen[0].grid.to_physical(index))
    expected = other.grid.to_physical(seen[1].grid.to_index(large))
    np.testing.assert_allclose(apply_affine(found.matrix, child.grid.to_physical(index)), expected, atol=1e-9)
    assert np.linalg.det(found.matrix[:3, :3]) == pytest.approx(1.0)
    assert found.translation_mm[0] == pytest.approx(10.0 * body_scale(child))
    assert found.status == f"Aligned: the lungs moved by {10.0 * body_scale(child):.1f} mm, x."


@pytest.mark.parametrize(
    ("vessels", "covered", "turn_deg", "rule"),
    [(None, 1.0, 0.0, "vessels"), (0.5, 1.0, 0.0, "vessels"), (0.9, 0.3, 0.0, "coverage"), (0.9, 1.0, 90.0, "turned")],
)
def test_every_warning_of_an_alignment_belongs_to_a_rule(vessels, covered, turn_deg, rule) -> None:
    (sentence,) = alignment_warnings(vessels, Overlap(covered, 1.0), turn_deg, RigidOptions())
    assert rule_of_warning(sentence) == rule
    assert rule in BY_NAME


def test_a_sentence_that_is_no_warning_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="no warning of an alignment"):
        rule_of_warning("The lungs moved by 3 mm.")
