"""Public data sets: small made-up files in exactly the published formats, and every trap that they hold."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.evaluation.cases import read_cases
from ChangeMapJointLib.evaluation.known import read_known
from ChangeMapJointLib.evaluation.public.dirlab import COPD, FOUR_D, read_dirlab_4dct, read_dirlab_copd
from ChangeMapJointLib.evaluation.public.learn2reg import read_learn2reg
from ChangeMapJointLib.evaluation.public.long_ct import read_long_ct
from ChangeMapJointLib.evaluation.public.longitudinal import read_autopet, read_longiseg
from ChangeMapJointLib.evaluation.public.luna25 import TABLE, read_luna25
from ChangeMapJointLib.evaluation.public.nodule_matching import link_detections, score_matching
from ChangeMapJointLib.evaluation.public.pairs import write_pair_tables
from ChangeMapJointLib.evaluation.result_folder import whole_folder
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.io.write import write_nrrd

RAS = np.array([[-2.0, 0, 0, 50], [0, -2.0, 0, 40], [0, 0, 3.0, -30], [0, 0, 0, 1]])  # as dcm2niix writes axial CT


def nifti(path, array, affine=RAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(array, np.int16), affine), path)


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        app(["cases", *map(str, arguments), "--progress", "none"])
    return end.value.code


def rows(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


# -- DIR-Lab -----------------------------------------------------------------------


@pytest.fixture
def dirlab(tmp_path):
    """Case 1 and 6 as their archives are laid out; voxel (x, y, z) from 1 of case 1 is bright at a landmark."""
    images = {}
    for case, folder, image, points in (
        (1, "ExtremePhases", "case1_{}_s.img", "Case1_300_{}_xyz.txt"),
        (6, "extremePhases", "case6_{}.img", "case6_dirLab300_{}_xyz.txt"),
    ):
        root = tmp_path / "4DCT" / f"Case{case}Pack"
        for phase, z in (("T00", 5), ("T50", 3)):
            array = np.full((6, 5, 4), 24, "<i2")  # HU -1000
            array[z - 1, 2 - 1, 3 - 1] = 1324
            (root / "Images").mkdir(parents=True, exist_ok=True)
            (root / folder).mkdir(exist_ok=True)
            array.tofile(root / "Images" / image.format(phase))
            (root / folder / points.format(phase)).write_text(f"3\t2\t{z}\n1\t1\t1\n4\t5\t6\n\n")
            images[case, phase] = array
    return tmp_path / "4DCT"


SMALL = {1: (4, 5, 6, 0.97), 6: (4, 5, 6, 0.97)}


def test_dirlab_landmarks_are_counted_from_1_and_lie_on_their_voxels_in_the_scan_that_is_written(dirlab, tmp_path):
    pairs = read_dirlab_4dct(dirlab, SMALL)
    assert [pair.name for pair in pairs] == ["4dct01", "4dct06"]
    write_pair_tables(pairs, tmp_path / "out")
    (first, _) = rows(tmp_path / "out" / "cases.csv")
    points = rows(tmp_path / "out" / first["landmarks"])
    array, grid = read_array(tmp_path / "out" / "scans" / "4dct01_reference.nrrd")
    assert (int(array.max()), int(array.min())) == (300, -1000)
    k, j, i = np.unravel_index(int(array.argmax()), array.shape)
    landmark = [float(points[0][name]) for name in ("rx", "ry", "rz")]
    assert grid.to_physical([i, j, k]) == pytest.approx(landmark, abs=1e-3)
    # slice 5 of 6, counted from the head, is the second from the feet; exhale moves it towards the head by 2 slices
    assert landmark == pytest.approx([2 * 0.97, 0.97, 2.5])
    assert float(points[0]["tz"]) - float(points[0]["rz"]) == pytest.approx(2 * 2.5)
    assert [float(points[1][n]) for n in ("rx", "ry", "rz")] == pytest.approx([0, 0, 5 * 2.5])
    (case, _) = read_cases(tmp_path / "out" / "cases.csv", results=False)
    assert len(read_known(case).points[0]) == 3


def test_dirlab_copd_names_its_phases_otherwise(tmp_path):
    folder = tmp_path / "copd1" / "copd1"
    folder.mkdir(parents=True)
    for phase in ("iBH", "eBH"):
        np.zeros(4 * 5 * 6, "<i2").tofile(folder / f"copd1_{phase}CT.img")
        (folder / f"copd1_300_{phase}_xyz_r1.txt").write_text("1\t1\t6\t\n")
    (pair,) = read_dirlab_copd(tmp_path, {1: (4, 5, 6, 0.625)})
    assert pair.points[0].tolist() == [[0.0, 0.0, 0.0]]
    assert pair.reference.path.name == "copd1_iBHCT.img"
    assert FOUR_D[1] == (256, 256, 94, 0.97)
    assert COPD[10] == (512, 512, 135, 0.742)
    assert len(FOUR_D) == len(COPD) == 10


def test_damaged_dirlab_files_are_one_clear_line(dirlab, tmp_path):
    path = dirlab / "Case1Pack" / "ExtremePhases" / "Case1_300_T50_xyz.txt"
    path.write_text("3\t2\t0\n1\t1\t1\n4\t5\t6\n")
    with pytest.raises(InputError, match=r"T50_xyz.txt: line 1: found .*expected voxel numbers from 1"):
        read_dirlab_4dct(dirlab, SMALL)
    path.write_text("3\t2\t3\n")
    with pytest.raises(InputError, match="case 1 has 3 and 1 landmarks"):
        read_dirlab_4dct(dirlab, SMALL)
    path.unlink()
    with pytest.raises(InputError, match="case 1 lacks the landmarks of T50"):
        read_dirlab_4dct(dirlab, SMALL)
    for unused in (dirlab / "Case1Pack").rglob("*_xyz.txt"):
        unused.unlink()
    with pytest.raises(InputError, match=r"has 240 bytes, expected 33554432|has 240 bytes, expected"):
        write_pair_tables(read_dirlab_4dct(dirlab), tmp_path / "out")  # as the published sizes have it
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


# -- Learn2Reg ----------------------------------------------------------------------


def test_learn2reg_keypoints_are_indices_from_0_along_the_axes_of_the_file(tmp_path):
    for n, shift in ((0, 0), (1, 1)):
        nifti(tmp_path / f"imagesTr/NLST_0001_000{n}.nii.gz", np.zeros((6, 7, 8)))
        nifti(tmp_path / f"masksTr/NLST_0001_000{n}.nii.gz", np.ones((6, 7, 8)))
        keypoints = tmp_path / f"keypointsTr/NLST_0001_000{n}.csv"
        keypoints.parent.mkdir(exist_ok=True)
        keypoints.write_text(f"0,0,0\n1.5,2,{3 + shift}\n")
    pair = {"fixed": "./imagesTr/NLST_0001_0000.nii.gz", "moving": "./imagesTr/NLST_0001_0001.nii.gz"}
    (tmp_path / "NLST_dataset.json").write_text(json.dumps({"name": "NLST", "training_paired_images": [pair]}))
    (found,) = read_learn2reg(tmp_path)
    # RAS (50, 40, -30) is LPS (-50, -40, -30), and x and y of the file run to the left and to the back
    assert found.points[0].tolist() == [[-50, -40, -30], [-47, -36, -21]]
    assert found.points[1][1].tolist() == [-47, -36, -18]
    assert run("learn2reg", tmp_path, "--out", tmp_path / "out") == 0
    (case,) = read_cases(tmp_path / "out" / "cases.csv", results=False)
    known = read_known(case)
    assert known.lungs_reference.array.all()
    assert known.points[0].shape == (2, 3)
    (row,) = rows(tmp_path / "out" / "pairs.csv")
    assert row["reference"].endswith("imagesTr/NLST_0001_0000.nii.gz")
    (tmp_path / "keypointsTr/NLST_0001_0000.csv").write_text("6,0,0\n")
    with pytest.raises(InputError, match="holds points outside the scan"):
        read_learn2reg(tmp_path)
    assert run("learn2reg", tmp_path / "none", "--out", tmp_path / "out2") == 2


# -- NLST-New-Lesion-LongCT ----------------------------------------------------------


def test_longct_points_belong_to_the_follow_up_that_the_registered_prior_names(tmp_path):
    patient = tmp_path / "pkg" / "100012"
    for folder, names in {"01-02-1999-T0": ("2-11111",), "01-02-2000-T1": ("3-22222", "3-22222_rs")}.items():
        for name in names:
            nifti(patient / folder / f"{name}.nii.gz", np.zeros((6, 7, 8)))
    for number, voxels in ((1, [(2, 3, 4)]), (2, [(0, 0, 0), (0, 0, 2)])):
        point = np.zeros((6, 7, 8))
        point[tuple(zip(*voxels, strict=True))] = 1
        nifti(patient / "01-02-2000-T1" / f"point_{number}.nii.gz", point)
    nifti(patient / "register_Byr0_FUyr1" / "2-11111_3-22222.nii.gz", np.zeros((6, 7, 8)))
    (pair,) = read_long_ct(tmp_path)
    assert (pair.patient, pair.days) == ("100012", 365.0)
    assert (pair.template.name, pair.reference.name) == ("2-11111.nii.gz", "3-22222.nii.gz")
    assert [lesion.centre_mm for lesion in pair.lesions] == [(-46.0, -34.0, -18.0), (-50.0, -40.0, -27.0)]
    assert run("nlst-new-lesion-longct", tmp_path, "--out", tmp_path / "out") == 0
    (case,) = read_cases(tmp_path / "out" / "cases.csv", results=False)
    changes = read_known(case).changes
    assert [(c.lesion.kind, c.lesion.diameter_reference_mm, c.centre_mm) for c in changes] == [
        ("new", 10.0, (-46.0, -34.0, -18.0)),
        ("new", 10.0, (-50.0, -40.0, -27.0)),
    ]
    (patient / "01-02-1999-T0" / "2-11111.nii.gz").unlink()
    with pytest.raises(InputError, match="names two CTs that are not there"):
        read_long_ct(tmp_path)


# -- LUNA25 --------------------------------------------------------------------------

LUNA = """PatientID,SeriesInstanceUID,StudyDate,CoordX,CoordY,CoordZ,LesionID,AnnotationID,NoduleID,label,\
Age_at_StudyDate,Gender
100570,1.2.1,19990102,10.5,-20,-100,1,100570_1_19990102,100570_1,0,61,Male
100570,1.2.1,19990102,-50,0,-80,2,100570_2_19990102,100570_2,1,61,Male
100570,1.2.2,20000102,12.5,-20,-104,1,100570_1_20000102,100570_1,0,62,Male
100570,1.2.2,20000102,70,5,-60,3,100570_3_20000102,100570_3,0,62,Male
100571,1.2.3,19990102,1,2,3,1,100571_1_19990102,100571_1,0,70,Female
"""


def test_luna25_nodules_are_followed_by_their_id_through_the_exams(tmp_path):
    (tmp_path / TABLE).write_text(LUNA)
    (tmp_path / "luna25_images").mkdir()
    for uid in ("1.2.1", "1.2.2"):
        (tmp_path / "luna25_images" / f"{uid}.mha").write_bytes(b"")
    (pair,) = read_luna25(tmp_path)
    assert (pair.name, pair.days) == ("100570_19990102_20000102", 365.0)
    assert pair.reference.name == "1.2.2.mha"
    assert pair.points[0].tolist() == [[12.5, -20, -104]]
    assert pair.points[1].tolist() == [[10.5, -20, -100]]
    assert run("luna25", tmp_path, "--out", tmp_path / "out") == 0
    nodules = rows(tmp_path / "out" / "nodules.csv")
    assert [(n["nodule"], bool(n["rx"]), bool(n["tx"])) for n in nodules] == [
        ("100570_1", True, True),
        ("100570_2", False, True),
        ("100570_3", True, False),
    ]
    (tmp_path / TABLE).write_text(LUNA.replace("19990102,10.5", "1999,10.5"))
    with pytest.raises(InputError, match=r"line 2: .*expected StudyDate as YYYYMMDD"):
        read_luna25(tmp_path)
    (tmp_path / TABLE).write_text(LUNA.replace("NoduleID", "Nodule"))
    with pytest.raises(InputError, match="found no column NoduleID"):
        read_luna25(tmp_path)


def test_nodules_are_matched_over_time_only_where_detected_in_both_and_linked(tmp_path):
    (tmp_path / TABLE).write_text(LUNA.replace("100570_2_20000102,100570_3", "100570_3_20000102,100570_3"))
    (tmp_path / "luna25_images").mkdir()
    for uid in ("1.2.1", "1.2.2"):
        (tmp_path / "luna25_images" / f"{uid}.mha").write_bytes(b"")
    (pair,) = read_luna25(tmp_path)
    now, before = np.array([[12.0, -20, -104], [70, 5, -60]]), np.array([[-50.0, 0, -80], [10, -21, -100]])
    links = link_detections(now, before, lambda points: points + np.array([-2.0, 0, 4]))
    assert links == {(0, 1)}
    score = score_matching(pair.nodules, now, before, links)
    assert (score.nodules, score.detected, score.matched, score.wrong_links, score.rate) == (1, 1, 1, 0, 1.0)
    crossed = score_matching(pair.nodules, now, before, frozenset({(0, 0), (1, 1)}))
    assert (crossed.matched, crossed.wrong_links) == (0, 2)
    missed = score_matching(pair.nodules, now[1:], before, frozenset())
    assert (score + missed).rate == 0.5


# -- labels over time ------------------------------------------------------------------


def labels(*spots):
    array = np.zeros((20, 20, 20))
    for (x, y, z), label in spots:
        array[x : x + 3, y : y + 3, z : z + 3] = label
    return array


def test_longiseg_lesions_keep_their_label_and_those_that_merged_get_one(tmp_path):
    for scan, array in {
        "p_0": labels(((1, 1, 1), 1), ((8, 8, 8), 2), ((8, 12, 8), 3), ((1, 15, 1), 4)),
        "p_1": labels(((1, 1, 1), 1), ((8, 10, 8), 3), ((15, 1, 15), 5)),
    }.items():
        nifti(tmp_path / f"imagesTr/{scan}_0000.nii.gz", np.zeros((20, 20, 20)))
        nifti(tmp_path / f"labelsTr/{scan}.nii.gz", array)
    (tmp_path / "patientsTr.json").write_text(json.dumps({"p": ["p_0", "p_1"]}))
    link = {"img_bl": "p_0", "img_fu": "p_1", "bl_point": [9, 9, 9], "fu_point": [9, 11, 9]}
    tracked = {"1": [1], "2": [3], "3": [3], "4": [0]}
    (tmp_path / "trackingTr.json").write_text(
        json.dumps({"p": {number: {**link, "merged_lesions": became} for number, became in tracked.items()}})
    )
    (pair,) = read_longiseg(tmp_path)
    assert "merged" in pair.notes[0]
    assert run("longiseg", tmp_path, "--out", tmp_path / "out") == 0
    (case,) = read_cases(tmp_path / "out" / "cases.csv", results=False)
    kinds = {known.lesion.id: known.lesion.kind for known in read_known(case).lesions}
    assert kinds == {1: "stable", 2: "shrunk", 4: "resolved", 5: "new"}  # 2 and 3 together became one
    (tmp_path / "labelsTr/p_1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"p_1.nii.gz: no such file"):
        read_longiseg(tmp_path)


AUTOPET = """lesion_id,cog_bl,cog_backpropagated,img_id_bl,cog_propagated,cog_fu,img_id_fu,lesion_type,topology_class,\
merged_into,linking_unclear
1,2 2 2,,0,2 2 2,2 2 2,0,Lung,UNCHANGED,,False
2,9 9 9,,0,9 9 9,9 11 9,0,Lung,MERGING,3,False
3,9 13 9,,0,9 13 9,9 11 9,0,Lung,UNCHANGED,,True
5,,15 1 15,0,,16 2 16,0,Liver,NEWLYAPPEARING,,False
"""


def test_autopet_pairs_body_regions_by_the_table_and_merges_what_merged(tmp_path):
    before = labels(((1, 1, 1), 1), ((8, 8, 8), 2), ((8, 12, 8), 3))
    after = labels(((1, 1, 1), 1), ((8, 10, 8), 3), ((15, 1, 15), 5))
    nifti(tmp_path / "inputsTr/c6f057b865_BL_img_00.nii.gz", np.zeros((20, 20, 20)))
    nifti(tmp_path / "inputsTr/c6f057b865_FU_img_00.nii.gz", np.zeros((20, 20, 20)))
    nifti(tmp_path / "inputsTr/c6f057b865_BL_mask_00.nii.gz", before)
    nifti(tmp_path / "targetsTr/c6f057b865_FU_mask_00.nii.gz", after)
    (tmp_path / "inputsTr/c6f057b865.csv").write_text(AUTOPET)
    (pair,) = read_autopet(tmp_path)
    assert pair.reference.name == "c6f057b865_FU_img_00.nii.gz"
    assert any("not sure which lesion is which: 3" in note for note in pair.notes)
    write_pair_tables([pair], tmp_path / "out")
    (case,) = read_cases(tmp_path / "out" / "cases.csv", results=False)
    assert {k.lesion.id: k.lesion.kind for k in read_known(case).lesions} == {1: "stable", 2: "shrunk", 5: "new"}
    (tmp_path / "inputsTr/c6f057b865.csv").write_text(AUTOPET.replace("img_id_fu", "fu"))
    with pytest.raises(InputError, match="found no column img_id_fu"):
        read_autopet(tmp_path)


def test_tables_never_replace_a_folder(tmp_path):
    write_nrrd(tmp_path / "kept.nrrd", np.zeros((2, 2, 2), np.int16), Grid((2, 2, 2)))
    with pytest.raises(InputError, match="exists already"):
        write_pair_tables([], tmp_path)
    assert (tmp_path / "kept.nrrd").exists()


def test_files_that_appear_while_a_folder_is_filled_are_kept(tmp_path):
    out = tmp_path / "tables"

    def fill():
        with whole_folder(out) as part:
            (part / "cases.csv").write_text("new", "utf-8")
            out.mkdir()
            (out / "thesis.txt").write_text("years", "utf-8")

    with pytest.raises(InputError, match="appeared meanwhile"):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]
    assert (out / "thesis.txt").read_text("utf-8") == "years"
