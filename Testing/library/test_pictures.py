"""Pictures: which way up, which grey, which colour, and what is drawn where."""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from export_samples import GONE_MM, NEW_MM, SHIFT_MM, content, finding
from PIL import Image

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.export.overview import overview_pictures, project_change, spread
from ChangeMapJointLib.export.panels import Picture, field_mm, finding_boxes_mm, finding_rows, lung_rows
from ChangeMapJointLib.export.pictures import (
    OUTSIDE,
    WARNING,
    Marks,
    annotate,
    change_colour,
    jpeg_uri,
    lung_window,
    overlay,
)
from ChangeMapJointLib.export.planes import box_plane, physical_box, reslice, reslice_nearest, square_plane

RIGHT_MM, ANTERIOR_MM, HEAD_MM = (-20.0, 0.0, 0.0), (0.0, -20.0, 0.0), (0.0, 0.0, 20.0)
TURN = np.array([[np.cos(0.4), -np.sin(0.4), 0.0], [np.sin(0.4), np.cos(0.4), 0.0], [0.0, 0.0, 1.0]])
DIRECTIONS = {
    "plain": np.eye(3),
    "flipped x and y": np.diag([-1.0, -1.0, 1.0]),
    "feet first in storage": np.diag([1.0, 1.0, -1.0]),
    "coronal storage": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    "sagittal storage": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "oblique": TURN,
}


def grid_with(direction: np.ndarray, *, shape=(30, 34, 38), spacing=(2.4, 2.6, 3.0)) -> Grid:
    """A grid with its middle at 0, 0, 0."""
    middle = (np.array(shape[::-1]) - 1) / 2 * np.array(spacing)
    rows = tuple(tuple(float(v) for v in row) for row in direction)
    return Grid(shape, spacing, tuple(float(v) for v in -direction @ middle), rows)


def points_of(grid: Grid) -> np.ndarray:
    return grid.to_physical(np.stack(np.indices(grid.shape)[::-1], axis=-1))


def marker(grid: Grid, centre_mm) -> np.ndarray:
    """Soft tissue within 7 mm of a point, else air."""
    near = np.linalg.norm(points_of(grid) - np.asarray(centre_mm), axis=-1) < 7.0
    return np.where(near, 100.0, -1000.0).astype(np.float32)


def bright_centre(pixels: np.ndarray) -> tuple[float, float]:
    """Row and column of the brightness, as fractions from -0.5 (top, left) to 0.5."""
    weight = pixels[..., 0].astype(float) * (pixels[..., 0] > 128)
    assert weight.sum() > 0, "the marker is not in the picture"
    rows, columns = np.indices(weight.shape)
    n, m = weight.shape
    return (rows * weight).sum() / weight.sum() / n - 0.5, (columns * weight).sum() / weight.sum() / m - 0.5


# -- which way up ---------------------------------------------------------------------------
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
@pytest.mark.parametrize(
    ("name", "marker_mm", "row", "column"),
    [
        ("axial", RIGHT_MM, 0, -1),  # the patient's right is on the left of the screen
        ("axial", ANTERIOR_MM, -1, 0),
        ("coronal", RIGHT_MM, 0, -1),
        ("coronal", HEAD_MM, -1, 0),
        ("sagittal", ANTERIOR_MM, 0, -1),
        ("sagittal", HEAD_MM, -1, 0),
    ],
)
def test_a_marker_is_where_radiologists_expect_it_however_the_grid_is_stored(direction, name, marker_mm, row, column):
    grid = grid_with(direction)
    plane = square_plane(name, (0.0, 0.0, 0.0), field_mm=60.0, pixels=90)
    pixels = lung_window(reslice(marker(grid, marker_mm), plane.index_on(grid)))
    # 20 mm of 60 mm is a third of the picture
    assert bright_centre(pixels) == pytest.approx((row / 3, column / 3), abs=0.02)


def test_letters_name_the_sides_of_the_screen():
    letters = {name: square_plane(name, (0, 0, 0)).letters for name in ("axial", "coronal", "sagittal")}
    assert letters == {
        "axial": ("R", "L", "A", "P"),
        "coronal": ("R", "L", "H", "F"),
        "sagittal": ("A", "P", "H", "F"),
    }


