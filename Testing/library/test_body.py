"""The body is found first: air round the patient is never inside, lungs that the field of view cuts off are."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from phantoms import chest_phantom
from PIL import Image

from ChangeMapJointLib.comparison import run as run_module
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.run import Request, run
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.lungs.body import inside_body
from ChangeMapJointLib.lungs.check import UnlikelyLungs, lung_faults
from ChangeMapJointLib.lungs.segment import LungOptions, segment_lungs
from ChangeMapJointLib.scan.volume import Volume

H = 3.0
SHAPE = (70, 84, 132)  # 396 mm wide
Z, Y, X = np.indices(SHAPE)
XMM, YMM, ZMM = ((index - (n - 1) / 2) * H for index, n in ((X, SHAPE[2]), (Y, SHAPE[1]), (Z, SHAPE[0])))
BODY = np.hypot(XMM / 150, YMM / 100) < 1
LUNGS = [np.sqrt(((XMM - x) / 50) ** 2 + (YMM / 65) ** 2 + (ZMM / 90) ** 2) < 1 for x in (-70.0, 70.0)]
EITHER = LUNGS[0] | LUNGS[1]
NOTHING = np.zeros(SHAPE, dtype=bool)
LITRE = 1e6 / H**3
QUICK = LungOptions(spacing_mm=4.0)  # where it does not matter how well the lungs are found


def chest(lung_hu: float = -850.0, seed: int = 0) -> np.ndarray:
    """A chest with vessels and noise in noisy air."""
    rng = np.random.default_rng(seed)
    hu = np.where(BODY, 40.0, -1000.0)
    vessels = (np.hypot(XMM % 18 - 9, YMM % 18 - 9) < 2.5) & EITHER
    hu = np.where(EITHER, lung_hu, hu)
    hu = np.where(vessels, lung_hu + 500, hu)
    return np.maximum(hu + rng.normal(0, 15, SHAPE), -1024).astype(np.float32)


def gown(hu: np.ndarray, gap_mm: float = 25.0) -> np.ndarray:
    """A sheet round the front and the sides, and a table below, so that air is enclosed on all sides."""
    r = np.hypot(XMM / (150 + gap_mm), YMM / (100 + gap_mm))
    sheet = (np.abs(r - 1) * 110 < 3) & (YMM < 80)
    table = np.abs(np.abs(YMM - 122.0) - 20.0) < H / 2  # its shell, 40 mm apart
    return np.where(sheet & ~BODY, -250, np.where(table & ~BODY, -100, hu)).astype(np.float32)


def taken_l(mask: np.ndarray) -> float:
    return float(mask.sum() / LITRE)


@pytest.mark.parametrize("gap_mm", [12.0, 25.0, 45.0])
def test_air_under_a_gown_and_over_a_table_is_outside(gap_mm: float) -> None:
    inside = inside_body(gown(chest(), gap_mm), NOTHING, -400.0, H)
    assert inside[EITHER].all()
    assert taken_l(inside & ~BODY) < 0.05


def test_air_between_arms_and_chest_is_no_lung() -> None:
    hu = chest()
    for x in (-176.0, 176.0):
        arm = np.hypot(XMM - x, YMM + 10) < 28
        hu = np.where(arm & ~BODY, 45, hu)
    hu = np.where((ZMM > 75) & (np.abs(XMM) < 190) & (np.abs(YMM + 40) < 25) & ~BODY, 45, hu)  # shoulders join them
    labels = segment_lungs(Volume(hu.astype(np.float32), Grid(SHAPE, (H, H, H)))).labels
    assert (labels[EITHER] > 0).mean() > 0.97
    assert not labels[~BODY].any()


@pytest.mark.parametrize("lung_hu", [-700.0, -850.0, -940.0])
@pytest.mark.parametrize("cut", ["left", "both sides", "front", "round", "corner"])
def test_lungs_that_the_field_of_view_cuts_off_are_inside(cut: str, lung_hu: float) -> None:
    hu, unseen = gown(chest(lung_hu)), NOTHING
    box = {
        "left": np.s_[:, :, :88],
        "both sides": np.s_[:, :, 36:96],
        "front": np.s_[:, 36:, :],
        "corner": np.s_[:, 30:, 44:],
        "round": np.s_[:, :, :],
    }[cut]
    if cut == "round":
        unseen = np.hypot(XMM, YMM) > 95
    inside = inside_body(hu[box], unseen[box], -400.0, H)
    lung = EITHER[box] & ~unseen[box] & (hu[box] < -400)
    assert inside[lung].mean() > 0.97
    assert taken_l(inside & ~BODY[box] & ~unseen[box]) < 0.1
    assert not inside[unseen[box]].any()


def test_the_check_finds_air_outside_and_impossible_sizes() -> None:
    hu = gown(chest())
    good = (LUNGS[0] + 2 * LUNGS[1]).astype(np.uint8)
    assert lung_faults(hu, good, H) == ()
    leaked = np.where((hu < -900) & ~BODY & (YMM < 90), 2, good).astype(np.uint8)
    assert any("air outside the body" in fault for fault in lung_faults(hu, leaked, H))
    assert any("at most 12 l" in fault for fault in lung_faults(hu, leaked, 2.5 * H))


def test_a_mask_that_cannot_be_lungs_is_refused_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mask is found at fault, also the second: the run ends with one line and a picture, and no folder."""
    monkeypatch.setattr("ChangeMapJointLib.lungs.segment.lung_faults", lambda *_, **__: ("too good to be true",))
    volume = chest_phantom()
    with pytest.raises(UnlikelyLungs, match="too good to be true") as raised:
        segment_lungs(volume, options=QUICK)
    assert raised.value.labels.any()
    scan = tmp_path / "scan.nrrd"
    write_nrrd(scan, volume.array, volume.grid)
    out = tmp_path / "runs" / "one"
    with pytest.raises(InputError, match=r"lungs not found reliably .*\(picture: .*one\.refused\.png\)"):
        run(Request(scan, scan, out, RunConfig(method="rigid", lungs=QUICK)))
    assert not out.exists()
    picture = np.array(Image.open(tmp_path / "runs" / f"one{run_module.REFUSED}").convert("RGB")).astype(int)
    assert (picture[..., 0] > picture[..., 1] + 40).mean() > 0.02  # the mask in red


