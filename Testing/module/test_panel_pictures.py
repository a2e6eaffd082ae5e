"""Pictures of other systems count as the same, those of another panel do not."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import difference
from PIL import Image


@pytest.fixture
def panel(tmp_path):
    """A gray window with text-like lines and a bright view; saves it after a change."""
    pixels = np.full((320, 480, 3), 240, np.uint8)
    pixels[40:200:8, 20:200:3] = 0
    pixels[:, 240:] = 60

    def save(name: str, change=lambda _pixels: None):
        changed = pixels.copy()
        change(changed)
        Image.fromarray(changed).save(tmp_path / name)
        return tmp_path / name

    return save


def test_letters_may_lie_elsewhere_by_a_pixel(panel):
    moved = panel("moved.png", lambda p: p.__setitem__(np.s_[:, 20:200], np.roll(p[:, 20:200], 1, axis=1)))
    assert difference(moved, panel("kept.png")) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p.__setitem__(np.s_[64:96, 0:80], 0), "of its area"),  # a section has moved
        (lambda p: p.__setitem__(np.s_[:, 240:], 90), "on average"),  # the views are brighter
    ],
)
def test_what_a_reader_would_notice_is_a_difference(panel, change, why):
    assert why in difference(panel("changed.png", change), panel("kept.png"))


def test_size_and_absence_are_told(panel, tmp_path):
    kept = panel("kept.png")
    Image.open(kept).resize((100, 100)).save(tmp_path / "small.png")
    assert "pixels instead of" in difference(tmp_path / "small.png", kept)
    assert difference(kept, tmp_path / "none.png") == "is not in the repository"
