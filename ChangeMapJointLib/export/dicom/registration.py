"""Spatial Registration of the rigid part and Deformable Spatial Registration of y.

The two objects go in opposite directions, by PS3.3 C.20.2.1.1 and C.20.3.1.1. A Spatial Registration takes points of
the moved data (the prior) *to* the registered frame of reference (the current scan's), so it holds the inverse of the
rigid matrix. A Deformable Spatial Registration takes points *of* the registered frame to the source frame, where the
prior is sampled; that is y, and its grid holds u.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DeformableSpatialRegistrationStorage, SpatialRegistrationStorage

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.export.dicom import codes
from ChangeMapJointLib.export.dicom.content import RESEARCH, DicomContent, finish
from ChangeMapJointLib.export.dicom.references import references, series_reference
from ChangeMapJointLib.io.dicom.images import SourceImages


def spatial_registration(content: DicomContent) -> Dataset:
    """Return the Spatial Registration of the rigid part: prior to current."""
    result = _registration(content, "rigid", 2, SpatialRegistrationStorage)
    result.ContentLabel = "RIGID"
    moved: FloatArray = np.linalg.inv(content.rigid).astype(np.float64)
    result.RegistrationSequence = [
        _rigid_item(content.reference, np.eye(4)),
        _rigid_item(content.template, moved),
    ]
    finish(content, result, "Registration, rigid")
    return result


def deformable_registration(content: DicomContent) -> Dataset | None:
    """Return the Deformable Spatial Registration of y; None with method ``rigid``."""
    if content.displacement is None:
        return None
    result = _registration(content, "deformation", 3, DeformableSpatialRegistrationStorage)
    result.ContentLabel = "DEFORMATION"
    item = Dataset()
    item.SourceFrameOfReferenceUID = content.template.frame_of_reference
    item.ReferencedImageSequence = references(content.template.images)
    item.RegistrationTypeCodeSequence = [codes.IMAGE_CONTENT]
    item.DeformableRegistrationGridSequence = [_grid(content.displacement)]
    result.DeformableRegistrationSequence = [item]
    finish(content, result, "Registration, deformable")
    return result


def _registration(content: DicomContent, name: str, number: int, sop_class: str) -> Dataset:
    """Return an object without its registration."""
    arguments = content.common(name, number)
    patient = content.reference.first
    result: Dataset = hd.SOPClass(
        study_instance_uid=patient.StudyInstanceUID,
        sop_class_uid=sop_class,
        modality="REG",
        coding_schemes=codes.schemes(),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **arguments,
    )
    result.copy_patient_and_study_information(patient)
    result.FrameOfReferenceUID = content.reference.frame_of_reference
    result.PositionReferenceIndicator = ""
    result.ContentDescription, result.ContentCreatorName = RESEARCH, None
    _refer(result, content)
    return result


def _refer(result: Dataset, content: DicomContent) -> None:
    """List the images of both scans, by study and series."""
    other_studies: dict[str, list[Dataset]] = {}
    result.ReferencedSeriesSequence = []
    for scan in (content.reference, content.template):
        for (study, uid), images in scan.by_series().items():
            series = series_reference(uid, images)
            if study == content.reference.first.StudyInstanceUID:
                result.ReferencedSeriesSequence.append(series)
            else:
                other_studies.setdefault(study, []).append(series)
    if other_studies:
        result.StudiesContainingOtherReferencedInstancesSequence = []
        for study, of_study in other_studies.items():
            item = Dataset()
            item.StudyInstanceUID, item.ReferencedSeriesSequence = study, of_study
            result.StudiesContainingOtherReferencedInstancesSequence.append(item)


def _rigid_item(scan: SourceImages, matrix: FloatArray) -> Dataset:
    item, registration, step = Dataset(), Dataset(), Dataset()
    step.FrameOfReferenceTransformationMatrixType = "RIGID"
    step.FrameOfReferenceTransformationMatrix = [_decimal(value) for value in matrix.ravel().tolist()]
    registration.RegistrationTypeCodeSequence = [codes.IMAGE_CONTENT]
    registration.MatrixSequence = [step]
    item.FrameOfReferenceUID = scan.frame_of_reference
    item.ReferencedImageSequence = references(scan.images)
    item.MatrixRegistrationSequence = [registration]
    return item


def _decimal(value: float) -> str:
    """Return a decimal string of at most 16 characters."""
    for digits in range(15, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(f"_decimal() 'value' must fit 16 characters, got {value!r}")


def _grid(displacement: DisplacementField) -> Dataset:
    """Return u as a deformation grid, x fastest, with a right-handed grid as the standard presumes."""
    vectors, grid = displacement.vectors_mm, displacement.grid
    direction = np.asarray(grid.direction)
    if np.linalg.det(direction) < 0:  # depth is row x column; turn the order of the slices
        x, y, z = grid.to_physical((0, 0, grid.shape[0] - 1)).tolist()
        a, b, c = (direction * (1, 1, -1)).tolist()
        vectors, grid = vectors[::-1], Grid(grid.shape, grid.spacing_mm, (x, y, z), (tuple(a), tuple(b), tuple(c)))
        direction = np.asarray(grid.direction)
    item = Dataset()
    item.ImagePositionPatient = [_decimal(value) for value in grid.origin_mm]
    item.ImageOrientationPatient = [_decimal(value) for value in [*direction[:, 0].tolist(), *direction[:, 1].tolist()]]
    item.GridDimensions = list(grid.size)
    item.GridResolution = [float(value) for value in grid.spacing_mm]
    item.VectorGridData = np.ascontiguousarray(vectors, dtype="<f4").tobytes()
    return item
