"""Closed-form chest phantoms, and DICOM series made of them, for the tests.

Every phantom is a function of physical points, so a moved, oblique or coarser scan of the same
"patient" is exact: nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import IDENTITY3, FloatArray, Grid, Matrix3, Shape3, Vector3
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.scan.volume import Volume

AIR_HU, BODY_HU, LUNG_HU, BONE_HU, TABLE_HU = -1000.0, 40.0, -850.0, 400.0, 100.0
BODY_SEMIAXES_MM = (150.0, 100.0)  # x, y; a cylinder along z
LUNG_CENTRES_MM = ((-70.0, -5.0, 0.0), (70.0, -5.0, 0.0))  # the patient's right, left
LUNG_SEMIAXES_MM = (50.0, 65.0, 95.0)
LUNG_VOLUME_ML = 4.0 / 3.0 * np.pi * 50.0 * 65.0 * 95.0 / 1000.0  # of one lung
TRACHEA_AXIS_MM, TRACHEA_RADIUS_MM, TRACHEA_BOTTOM_MM = (0.0, -10.0), 9.0, 20.0
VERTEBRA_AXIS_MM, VERTEBRA_RADIUS_MM = (0.0, 55.0), 18.0
SHAPE: Shape3 = (7, 6, 5)  # of a random scan
SPACING_MM: Vector3 = (0.7, 0.8, 1.25)
ORIGIN_MM: Vector3 = (-12.0, 30.5, -700.25)


@dataclass(frozen=True)
class Sphere:
    """A lesion: everything within ``radius_mm`` of ``centre_mm`` (LPS) has ``hu``."""

    centre_mm: Vector3
    radius_mm: float
    hu: float = 40.0


def chest_hu(
    points_mm: NDArray[np.generic], *, lesions: Iterable[Sphere] = (), edge_mm: float = 0.0, table: bool = True
) -> FloatArray:
    """HU of the chest at physical points ``[..., 3]`` (LPS; the middle of the chest is at 0, 0, 0).

    Args:
        points_mm: where.
        lesions: spheres laid over the anatomy, in order.
        edge_mm: width over which a structure passes linearly into the next; 0 gives sharp edges.
        table: with the table under the back.
    """
    x, y, z = np.moveaxis(np.asarray(points_mm, dtype=float), -1, 0)
    parts: list[tuple[FloatArray, float]] = []  # approximate signed distance (negative inside), HU
    if table:
        parts.append((np.maximum(np.abs(x) - 180.0, np.abs(y - 117.0) - 5.0), TABLE_HU))
    a, b = BODY_SEMIAXES_MM
    parts.append(((np.hypot(x / a, y / b) - 1.0) * min(a, b), BODY_HU))
    for cx, cy, cz in LUNG_CENTRES_MM:
        sx, sy, sz = LUNG_SEMIAXES_MM
        radius = np.sqrt(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2 + ((z - cz) / sz) ** 2)
        parts.append(((radius - 1.0) * min(LUNG_SEMIAXES_MM), LUNG_HU))
    tube = np.hypot(x - TRACHEA_AXIS_MM[0], y - TRACHEA_AXIS_MM[1]) - TRACHEA_RADIUS_MM
    parts.append((np.maximum(tube, TRACHEA_BOTTOM_MM - z), AIR_HU))
    parts.append((np.hypot(x - VERTEBRA_AXIS_MM[0], y - VERTEBRA_AXIS_MM[1]) - VERTEBRA_RADIUS_MM, BONE_HU))
    for lesion in lesions:
        distance = np.linalg.norm(np.stack((x, y, z), -1) - np.asarray(lesion.centre_mm), axis=-1)
        parts.append((distance - lesion.radius_mm, lesion.hu))
    hu = np.full(x.shape, AIR_HU)
    for distance, value in parts:
        weight = (distance <= 0).astype(float) if edge_mm == 0 else np.clip(0.5 - distance / edge_mm, 0.0, 1.0)
        hu += weight * (value - hu)
    return hu


def centred_grid(
    shape: Shape3, spacing_mm: Vector3, *, centre_mm: Vector3 = (0.0, 0.0, 0.0), direction: Matrix3 = IDENTITY3
) -> Grid:
    """A grid of ``shape`` (z, y, x) whose middle is at ``centre_mm``."""
    middle = (np.array(shape[::-1]) - 1) / 2 * np.asarray(spacing_mm)
    x, y, z = (float(v) for v in np.asarray(centre_mm) - np.asarray(direction) @ middle)
    return Grid(shape, spacing_mm, (x, y, z), direction)


def voxel_points(grid: Grid) -> FloatArray:
    """Physical positions ``[z, y, x, 3]`` of every voxel."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return grid.to_physical(np.stack((i, j, k), -1))


