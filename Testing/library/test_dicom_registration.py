"""The registration objects as SlicerRT reads them into 3D Slicer, by the steps of its vtkSlicerDicomSroReader.

It takes the offsets as they are, in RAS, on a grid with the orientation of the header, and makes a grid transform of
them; of a rigid registration it multiplies all matrices. It writes the direction of a row into the first *row* of the
grid's directions, so that a tilted grid comes out turned the other way round; with an upright one both are the same.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from export_samples import quality
from phantoms import IDENTITY3, centred_grid, dicom_slices, rotation, save_slices, voxel_points

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("highdicom", reason="highdicom, of the extra dicom, is not installed")

import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import apply_affine, lps_to_ras
from ChangeMapJointLib.export.dicom.content import DicomContent
from ChangeMapJointLib.export.dicom.registration import deformable_registration, spatial_registration
from ChangeMapJointLib.gate.answer import ALL_FINE
from ChangeMapJointLib.io.dicom.images import read_source_images
from ChangeMapJointLib.scan.volume import Volume

TO_RAS = np.diag([-1.0, -1.0, 1.0])


def content_of(folder: Path, direction) -> DicomContent:
    """Two series of noise, and a smooth motion of 9 to 15 mm between them."""
    grid = centred_grid((12, 14, 16), (3.0, 3.0, 4.0), direction=direction)
    noise = Volume(np.random.default_rng(0).integers(-900, 100, grid.shape).astype(np.int16), grid)
    scans = [read_source_images(save_slices(folder / name, dicom_slices(noise))) for name in ("current", "prior")]
    phase = voxel_points(grid) / 20.0
    u = np.stack((7 + 2 * np.sin(phase[..., 2]), -4 + 2 * np.cos(phase[..., 0]), 11 + np.sin(phase[..., 1])), -1)
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = rotation(4.0, -2.0, 3.0), (7.0, -4.0, 11.0)
    field = DisplacementField(u.astype(np.float32), grid)
    now = datetime(2026, 1, 1)
    return DicomContent(*scans, "1", now, {}, quality(), ALL_FINE, rigid, grid, displacement=field)


def slicer_transform(dataset, *, turned: bool) -> slicer.vtkOrientedGridTransform:
    """The grid transform; ``turned`` puts directions into rows, as SlicerRT does."""
    grid = dataset.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
    row, column = np.reshape([float(v) for v in grid.ImageOrientationPatient], (2, 3))
    axes = np.stack((row, column, np.cross(row, column)), 0 if turned else 1)
    offsets = np.frombuffer(grid.VectorGridData, "<f4").reshape(-1, 3).astype(float) @ TO_RAS
    image = vtk.vtkImageData()
    image.SetDimensions(*map(int, grid.GridDimensions))
    image.SetSpacing(*map(float, grid.GridResolution))
    image.SetOrigin(*(TO_RAS @ [float(v) for v in grid.ImagePositionPatient]))
    image.GetPointData().SetScalars(numpy_to_vtk(offsets, deep=True))
    matrix = vtk.vtkMatrix4x4()
    for i, j in np.ndindex(3, 3):
        matrix.SetElement(i, j, (TO_RAS @ axes)[i, j])
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetGridDirectionMatrix(matrix)
    transform.SetInterpolationModeToLinear()
    return transform


@pytest.mark.parametrize(("direction", "turned"), [(IDENTITY3, True), (rotation(8.0, -5.0, 12.0), False)])
def test_displacement_in_slicer_is_y(tmp_path, direction, turned):
    content = content_of(tmp_path, direction)
    transform = slicer_transform(deformable_registration(content), turned=turned)
    index = np.random.default_rng(1).uniform(0.0, (15.0, 13.0, 11.0), (200, 3))
    points = content.grid.to_physical(index)
    moved = np.array([transform.TransformPoint(*lps_to_ras(point)) for point in points])
    expected = content.displacement.apply(points) @ TO_RAS
    np.testing.assert_allclose(moved, expected, atol=0.01)


def test_the_matrix_in_slicer_moves_the_prior_to_the_current_scan(tmp_path):
    content = content_of(tmp_path, IDENTITY3)
    product = np.eye(4)
    for item in spatial_registration(content).RegistrationSequence:
        (step,) = item.MatrixRegistrationSequence[0].MatrixSequence
        product = product @ np.reshape([float(v) for v in step.FrameOfReferenceTransformationMatrix], (4, 4))
    points = np.random.default_rng(2).uniform(-150, 150, (50, 3))
    np.testing.assert_allclose(apply_affine(product, apply_affine(content.rigid, points)), points, atol=1e-6)