def test_the_projections_of_the_overview_are_the_right_way_round():
    pictures = overview_pictures(content(finding()), [finding()])
    coronal, axial = (decoded(picture).astype(int) for picture in pictures)
    for pixels in (coronal, axial):
        orange = (pixels[..., 0] - pixels[..., 2] > 90).nonzero()
        blue = (pixels[..., 2] - pixels[..., 0] > 90).nonzero()
        middle = pixels.shape[1] / 2
        assert np.median(orange[1]) < middle < np.median(blue[1])  # NEW_MM is on the right, GONE_MM on the left
    rows = [np.median((coronal[..., a] - coronal[..., b] > 90).nonzero()[0]) for a, b in ((0, 2), (2, 0))]
    assert rows[0] < rows[1]  # NEW_MM is nearer to the head
    rows = [np.median((axial[..., a] - axial[..., b] > 90).nonzero()[0]) for a, b in ((0, 2), (2, 0))]
    assert rows[0] > rows[1]  # and farther back


def test_the_chest_behind_the_projections_is_the_right_way_round():
    made = content()
    x, y, z = np.moveaxis(points_of(made.reference.grid), -1, 0)
    for sides, pictures in (((x < 0) & (z > 0), (0,)), ((x < 0) & (y < 0), (1,))):  # right and head; right and front
        hu = np.where(sides, 100, -850).astype(np.int16)
        both = overview_pictures(replace(made, reference=replace(made.reference, array=hu)), [])
        for which in pictures:
            pixels = decoded(both[which])[..., 0].astype(int)
            rows, columns = pixels.shape[0], pixels.shape[1]
            assert pixels[rows // 4, columns // 3] > 200
            assert pixels[rows // 4, 2 * columns // 3] < 60
            assert pixels[3 * rows // 4, columns // 3] < 60


# -- values ---------------------------------------------------------------------------------
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
def test_a_linear_volume_is_resliced_exactly(direction):
    grid = grid_with(direction)
    slope = np.array([3.0, -2.0, 5.0])
    plane = square_plane("coronal", (1.0, -2.0, 3.0), field_mm=30.0, pixels=31)
    values = reslice((points_of(grid) @ slope).astype(np.float32), plane.index_on(grid))
    step = 30.0 / 31
    across, down = np.meshgrid(np.arange(-15, 16) * step, np.arange(-15, 16) * step)
    expected = 3.0 * (1.0 + across) - 2.0 * -2.0 + 5.0 * (3.0 - down)
    np.testing.assert_allclose(values, expected, atol=2e-3)


def test_outside_the_scan_is_not_a_number_and_not_painted_as_air():
    grid = Grid((10, 10, 10))
    plane = square_plane("axial", (9.0, 4.5, 4.5), field_mm=10.0, pixels=10)
    values = reslice(np.full(grid.shape, -1000.0), plane.index_on(grid))
    # columns are at x = 4.5, 5.5, ...: the scan ends at 9.5
    assert np.isfinite(values[:, :6]).all()
    assert np.isnan(values[:, 6:]).all()
    pixels = lung_window(values)
    assert (pixels[:, 6:] == OUTSIDE).all()
    assert not (pixels[:, :6] == OUTSIDE).all(axis=-1).any()


def test_a_region_of_one_voxel_stays_visible_off_its_centre():
    array = np.zeros((5, 5, 5), dtype=np.float32)
    array[2, 2, 2] = 0.7
    index = square_plane("axial", (2.0, 2.0, 2.4), field_mm=5.0, pixels=5).index_on(Grid(array.shape))
    assert reslice_nearest(array, index).max() == pytest.approx(0.7)
    assert reslice(array, index).max() == pytest.approx(0.6 * 0.7)  # interpolation would hide it below 0.68


def test_lung_window_is_black_at_minus_1350_and_white_at_150():
    grey = lung_window(np.array([-3000.0, -1350.0, -600.0, -225.0, 150.0, 3000.0]))[:, 0]
    assert grey.tolist() == [0, 0, 128, 191, 255, 255]  # -600 is the middle, -225 three quarters


# -- colours --------------------------------------------------------------------------------
def test_colour_is_shown_only_from_the_threshold_on_and_tells_the_sign():
    grey = np.full((1, 6, 3), 100, dtype=np.uint8)
    change = np.array([[0.0, 0.67, 0.68, 0.9, 0.9, np.nan]], dtype=np.float32)
    signed = np.array([[0.0, 700.0, 714.0, 950.0, -950.0, 900.0]], dtype=np.float32)
    shown = overlay(grey, change, signed, threshold=0.68).astype(int)[0]
    assert (shown[[0, 1, 5]] == 100).all()
    for denser in shown[[2, 3]]:
        assert denser[0] > denser[1] > denser[2]  # orange
    assert shown[4][2] > shown[4][1] > shown[4][0]  # blue


def test_stronger_change_is_lighter_and_no_change_nearly_black():
    strength = np.linspace(0, 1, 21)
    for sign in (1, -1):
        lightness = change_colour(sign * strength).sum(axis=-1)
        assert (np.diff(lightness) > 0).all()
    assert change_colour(np.zeros(1)).max() < 40
    np.testing.assert_array_equal(change_colour(np.array([1.7])), change_colour(np.array([1.0])))


def test_red_never_stands_against_green():
    denser, less = change_colour(np.array([0.8])), change_colour(np.array([-0.8]))
    assert denser[0, 0] > denser[0, 2] + 100  # told apart along orange and blue
    assert less[0, 2] > less[0, 0] + 100
    assert abs(denser[0, 1] - less[0, 1]) < 30  # and not by their green


def test_projection_keeps_the_strongest_change_along_the_line_of_sight():
    grid = Grid((4, 4, 4), (2.0, 2.0, 2.0))
    plane = box_plane("coronal", *physical_box(grid), pixel_mm=2.0)
    points = np.array([[2.0, 0.0, 6.0], [2.0, 4.0, 6.0]])
    shown = project_change(plane, points, np.array([730.0, -900.0], dtype=np.float32), grid)
    assert shown[0, 1] == -900  # x = 2 mm is column 1, z = 6 mm the top row
    assert shown[3].tolist() == [0, 0, 0, 0]


# -- marks ----------------------------------------------------------------------------------
def test_the_scale_bar_is_10_mm_long():
    plane = square_plane("axial", (0, 0, 0), field_mm=64.0, pixels=288)
    drawn = annotate(np.full((288, 288, 3), 90, dtype=np.uint8), plane)
    rows = (drawn[270:, 150:] > 250).all(axis=-1).sum(axis=1)
    assert rows.max() == pytest.approx(288 * 10 / 64, abs=2)


def test_corner_marks_surround_the_finding_without_covering_it():
    plane = square_plane("axial", (0, 0, 0), field_mm=64.0, pixels=288)
    blank = np.full((288, 288, 3), 90, dtype=np.uint8)
    box = np.array([[-8.0, -6.0, -4.0], [10.0, 12.0, 4.0]])
    drawn = annotate(blank, plane, Marks(box)) != annotate(blank, plane)
    rows, columns = drawn.any(axis=-1).nonzero()
    low, high = plane.to_pixel(box)
    assert (columns.min(), rows.min()) == pytest.approx(tuple(low), abs=3)
    assert (columns.max(), rows.max()) == pytest.approx(tuple(high), abs=3)
    inner = drawn[round(low[1]) + 4 : round(high[1]) - 3, round(low[0]) + 4 : round(high[0]) - 3]
    assert not inner.any()


def test_a_picture_wholly_outside_says_so():
    plane = square_plane("axial", (0, 0, 0), pixels=288)
    blank = lung_window(np.full(plane.shape, np.nan))
    drawn = annotate(blank, plane)
    assert (drawn[130:158] == 255).any()  # words across the middle
    assert (drawn[:100] == OUTSIDE).all()  # and no letters, which would name sides of nothing


def test_a_warning_is_a_band_on_the_picture():
    plane = square_plane("axial", (0, 0, 0), pixels=288)
    blank = np.full((288, 288, 3), 90, dtype=np.uint8)
    warned = annotate(blank, plane, Marks(warning="DO NOT USE"))
    assert (warned[2, :] == WARNING).all()
    assert not (annotate(blank, plane) == WARNING).all(axis=-1).any()


@pytest.mark.parametrize("wanted", [[], [5.0], [0.0, 1.0, 2.0], [90.0, 95.0, 99.0], [10.0, 50.0, 51.0, 52.0]])
def test_numbers_beside_the_overview_never_overlap(wanted):
    placed = spread(wanted, 20.0, 100.0)
    assert all(10.0 <= position <= 90.0 for position in placed)
    assert all(b - a >= 20.0 - 1e-9 for a, b in itertools.pairwise(placed))


# -- the pictures of a finding --------------------------------------------------------------
def decoded(picture: Picture) -> np.ndarray:
    head, _, data = picture.uri.partition(",")
    assert head == "data:image/jpeg;base64"
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.shape == (picture.height, picture.width, 3)
    return pixels


@pytest.fixture(scope="module")
def rows():
    made = content(finding())
    return finding_rows(made, finding(), finding_boxes_mm(made)[1])


def test_a_finding_has_four_pictures_in_each_of_three_planes(rows):
    assert [row.label for row in rows] == ["axial", "coronal", "sagittal"]
    for row in rows:
        assert [picture.role for picture in row.pictures] == ["reference", "warped", "template", "overlay"]
        assert all(row.label in picture.alt and "finding 1" in picture.alt for picture in row.pictures)


def test_a_new_nodule_is_in_the_middle_of_the_reference_and_orange_on_the_overlay(rows):
    for row in rows:
        middle = {picture.role: decoded(picture)[144, 144].astype(int) for picture in row.pictures}
        assert middle["reference"].min() > 220
        assert middle["warped"].max() < 110
        assert middle["template"].max() < 110
        assert middle["overlay"][0] > middle["overlay"][2] + 80


def test_the_template_as_acquired_is_not_the_warped_one():
    made = content(finding())
    dense = np.full(made.template.grid.shape, 100, dtype=np.int16)
    made = replace(made, template=replace(made.template, array=dense))
    for row in finding_rows(made, finding(), finding_boxes_mm(made)[1]):
        middle = {picture.role: decoded(picture)[144, 144].astype(int) for picture in row.pictures}
        assert middle["template"].min() > 220
        assert middle["warped"].max() < 110


@pytest.mark.parametrize("told", [True, False], ids=["from the finding", "from the displacement"])
def test_the_template_is_cut_at_y_of_the_centre_on_its_own_grid(told):
    there = tuple(np.add(GONE_MM, SHIFT_MM)) if told else None
    gone = finding(kind="resolved", centre_mm=GONE_MM, centre_template_mm=there, peak_hu=-890.0)
    made = content(gone)
    for row in finding_rows(made, gone, finding_boxes_mm(made)[1]):
        pictures = {picture.role: decoded(picture).astype(int) for picture in row.pictures}
        assert pictures["template"][144, 144].min() > 220
        row_at, column_at = bright_centre(pictures["template"][60:228, 60:228])  # without letters and scale
        assert (row_at, column_at) == pytest.approx((0, 0), abs=0.03)
        assert pictures["overlay"][144, 144][2] > pictures["overlay"][144, 144][0] + 80


def test_the_picture_grows_with_the_finding():
    made = content(finding())
    assert field_mm(finding_boxes_mm(made)[1]) == 64.0
    assert field_mm(np.array([[0.0, 0.0, 0.0], [20.0, 90.0, 40.0]])) == 130.0  # 1.4 x 90, rounded up to 10


def test_the_box_holds_every_voxel_of_the_region():
    made = content(finding())
    low, high = finding_boxes_mm(made, margin_mm=3.0)[1]
    # voxel centres within 9 mm of NEW_MM, half a voxel, and the margin
    np.testing.assert_allclose(low, np.array(NEW_MM) - 9.0 - 3.0, atol=3.0)
    np.testing.assert_allclose(high, np.array(NEW_MM) + 9.0 + 3.0, atol=3.0)
    points = made.reference.grid.to_physical(np.argwhere(made.findings.labels == 1)[:, ::-1])
    assert (points > low + 3.0).all()
    assert (points < high - 3.0).all()


def test_untrusted_lung_is_hatched_and_trusted_lung_is_not():
    trust = np.ones((40, 36, 44), dtype=np.float32)
    trust[:, :, :22] = 0.2  # the patient's right
    signed = decoded(lung_rows(content(trust=trust))[1].pictures[2])
    grey = np.abs(signed.astype(int) - 200).max(axis=-1) < 25
    half = signed.shape[1] // 2
    assert grey[40:-60, 40 : half - 5].mean() > 0.1
    assert grey[40:-60, half + 5 : -40].mean() < 0.02


def test_a_picture_survives_its_encoding():
    pixels = np.zeros((64, 80, 3), dtype=np.uint8)
    pixels[:, 40:] = (255, 168, 40)
    picture = Picture("overlay", "", jpeg_uri(pixels), 80, 64)
    assert np.abs(decoded(picture).astype(int) - pixels)[:, [10, 70]].max() < 6