def chest_phantom(
    shape: Shape3 = (40, 52, 72),
    spacing_mm: Vector3 = (5.0, 5.0, 5.0),
    *,
    grid: Grid | None = None,
    lesions: Iterable[Sphere] = (),
    moved: Callable[[FloatArray], NDArray[np.generic]] | None = None,
    edge_mm: float = 0.0,
    noise_hu: float = 0.0,
    seed: int = 0,
    table: bool = True,
) -> Volume:
    """A CT of the phantom chest: int16 HU.

    Args:
        shape: numbers of voxels (z, y, x); ignored when ``grid`` is given.
        spacing_mm: voxel size (x, y, z); ignored when ``grid`` is given.
        grid: where to scan; centred on the chest by default.
        lesions: spheres laid over the anatomy.
        moved: map of physical points ``[..., 3]``: the scan shows ``chest(moved(x))`` at x.
        edge_mm: see :func:`chest_hu`.
        noise_hu: standard deviation of white noise.
        seed: of the noise.
        table: with the table under the back.
    """
    grid = grid or centred_grid(shape, spacing_mm)
    points = voxel_points(grid)
    hu = chest_hu(points if moved is None else moved(points), lesions=lesions, edge_mm=edge_mm, table=table)
    if noise_hu:
        hu = hu + np.random.default_rng(seed).normal(0.0, noise_hu, hu.shape)
    return Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), grid, Path("phantom"))


def rotation(x_deg: float, y_deg: float, z_deg: float) -> Matrix3:
    """Direction cosines of an oblique scan: rotations about z, then y, then x."""
    a, b, c = np.radians((x_deg, y_deg, z_deg))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    first, second, third = (about_x @ about_y @ about_z).tolist()
    return tuple(first), tuple(second), tuple(third)


def random_scan(direction: Matrix3 = IDENTITY3, shape: Shape3 = SHAPE, seed: int = 1) -> Volume:
    """Random HU on a small anisotropic grid: any slice, row or column in the wrong place shows."""
    hu = np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)
    return Volume(hu, Grid(shape, SPACING_MM, ORIGIN_MM, direction))


def assert_same_scan(found: Volume, expected: Volume) -> None:
    """The same int16 voxels at the same places."""
    assert found.array.dtype == np.int16
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.grid.same_as(expected.grid, tolerance_mm=1e-5)


def input_error(path: Path | str) -> str:
    """The message with which ``path`` is refused as a scan; one line that names the path."""
    with pytest.raises(InputError) as caught:
        read_volume(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path).rpartition("#")[0] in text
    return text


def dicom_slices(volume: Volume, *, slope: float = 1.0, intercept: float = -1024.0, **tags: object) -> list[Dataset]:
    """One CT Image dataset a slice, in order of position; ``tags`` overwrite or add elements by keyword.

    Pixels are unsigned 16 bit with ``HU = slope * stored + intercept``.
    """
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    datasets = []
    for k in range(volume.grid.shape[0]):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.PatientID, ds.PatientName = "P-001", "Doe^Jane"
        ds.AcquisitionDate, ds.SeriesNumber, ds.InstanceNumber = "20240131", 3, k + 1
        ds.SeriesDescription, ds.ConvolutionKernel, ds.Manufacturer = "Thorax 1.0", "I50f", "Phantoms Ltd"
        direction = np.asarray(volume.grid.direction)
        ds.ImageOrientationPatient = _decimals([*direction[:, 0], *direction[:, 1]])
        ds.ImagePositionPatient = _decimals(volume.grid.to_physical((0, 0, k)))
        ds.PixelSpacing = _decimals([volume.grid.spacing_mm[1], volume.grid.spacing_mm[0]])
        ds.SliceThickness = _decimals([volume.grid.spacing_mm[2]])[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
        set_pixels(ds, np.rint((volume.array[k] - intercept) / slope).astype(np.uint16))
        for keyword, value in tags.items():
            setattr(ds, keyword, value)
        datasets.append(ds)
    return datasets


def set_pixels(ds: Dataset, stored: NDArray[np.generic]) -> None:
    """Put a 16-bit picture of stored values into a dataset."""
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    ds.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"


def save_slices(folder: Path, datasets: Sequence[Dataset], *, seed: int | None = 0, suffix: str = ".dcm") -> Path:
    """Write the datasets as files with numbers for names, shuffled unless ``seed`` is None; gives ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(datasets))
    if seed is not None:
        np.random.default_rng(seed).shuffle(numbers)
    start = len(list(folder.iterdir()))
    for number, ds in zip(numbers, datasets, strict=True):
        ds.save_as(folder / f"{start + number:04d}{suffix}", enforce_file_format=True)
    return folder


def write_dicom(folder: Path, volume: Volume, **tags: object) -> Path:
    """A whole DICOM series of ``volume`` in ``folder``; the files' order says nothing."""
    return save_slices(folder, dicom_slices(volume, **tags))  # type: ignore[arg-type]


def _decimals(values: Iterable[float]) -> list[str]:
    """DICOM decimal strings hold 16 characters."""
    return [f"{value:.10f}"[:16] for value in values]
