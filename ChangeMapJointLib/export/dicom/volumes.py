"""Segmentation of the findings and Parametric Map of the change map, on the current scan's grid."""

from __future__ import annotations

import copy

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.change.kinds import DENSER_KINDS, KIND_WORDS
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.export.dicom import codes
from ChangeMapJointLib.export.dicom.content import MANUFACTURER, RESEARCH, DicomContent, finish
from ChangeMapJointLib.export.dicom.references import series_reference
from ChangeMapJointLib.export.pictures import DENSER, LESS_DENSE
from ChangeMapJointLib.io.dicom.images import SourceImages

ALGORITHM = hd.AlgorithmIdentificationSequence(
    name="ChangeMapJoint",
    family=codes.own("CHANGEDETECTION", "Registration and change detection"),
    version=__version__,
    source=MANUFACTURER,
)


def as_volume(array: NDArray[np.generic], grid: Grid, frame_of_reference: str) -> hd.Volume:
    """Return ``array`` (``[z, y, x]`` on ``grid``) as highdicom's volume, whose affine takes indices (z, y, x)."""
    return hd.Volume(
        array, grid.affine[:, [2, 1, 0, 3]], hd.CoordinateSystemNames.PATIENT, frame_of_reference_uid=frame_of_reference
    )


def _in_one_series(scan: SourceImages) -> list[Dataset]:
    """Return the images as of the first one's series, since highdicom refuses several that were taken for one."""
    if len(scan.by_series()) == 1:
        return list(scan.images)
    result = []
    for image in scan.images:
        changed = Dataset()
        changed.update(image)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            changed[keyword] = scan.first[keyword]  # another element; a value set would change the image's own
        result.append(changed)
    return result


def _refer_to_all_series(scan: SourceImages, result: Dataset) -> None:
    """Name the series that each image of the scan is in."""
    groups = scan.by_series()
    if len(groups) > 1:
        result.ReferencedSeriesSequence = [series_reference(uid, images) for (_, uid), images in groups.items()]


def segmentation(content: DicomContent) -> Dataset | None:
    """Return the Segmentation: one segment per finding, the region of change; None without findings.

    Segment numbers are the ids of the findings where these run from 1 without gaps, as they do.
    """
    if content.labels is None or not content.findings:
        return None
    labels = np.zeros(content.grid.shape, dtype=np.uint16)
    for number, finding in enumerate(content.findings, 1):
        labels[content.labels == finding.id] = number
    result = hd.seg.Segmentation(
        source_images=_in_one_series(content.reference),
        pixel_array=as_volume(labels, content.grid, content.reference.frame_of_reference),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(content, n, finding) for n, finding in enumerate(content.findings, 1)],
        content_label="FINDINGS",
        content_description=RESEARCH,
        coding_schemes=codes.schemes(),
        **content.common("segmentation", 0),
    )
    shared = result.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:  # of one segment alone; highdicom's own reports need it in each frame
        for group in result.PerFrameFunctionalGroupsSequence:
            group.SegmentIdentificationSequence = copy.deepcopy(shared.SegmentIdentificationSequence)
        del shared.SegmentIdentificationSequence
    _refer_to_all_series(content.reference, result)
    finish(content, result, "Change: findings")
    return result


def _segment(content: DicomContent, number: int, finding: Finding) -> hd.seg.SegmentDescription:
    measured = finding.lesion_reference is not None or finding.lesion_template is not None
    label, uid = content.tracking_of(finding)
    colour = (DENSER if finding.kind in DENSER_KINDS else LESS_DENSE)[1]
    red, green, blue = (int(value) for value in colour)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{finding.id} {KIND_WORDS[finding.kind]}, {finding.lung} lung"[:64],
        segmented_property_category=codes.ABNORMAL,
        segmented_property_type=copy.deepcopy(codes.NODULE if measured else codes.LESION),  # modified below
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=ALGORITHM,
        tracking_uid=uid,
        tracking_id=label,
        anatomic_regions=[copy.deepcopy(codes.LUNG)],
        display_color=hd.color.CIELabColor.from_rgb(red, green, blue),
    )
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [codes.KINDS[finding.kind]]
    region = segment.AnatomicRegionSequence[0]
    region.AnatomicRegionModifierSequence = [codes.SIDES[finding.lung]]
    return segment


def parametric_map(content: DicomContent) -> Dataset | None:
    """Return the Parametric Map of the change map, float32; None with method ``rigid``."""
    if content.change_map is None:
        return None
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="CHANGE",
        lut_explanation="Change map",
        unit=codes.ONE,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.CHANGE_MAP,
    )
    result = hd.pm.ParametricMap(
        source_images=_in_one_series(content.reference),
        pixel_array=as_volume(
            content.change_map.astype(np.float32, copy=False), content.grid, content.reference.frame_of_reference
        ),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="CHANGE_MAP",
        content_description=RESEARCH,
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        coding_schemes=codes.schemes(),
        **content.common("change map", 1),
    )
    anatomy = Dataset()  # dcmqi cannot read a map without it
    anatomy.AnatomicRegionSequence, anatomy.FrameLaterality = [copy.deepcopy(codes.LUNG)], "B"
    result.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    result.ContentCreatorName = None
    _refer_to_all_series(content.reference, result)
    _along_the_normal(result)
    finish(content, result, "Change map")
    return result


def _along_the_normal(result: Dataset) -> None:
    """Put the frames into the order in which they follow each other along row x column.

    Any order is right, since each frame says where it lies; but dcmqi, with which Slicer reads maps, puts the first
    frame at the origin, and would turn a map upside down.
    """
    orientation = result.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    row, column = np.reshape([float(value) for value in orientation], (2, 3))
    groups = list(result.PerFrameFunctionalGroupsSequence)
    positions = [[float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient] for group in groups]
    order = np.argsort(np.array(positions) @ np.cross(row, column), kind="stable")
    frames = np.frombuffer(result.FloatPixelData, dtype="<f4").reshape(len(groups), -1)
    result.FloatPixelData = frames[order].tobytes()
    result.PerFrameFunctionalGroupsSequence = [groups[number] for number in order]
