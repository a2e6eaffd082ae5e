"""Is it a chest CT in HU, and do two scans belong together?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import centred_grid, chest_hu, chest_phantom, voxel_points
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.gate.answer import ALL_FINE
from ChangeMapJointLib.gate.checks import CheckLimits, check_ct, check_pair
from ChangeMapJointLib.gate.rules import BY_NAME, RULES
from ChangeMapJointLib.scan.volume import Acquisition, Volume


@pytest.fixture(scope="module")
def chest() -> Volume:
    return chest_phantom((64, 44, 60), (6.0, 6.0, 3.0), noise_hu=20.0)


def refused(volume: Volume) -> str:
    with pytest.raises(InputError) as caught:
        check_ct(volume)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_hu(volume: Volume, array: np.ndarray) -> Volume:
    return replace(volume, array=array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int16))


# -- one scan -------------------------------------------------------------------------------
def test_a_chest_ct_passes(chest):
    fine = chest_phantom((60, 60, 60), (3.0, 3.0, 3.0))
    assert check_ct(fine).notes == ()
    assert check_ct(replace(fine, notes=("read",))).notes == ("read",)
    assert check_ct(chest).notes == ("Voxels of 6 mm along one axis: smaller nodules may be missed.",)


@pytest.mark.parametrize("background", [-1024, -1000, -900])
def test_any_field_of_view_passes(chest, background):
    """Padding outside a round field of view, or a cut that shows hardly anything but lungs."""
    y, x = np.ogrid[-1:1:44j, -1:1:60j]
    padded = with_hu(chest, np.where(x**2 + y**2 > 1, background, chest.array))
    check_ct(padded)
    grid = chest.grid.crop((10, 10, 10), (54, 34, 50))
    check_ct(Volume(chest.array[10:54, 10:34, 10:50], grid))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda hu: hu + 1024, "they look like HU +1000 or +1024"),
        (lambda hu: hu + 1000, "they look like HU +1000 or +1024"),
        (lambda hu: (hu + 1024.5) / 4000.0, "it looks normalised"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "it looks normalised"),
        (lambda hu: np.clip((hu + 160.0) / 400.0 * 255.0, 0, 255).round(), "8-bit picture"),
        (lambda hu: np.digitize(hu, (-900, -500, 200)), "label map"),
        (lambda hu: (hu > -500).astype(np.int16), "label map"),
        (lambda hu: np.where(hu < -500, 5, 300) + np.abs(hu) % 200, "MR or an unscaled image"),
        (lambda hu: np.full_like(hu, -1000), "soft tissue"),
        (np.zeros_like, "air or lung"),
        (lambda hu: 40.0 + hu % 50, "air or lung"),  # an abdomen that was cropped to the body
        (lambda hu: hu * 20.0, "above 4000 HU"),
        (lambda hu: np.where(hu < 0, hu + 65536.0, hu), "stored as unsigned"),
        (lambda hu: np.where(hu < -600, hu, hu + 300), "soft tissue"),
        (lambda hu: hu * 0.5, "but air has -1000"),
        (lambda hu: -hu, "the scale is inverted: give the original CT"),
    ],
)
def test_numbers_that_are_no_hu_are_refused_and_explained(chest, change, expected):
    text = refused(with_hu(chest, change(chest.array)))
    assert "not HU of a CT of the chest" in text
    assert expected in text
    assert text.startswith("phantom: ")


def with_fat(volume, scale=1.0, outside_removed=False, lung_hu=-850.0):
    """The chest with a rim of fat and a trachea, and HU times ``scale``, clipped as files are."""
    hu = volume.array.astype(np.float64)
    body = ndimage.binary_fill_holes(np.stack([ndimage.binary_fill_holes(plane) for plane in hu > -300]))
    lung = body & (hu < -500)
    hu[lung] += lung_hu + 850.0
    rng = np.random.default_rng(0)
    fat = body & ~ndimage.binary_erosion(body, iterations=2) & ~lung
    hu[fat] = rng.normal(-100, 15, fat.sum())
    _, y, x = (int(np.mean(i)) for i in np.nonzero(body))
    hu[:, y : y + 2, x : x + 2] = rng.normal(-1000, 15, hu[:, y : y + 2, x : x + 2].shape)
    if outside_removed:
        hu[~body] = -1024
    return with_hu(volume, np.where(outside_removed & ~body, -1024, np.maximum(hu * scale, -1024)))


@pytest.mark.parametrize("outside_removed", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.8, 2.0, 0.5])
def test_a_wrong_scale_shows_in_air_and_fat(chest, scale, outside_removed):
    volume = with_fat(chest, scale, outside_removed)
    if scale == 0.5:
        text = refused(volume)
        assert "but air has -1000" in text
        assert text.endswith("give a CT in HU")
        return
    said = " ".join(note for note in check_ct(volume).notes if "scale" in note)
    assert ("every chest holds air (-1000)" in said) == (scale == 0.8)
    assert ("Fat has -2" in said) == (scale == 2.0)


def test_a_blanket_around_a_patient_without_fat_is_never_a_reason_to_refuse(chest):
    hu = chest.array.astype(np.float32)
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in hu > -300])
    blanket = ndimage.binary_dilation(body, iterations=4) & ~ndimage.binary_dilation(body, iterations=1)
    hu[blanket] = np.random.default_rng(0).normal(-250, 15, blanket.sum())
    assert any("Fat has -2" in note for note in check_ct(with_hu(chest, hu)).notes)


def test_dense_lungs_of_a_child_without_the_air_outside_are_hu(chest):
    assert not any("scale" in note for note in check_ct(with_fat(chest, outside_removed=True, lung_hu=-560.0)).notes)


def test_nan_is_refused(chest):
    hu = chest.array.astype(np.float32)
    hu[5, 5, 5] = np.nan
    assert "NaN" in refused(with_hu(chest, hu))


@pytest.mark.parametrize("width_mm", [120.0, 180.0, 240.0])
def test_a_child_in_a_large_field_of_view_passes(width_mm):
    """The air of a field of view of 700 mm is not held against the child in it."""
    scale = width_mm / 300.0
    grid = centred_grid((40, 175, 175), (4.0, 4.0, 200.0 * scale / 40))
    hu = chest_hu(voxel_points(grid) / scale, table=False)
    hu += np.random.default_rng(0).normal(0.0, 15.0, hu.shape)
    child = Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), grid)
    assert ((child.array > -200) & (child.array < 200)).mean() < 0.11
    check_ct(child)
    for wrong in (child.array + 1024, np.where(child.array < -600, child.array, child.array + 300)):
        assert "not HU of a CT" in refused(with_hu(child, wrong))


def test_a_scale_that_is_slightly_off_gets_a_note(chest):
    shifted = with_hu(chest, np.where(chest.array > -600, chest.array + 120, chest.array))
    assert any("unusual" in note for note in check_ct(shifted).notes)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "expected"),
    [
        ((5, 60, 72), (5.0, 5.0, 10.0), "at least 10 along each axis"),
        ((40, 60, 72), (5.0, 5.0, 1.0), "at least 50 mm along each axis"),
        ((16, 60, 72), (5.0, 5.0, 12.5), "at most 10 mm"),
    ],
)
def test_too_few_too_small_and_too_coarse_are_refused(shape, spacing_mm, expected):
    assert expected in refused(chest_phantom(shape, spacing_mm))


def test_gaps_between_thin_slices_get_a_note(chest):
    high_resolution = replace(chest, acquisition=Acquisition(slice_thickness_mm=1.0))
    assert "Slices of 1 mm every 3 mm: lesions between them are not seen." in check_ct(high_resolution).notes


def test_limits_can_be_changed():
    short = chest_phantom((8, 60, 72), (5.0, 5.0, 9.0))
    assert "along each axis" in refused(short)
    check_ct(short, limits=CheckLimits(min_voxels=5))


# -- two scans ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def now() -> Volume:
    return chest_phantom((44, 66, 104), (3.0, 3.0, 3.0), noise_hu=20.0)


@pytest.fixture(scope="module")
def before() -> Volume:
    return chest_phantom((44, 66, 104), (3.0, 3.0, 3.0), noise_hu=20.0, seed=1)


def made(volume: Volume, **about: object) -> Volume:
    return replace(volume, acquisition=Acquisition(**about))


def test_a_fitting_pair_gets_no_note(now, before):
    assert check_pair(now, before) == ALL_FINE
    about = {"kernel": "B30f", "slice_thickness_mm": 3.0, "patient_key": "k", "contrast": "yes", "kvp": 120.0}
    assert check_pair(made(now, date="2024-01-31", **about), made(before, date="2023-01-31", **about)) == ALL_FINE


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ({"patient_key": "a"}, {"patient_key": "b"}, "WARNING: the two headers name different patients"),
        ({"date": "2023-05-01"}, {"date": "2024-01-31"}, "of 2024-01-31, is newer than the current scan, of"),
        ({"date": "2024-01-31"}, {"date": "2024-01-31"}, "the same day, 2024-01-31"),
        ({"kernel": "B30f"}, {"kernel": "I70f"}, "kernels, B30f and I70f"),
        ({"slice_thickness_mm": 3.0}, {"slice_thickness_mm": 5.0}, "slice thickness, 3 and 5 mm"),
        ({"kvp": 120.0}, {"kvp": 80.0}, "tube voltages, 120 and 80 kV"),
        ({"contrast": "Iomeprol"}, {}, "only the current scan has contrast agent"),
        ({}, {"contrast": "Iomeprol"}, "only the prior scan has contrast agent"),
    ],
)
def test_what_differs_gets_exactly_one_note(now, before, new, old, expected):
    said = check_pair(made(now, **new), made(before, **old))
    (found,) = said.reasons
    assert said.answer == found.answer == "look"
    assert expected in found.text
    assert "Inputs: look." in said.text


@pytest.mark.parametrize("about", [{"date": "2024-01-31"}, {"patient_key": "a"}, {"kernel": "B"}, {"contrast": ""}])
def test_what_only_one_header_says_is_no_difference(now, before, about):
    assert check_pair(made(now, **about), before) == ALL_FINE
    assert check_pair(now, made(before, **about)) == ALL_FINE


def test_of_a_contrast_agent_that_a_header_is_unclear_about_nothing_is_claimed(now, before):
    assert check_pair(made(now, contrast="Iomeprol"), made(before, contrast="")) == ALL_FINE


def test_the_same_scan_twice_is_noticed(now):
    (found,) = check_pair(now, replace(now, source=now.source / "copy")).reasons
    assert "the same images" in found.text
    moved = Volume(now.array, Grid(now.grid.shape, now.grid.spacing_mm, (0.0, 0.0, 0.0)))
    assert check_pair(now, moved) == ALL_FINE


def test_slice_distance_stands_in_for_an_unknown_thickness(now):
    thick = Volume(now.array[::2], centred_grid((22, 66, 104), (3.0, 3.0, 6.0)))
    said = check_pair(now, thick)
    assert [found.rule for found in said.reasons] == ["voxel_mm", "thickness"]
    assert "slice thickness, 3 and 6 mm" in said.text


def test_a_scan_that_is_no_ct_by_its_header_is_refused(now, before):
    said = check_pair(made(now, modality="CT"), made(before, modality="MR"))
    assert said.answer == "refuse"
    with pytest.raises(
        InputError, match=r"^the current scan A and the prior scan B cannot be compared: Prior scan: .*MR, expected CT"
    ):
        said.raise_if_refused(Path("A"), Path("B"))


def test_what_reading_and_one_scan_say_is_part_of_the_answer(chest, now):
    noted = replace(now, notes=("A slice is missing.",))
    said = check_pair(check_ct(chest), noted)
    assert ("Reference", "voxel_mm") in [(one.scan, one.rule) for one in said.reasons]
    assert "Prior scan: A slice is missing." in said.sentences
    assert len(said.reasons) == len({(one.rule, one.scan, one.sentence) for one in said.reasons})


def test_reasons_come_in_the_order_of_the_table(now, before):
    said = check_pair(made(now, date="2024-01-31", kernel="A"), made(before, date="2024-01-31", kernel="B", kvp=80.0))
    order = [rule.name for rule in RULES]
    assert [one.rule for one in said.reasons] == sorted((one.rule for one in said.reasons), key=order.index)


def test_every_rule_has_a_name_of_its_own_and_a_bar():
    assert len(BY_NAME) == len(RULES)
    for rule in RULES:
        assert rule.look is not None or rule.refuse is not None
        assert rule.quantity


@pytest.mark.parametrize("value", [4095, 9999, 32767])
def test_fill_of_more_than_any_ct_has_is_no_reason_to_refuse(value: int) -> None:
    chest = chest_phantom(noise_hu=10.0)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in chest.array.shape[1:]), indexing="ij")
    outside = np.broadcast_to(x**2 + y**2 > 1.05, chest.array.shape)
    found = check_ct(with_hu(chest, np.where(outside, value, chest.array)))
    assert found.unseen is not None
    assert found.unseen[outside].all()
    assert found.array.max() < 1000


def test_voxels_too_coarse_to_tell_patients_apart_are_refused() -> None:
    chest = chest_phantom(grid=centred_grid((34, 34, 48), (7.0, 7.0, 7.0)))
    with pytest.raises(InputError, match="7 mm or more along two axes"):
        check_ct(chest)
    check_ct(chest_phantom(grid=centred_grid((30, 52, 72), (5.0, 5.0, 8.0))))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [0, -1024, np.nan])
def test_empty_slices_between_others_are_refused_by_place(axis, value):
    """Axial ones, whichever axis they are stored along; an empty coronal plane may be air over the table."""
    volume = chest_phantom((60, 60, 60), (3.0, 3.0, 3.0), noise_hu=20.0)
    array = volume.array.astype(np.float32)
    array[30:33] = value
    direction = np.roll(np.eye(3), -axis, axis=1)
    grid = replace(volume.grid, direction=tuple(map(tuple, direction.tolist())))

    def stored(values: np.ndarray) -> Volume:
        return Volume(np.ascontiguousarray(np.moveaxis(values, (0, 1, 2), np.roll((0, 1, 2), -axis))), grid)

    z_mm = 3.0 * 30 + stored(array).grid.origin_mm[2]
    assert f"3 slice(s) between others hold a single value, the lowest at z = {z_mm:.0f} mm" in refused(stored(array))
    array[30:] = value
    check_ct(stored(array))  # at the end they are padding
