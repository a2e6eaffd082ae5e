"""A cohort of three tiny pairs whose every figure can be worked out on paper; see ``test_evaluation.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.write import write_nrrd

GRID = Grid((10, 10, 40))  # voxels of 1 mm: 0.001 ml


def bar(first: int, last: int) -> tuple[slice, slice, slice]:
    """2 x 2 voxels across, from ``first`` to ``last`` along x."""
    return slice(2, 4), slice(2, 4), slice(first, last + 1)


def write_labels(path: Path, *bars: tuple[int, int, int]) -> None:
    """A label map of (label, first, last)."""
    labels = np.zeros(GRID.shape, np.uint8)
    for label, first, last in bars:
        labels[bar(first, last)] = label
    write_nrrd(path, labels, GRID)


def write_cohort(folder: Path) -> Path:
    """Three patients: a new and a grown lesion, a resolved one, and none; the table of cases."""
    # A: lesion 1 is new (16 voxels), lesion 2 has grown from 16 to 32 voxels
    write_labels(folder / "a_now.nrrd", (1, 2, 5), (2, 20, 27))
    write_labels(folder / "a_before.nrrd", (2, 20, 23))
    change = np.zeros(GRID.shape, np.float32)
    change[bar(2, 5)] = 0.9  # lesion 1
    change[bar(24, 27)] = 0.5  # what lesion 2 gained
    change[8, 8, 30:36] = 0.7  # false: six voxels
    change[6, 6, 30:34] = 0.95  # four voxels: dropped
    write_nrrd(folder / "a_map.nrrd", change, GRID)
    # B: lesion 1 (16 voxels) is gone; one region fills the whole map
    write_labels(folder / "b_now.nrrd")
    write_labels(folder / "b_before.nrrd", (1, 10, 13))
    write_nrrd(folder / "b_map.nrrd", np.full(GRID.shape, 0.8, np.float32), GRID)
    # C: nothing changed; one false region of five voxels
    change = np.zeros(GRID.shape, np.float32)
    change[5, 5, 5:10] = 0.7
    write_nrrd(folder / "c_map.nrrd", change, GRID)
    write_nrrd(folder / "zero.nrrd", np.zeros(GRID.shape, np.float32), GRID)

    points = "rx,ry,rz,tx,ty,tz\n5,5,5,5,5,5\n30,5,5,30,5,5\n"  # nothing moved
    (folder / "points.csv").write_text(points)
    (folder / "stays.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (folder / "off.txt").write_text("1 0 0 1\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")  # by 1 mm
    head = "id,kind,centre_x_mm,centre_y_mm,centre_z_mm,reference_volume_ml,template_volume_ml\n"
    (folder / "a_list.csv").write_text(
        f"{head}1,new,3.5,2.5,2.5,0.016,\n2,grown,25.5,2.5,2.5,0.024,0.016\n3,new,38,9,9,,\n"
    )
    (folder / "empty_list.csv").write_text(head)
    table = folder / "cases.csv"
    table.write_text(
        "case,patient,days,null,lesions_reference,lesions_template,landmarks,method,map,deformation,findings,seconds\n"
        "a,A,100,,a_now.nrrd,a_before.nrrd,points.csv,ours,a_map.nrrd,stays.txt,a_list.csv,10\n"
        "b,B,,,b_now.nrrd,b_before.nrrd,points.csv,ours,b_map.nrrd,off.txt,empty_list.csv,20\n"
        "c,C,,yes,,,,ours,c_map.nrrd,,empty_list.csv,60\n"
        "a,,,,,,,blind,zero.nrrd,,,\nb,,,,,,,blind,zero.nrrd,,,\nc,,,,,,,blind,zero.nrrd,,,\n"
    )
    return table
