"""The rigid gate on a piece of a real CT: what it says does not depend on the voxels."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from phantoms import rotation
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.registration.rigid.align import align_scans, prepare
from ChangeMapJointLib.registration.rigid.same_chest import compare_structures
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions, chest_problem
from ChangeMapJointLib.registration.rigid.working_scan import WorkingScan
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

OPTIONS = RigidOptions(starts=1)  # the pieces lie on each other but for a few mm
SPACINGS_MM = (1.0, 1.5, 1.75, 2.0, 2.5, 3.0)
BOX = ((45, 40, 15), (145, 140, 105))  # of the template of the sample pair: most of the right lung
LUNG_HU = -500


@cache
def piece(side: str = "right") -> tuple[NDArray[np.int16], NDArray[np.bool_], Grid]:
    """HU, lung and grid of a box round one lung, vessels in the lung."""
    volume = read_volume(resource("SamplePair", "template.nrrd"))
    start, stop = (np.array(corner) for corner in BOX)
    if side == "left":
        width = volume.array.shape[2]
        start[2], stop[2] = width - stop[2], width - start[2]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    hu = volume.array[box]
    lung = ndimage.binary_closing(np.pad(hu < LUNG_HU, 4), iterations=4)[4:-4, 4:-4, 4:-4]
    labels, _ = ndimage.label(lung)
    lung = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return hu.astype(np.int16), lung, volume.grid.crop(start, stop)


def working(
    spacing_mm: Vector3, *, side: str = "right", pose: FloatArray | None = None, mirrored: bool = False
) -> WorkingScan:
    """The piece on voxels of another size, interpolated as most tools do it, ready to be aligned."""
    hu, lung, grid = piece(side)
    if mirrored:
        hu, lung = hu[:, :, ::-1], lung[:, :, ::-1]
    target = grid.with_spacing(spacing_mm)
    matrix = None if pose is None else np.linalg.inv(pose)
    array = np.rint(resample(hu, grid, target, matrix=matrix, outside=-1024)).astype(np.int16)
    lungs = resample(lung, grid, target, matrix=matrix) > 0.5
    return prepare(Scan.of(Volume(array, target), lungs), "scan", OPTIONS)


def moved() -> FloatArray:
    """A patient who lies a little otherwise."""
    centre = np.asarray(piece()[2].centre_mm)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(3.0, -2.0, 4.0)
    matrix[:3, 3] = centre + np.array([4.0, -6.0, 5.0]) - matrix[:3, :3] @ centre
    return matrix


def vessels(ours: WorkingScan, theirs: WorkingScan, pose: FloatArray | None = None) -> float:
    """The figure that pairs are accepted by, at the place where they lie on each other."""
    centre = ours.lung_points_mm().mean(axis=0)
    found = compare_structures(ours, theirs, np.eye(4) if pose is None else pose, centre, OPTIONS.margin_mm).vessels
    assert found is not None
    return found


def cube(spacing_mm: float) -> Vector3:
    return (spacing_mm, spacing_mm, spacing_mm)


def test_a_patient_agrees_alike_at_every_voxel_size() -> None:
    found = [vessels(working(cube(h)), working(cube(h), pose=moved()), moved()) for h in SPACINGS_MM]
    assert min(found) > OPTIONS.warn_below + 0.3
    assert max(found) - min(found) < 0.03


def test_a_mirrored_prior_stays_below_the_bar_at_every_voxel_size() -> None:
    found = [vessels(working(cube(h)), working(cube(h), mirrored=True)) for h in SPACINGS_MM]
    assert max(found) < OPTIONS.refuse_below - 0.2
    assert max(found) - min(found) < 0.05


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0])
def test_another_lung_stays_below_the_bar(spacing_mm: float) -> None:
    stranger = working(cube(spacing_mm), side="left", mirrored=True)  # of the outline of a right lung
    right, other = (scan.grid.centre_mm for scan in (working(cube(spacing_mm)), stranger))
    pose = np.eye(4)
    pose[:3, 3] = np.subtract(other, right)
    assert vessels(working(cube(spacing_mm)), stranger, pose) < OPTIONS.refuse_below - 0.2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((1.5, 1.5, 1.5), (1.0, 1.0, 5.0)), ((2.0, 2.0, 5.0), (2.0, 2.0, 2.0)), ((1.5, 1.5, 5.0), (1.5, 1.5, 5.0))],
)
def test_thick_slices(ours: Vector3, theirs: Vector3) -> None:
    reference = working(ours)
    assert vessels(reference, working(theirs, pose=moved()), moved()) > OPTIONS.warn_below + 0.2
    assert vessels(reference, working(theirs, mirrored=True)) < OPTIONS.refuse_below - 0.1


def test_the_whole_alignment_at_the_voxels_that_let_strangers_pass() -> None:
    right = align_scans(working(cube(2.0)), working(cube(2.0), pose=moved()), options=OPTIONS)
    assert right is not None
    assert right.rotation_deg == pytest.approx(5.4, abs=0.3)
    assert not chest_problem(right.similarity, right.wall_similarity, OPTIONS)
    wrong = align_scans(working(cube(2.0)), working(cube(2.0), mirrored=True), options=OPTIONS)
    assert wrong is not None
    assert chest_problem(wrong.similarity, wrong.wall_similarity, OPTIONS)