@pytest.mark.parametrize("half", ["right", "left"])
def test_a_field_of_view_with_one_lung_and_no_trachea(half: str) -> None:
    hu = chest()[:, :, : SHAPE[2] // 2] if half == "right" else chest()[:, :, SHAPE[2] // 2 :]
    lung = LUNGS[0][:, :, : SHAPE[2] // 2] if half == "right" else LUNGS[1][:, :, SHAPE[2] // 2 :]
    lungs = segment_lungs(Volume(hu, Grid(hu.shape, (H, H, H))))
    found = lungs.mask & lung
    assert 2 * found.sum() / (lungs.mask.sum() + lung.sum()) > 0.95


def test_fill_with_noise_is_no_air_to_look_for_lungs_in() -> None:
    """As lossy compression leaves it: 0 HU, give or take two, outside a round field of view."""
    outside = np.hypot(XMM / 198, YMM / 126) > 0.98
    rng = np.random.default_rng(3)
    hu = np.where(outside, rng.integers(-2, 3, SHAPE), chest()).astype(np.float32)
    labels = segment_lungs(Volume(hu, Grid(SHAPE, (H, H, H)))).labels
    assert not labels[~BODY].any()
    assert (labels[EITHER] > 0).mean() > 0.97


def test_a_second_attempt_that_keeps_little_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, here = iter([("too much air",), ()]), threading.get_ident()
    faults = lambda *_, **__: next(answers) if threading.get_ident() == here else ()  # noqa: E731
    monkeypatch.setattr("ChangeMapJointLib.lungs.segment.lung_faults", faults)
    monkeypatch.setattr("ChangeMapJointLib.lungs.segment.USUAL_ML", (1e6, 1e7))
    with pytest.raises(UnlikelyLungs, match="too much air"):
        segment_lungs(chest_phantom(), options=QUICK)


def test_a_second_attempt_takes_over_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, here = iter([("air outside the body",), ()]), threading.get_ident()

    def faults(*_: object, **__: object) -> tuple[str, ...]:
        return next(answers) if threading.get_ident() == here else ()  # a run that was refused may still be ending

    monkeypatch.setattr("ChangeMapJointLib.lungs.segment.lung_faults", faults)
    lungs = segment_lungs(chest_phantom(noise_hu=10.0), options=QUICK)
    assert any("The first lung mask was wrong (air outside the body)" in note for note in lungs.notes)
    assert lungs.mask.any()


@pytest.mark.parametrize("filled_hu", [-1000.0, -820.0], ids=["air", "foam"])
@pytest.mark.parametrize("where", ["arm", "hand"])
def test_what_an_arm_or_an_object_encloses_outside_the_ribs_is_no_lung(where: str, filled_hu: float) -> None:
    """Attached to the chest over the whole height, so that the body encloses it in every slice."""
    rng = np.random.default_rng(4)
    hu = chest()
    ribs = (np.abs(np.hypot(XMM / 150, YMM / 100) - 0.92) < 0.03) & ((ZMM + 0.3 * YMM) % 30 < 12)
    hu = np.where(ribs, 500, hu)
    x, y = (165.0, 0.0) if where == "arm" else (70.0, -115.0)
    r = np.hypot(XMM - x, YMM - y)
    hu = np.where((r < 55) & ~BODY, 45, hu)
    pocket = (r < 42) & ~BODY & (np.hypot(XMM / 150, YMM / 100) > 1.02)
    hu = np.where(pocket, filled_hu + rng.normal(0, 25, SHAPE), hu)
    trachea = (np.hypot(XMM, YMM + 10) < 9) & (ZMM > 20)
    hu = np.where(trachea, -1000 + rng.normal(0, 15, SHAPE), hu)
    assert taken_l(pocket) > 0.3
    scan = Volume(hu.astype(np.float32), Grid(SHAPE, (H, H, H)))
    lungs = segment_lungs(scan, options=LungOptions(spacing_mm=H))
    assert not lungs.labels[pocket].any()
    assert (lungs.labels[EITHER] > 0).mean() > 0.97
    assert any("ml as dense as lung were left out, since ribs" in note for note in lungs.notes) == (filled_hu > -900)


@pytest.mark.parametrize(
    ("slope", "heart_hu"),
    [(0.6, 45.0), (2.5, 45.0), (1.2, 350.0), (2.5, 350.0)],
    ids=["flat", "steep", "sloping, contrast", "steep, contrast"],
)
def test_a_lobe_beyond_fluid_in_the_fissure_is_lung(slope: float, heart_hu: float) -> None:
    """It lies under the other lobe with a wall between, as bowel does, but is large and holds no gas.

    Nor is a heart between the lobes, as bright as bone, a rib.
    """
    rng = np.random.default_rng(4)
    ribs = (np.abs(np.hypot(XMM / 150, YMM / 100) - 0.92) < 0.03) & ((ZMM + 0.3 * YMM) % 30 < 12)
    heart = np.sqrt(((XMM - 35) / 45) ** 2 + ((YMM + 10) / 40) ** 2 + ((ZMM + 25) / 45) ** 2) < 1
    fissure = (np.abs(YMM + slope * ZMM) < 6 * np.hypot(1, slope)) & (XMM > 0) & EITHER
    trachea = (np.hypot(XMM, YMM + 10) < 9) & (ZMM > 20)
    hu = np.where(ribs, 500, chest())
    for part, density in ((heart, heart_hu), (fissure, 15.0), (trachea, -1000.0)):
        hu = np.where(part, density + rng.normal(0, 15, SHAPE), hu)
    lungs = segment_lungs(Volume(hu.astype(np.float32), Grid(SHAPE, (H, H, H))), options=LungOptions(spacing_mm=H))
    labels = lungs.labels
    assert not any("ribs" in note for note in lungs.notes)
    lung = EITHER & ~heart & ~fissure & ~trachea
    for side in (XMM < 0, XMM > 0):
        assert (labels[lung & side] > 0).mean() > 0.95
