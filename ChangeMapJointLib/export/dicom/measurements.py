"""The measurement report (TID 1500): what changed by how much, in groups that share one tracking UID a lesion.

For each finding there is one group on the region of change, which the Segmentation holds (TID 1411), and one for each
scan in which the lesion itself was measured (TID 1410), with a circle of its mean diameter on the slice through its
centre. The region of a lesion that grew is the rim that changed, so that its volume is not the lesion's.

OHIF shows the figures of a lesion beside such a circle, and fails on a report with a tracking UID that has no place on
an image. So what holds for the whole comparison is on the border of a slice, and a change without a measured lesion has
a circle, too. Its older versions also need an image library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.core.grid import FloatArray, Vector3
from ChangeMapJointLib.export.dicom import codes
from ChangeMapJointLib.export.dicom.content import MANUFACTURER, MODEL, DicomContent, finish, make_uid
from ChangeMapJointLib.io.dicom.images import SourceImages, plane_of
from ChangeMapJointLib.lesions.measure import LesionMeasure

Group = (
    sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
)
Interval = tuple[float | None, float | None] | None


def measurement_report(content: DicomContent, segmentation: Dataset | None) -> Dataset:
    """Return the report.

    Args:
        content: the result.
        segmentation: of :func:`~ChangeMapJointLib.export.dicom.volumes.segmentation`; None without findings.
    """
    groups: list[Group] = [_registration(content)]
    for number, finding in enumerate(content.findings, 1):
        for lesion, scan, name in (
            (finding.lesion_reference, content.reference, "Current"),
            (finding.lesion_template, content.template, "Prior"),
        ):
            if lesion is not None:
                groups.append(_lesion(content, finding, lesion, scan, name))
        if finding.lesion_reference is None and finding.lesion_template is None:
            groups.append(_change(content, finding))
        if segmentation is not None:
            groups.append(_region(content, finding, segmentation, number))
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=make_uid("device", __version__), name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    context = sr.ObserverContext(observer_type=codes.dcm("121007", "Device"), observer_identifying_attributes=device)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=context),
        procedure_reported=codes.PROCEDURE,
        imaging_measurements=groups,
        referenced_images=_pictured(content),
        title=codes.dcm("126000", "Imaging Measurement Report"),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            sr.CodedConcept("en", "RFC5646", "English")
        ),
    )
    evidence = [*content.reference.images, *content.template.images]
    if segmentation is not None:
        evidence.append(segmentation)
    result: Dataset = sr.ComprehensiveSR(
        evidence=evidence,
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=codes.schemes(),
        **{
            **content.common("measurements", 4),
            "sop_instance_uid": content.uid("measurements", "instance", *content.decided),
        },
    )
    finish(content, result, "Change: measurements")
    return result


def _registration(content: DicomContent) -> Group:
    """What holds for the whole comparison: the verdict, and that findings are withheld if they are."""
    error = content.quality.keypoint_error_mm
    measurements = []
    if error is not None:
        measurements.append(sr.Measurement(codes.KEYPOINT_ERROR, _rounded(error), codes.MM, derivation=codes.MEAN))
    if content.withheld:
        measurements.append(sr.Measurement(codes.WITHHELD, content.withheld, codes.ONE, derivation=codes.TOTAL))
    image, frame = content.reference.nearest(content.grid.centre_mm)
    wide, high = float(image.Columns), float(image.Rows)
    border = np.array([(0.0, 0.0), (wide, 0.0), (wide, high), (0.0, high), (0.0, 0.0)])
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(content.uid("registration"), "Registration"),
        referenced_region=_region_of(sr.GraphicTypeValues.POLYLINE, border, image, frame),
        measurements=measurements or None,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(codes.USE, codes.RESEARCH_USE),
            sr.QualitativeEvaluation(codes.VERDICT, codes.VERDICTS[content.quality.verdict]),
        ],
    )


def _region(content: DicomContent, finding: Finding, segmentation: Dataset, number: int) -> Group:
    """The region of change, and what it says about the lesion: change, doubling time, probability."""
    label, uid = content.tracking_of(finding)
    lowest, highest = finding.volume_change_interval_percent or (None, None)
    fastest, slowest = finding.doubling_time_interval_days or (None, None)
    measurements = _known(
        [
            (codes.REGION, finding.volume_ml, codes.ML),
            (codes.PEAK, finding.peak, codes.ONE),
            (codes.PROBABILITY, finding.probability, codes.ONE),
            (codes.TRUST, finding.trust, codes.ONE),
            (codes.VOLUME_CHANGE, finding.volume_change_percent, codes.PERCENT),
            (codes.interval_end(codes.VOLUME_CHANGE, codes.LOW), lowest, codes.PERCENT),
            (codes.interval_end(codes.VOLUME_CHANGE, codes.HIGH), highest, codes.PERCENT),
            (codes.DIAMETER_CHANGE, finding.diameter_change_mm, codes.MM),
            (codes.INTERVAL, finding.interval_days, codes.DAY),
            (codes.DOUBLING, finding.doubling_time_days, codes.DAY),
            (codes.interval_end(codes.DOUBLING, codes.LOW), fastest, codes.DAY),
            (codes.interval_end(codes.DOUBLING, codes.HIGH), slowest, codes.DAY),
        ]
    )
    evaluations = [sr.QualitativeEvaluation(codes.KIND, codes.KINDS[finding.kind]), *_decision(content, finding)]
    if finding.third is not None:
        evaluations.append(sr.QualitativeEvaluation(codes.PLACE, codes.THIRDS[finding.third]))
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid, label),
        referenced_segment=sr.ReferencedSegment.from_segmentation(segmentation, segment_number=number),
        time_point_context=_time_point("Current"),
        finding_type=codes.LESION,
        finding_sites=[_site(finding)],
        measurements=measurements,
        qualitative_evaluations=evaluations,
        algorithm_id=_algorithm(),
    )


def _lesion(
    content: DicomContent, finding: Finding, lesion: LesionMeasure, scan: SourceImages, time_point: str
) -> Group:
    """The lesion itself, as measured in one scan."""
    label, uid = content.tracking_of(finding)
    low_ml, high_ml = lesion.volume_interval_ml
    low_mm, high_mm = lesion.mean_diameter_interval_mm
    measurements = _known(  # the order in which viewers list them, some the first five alone
        [
            (codes.LONG_AXIS, lesion.long_diameter_mm, codes.MM),
            (codes.SHORT_AXIS, lesion.perpendicular_diameter_mm, codes.MM),
            (codes.VOLUME, lesion.volume_ml, codes.ML),
            (codes.interval_end(codes.VOLUME, codes.LOW), low_ml, codes.ML),
            (codes.interval_end(codes.VOLUME, codes.HIGH), high_ml, codes.ML),
            (codes.interval_end(codes.DIAMETER, codes.LOW), low_mm, codes.MM),
            (codes.interval_end(codes.DIAMETER, codes.HIGH), high_mm, codes.MM),
            (codes.MASS, lesion.mass_mg, codes.MG),
        ]
    )
    measurements += [
        sr.Measurement(codes.DIAMETER, _rounded(lesion.mean_diameter_mm), codes.MM, derivation=codes.MEAN),
        sr.Measurement(codes.ATTENUATION, _rounded(lesion.mean_hu), codes.HU, derivation=codes.MEAN),
        sr.Measurement(codes.ATTENUATION, _rounded(lesion.peak_hu), codes.HU, derivation=codes.MAXIMUM),
    ]
    evaluations = _decision(content, finding)
    if lesion.texture is not None:
        evaluations.append(sr.QualitativeEvaluation(codes.TEXTURE, codes.TEXTURES[lesion.texture]))
    if lesion.calcified:
        evaluations.append(sr.QualitativeEvaluation(codes.CALCIUM, codes.CALCIFIED))
    if lesion.juxtapleural:
        evaluations.append(sr.QualitativeEvaluation(codes.PLACE, codes.SUBPLEURAL))
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid, label),
        "time_point_context": _time_point(time_point),
        "finding_type": codes.NODULE,
        "finding_sites": [_site(finding)],
        "measurements": measurements,
        "qualitative_evaluations": evaluations or None,
        "algorithm_id": _algorithm(),
    }
    circle = _circle(scan, lesion.centre_mm, lesion.mean_diameter_mm)
    if circle is None:
        return sr.MeasurementsAndQualitativeEvaluations(source_images=[_slice(scan, lesion.centre_mm)], **common)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=circle, **common)


def _change(content: DicomContent, finding: Finding) -> Group:
    """The place of a change in which no lesion could be measured."""
    label, uid = content.tracking_of(finding)
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid, label),
        "time_point_context": _time_point("Current"),
        "finding_sites": [_site(finding)],
        "measurements": _known([(codes.PEAK, finding.peak, codes.ONE)]),
        "qualitative_evaluations": _decision(content, finding) or None,
        "algorithm_id": _algorithm(),
    }
    circle = _circle(content.reference, finding.centre_mm, finding.long_diameter_mm)
    if circle is None:
        source = _slice(content.reference, finding.centre_mm)
        return sr.MeasurementsAndQualitativeEvaluations(source_images=[source], **common)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=circle, **common)


def _decision(content: DicomContent, finding: Finding) -> list[sr.QualitativeEvaluation]:
    """What the reader decided on the finding, in every group of it: viewers show the groups apart."""
    code = codes.DECISIONS.get(content.decision(finding))
    return [] if code is None else [sr.QualitativeEvaluation(codes.DECISION, code)]


def _circle(scan: SourceImages, centre_mm: Vector3, diameter_mm: float) -> sr.ImageRegion | None:
    """A circle on the slice nearest to a point; None where the slice does not say where it lies.

    It is written as an ellipse, since pixels need not be square. The corner of the first pixel is at (0, 0).
    """
    image, frame = scan.nearest(centre_mm)
    plane = plane_of(image, frame)
    if plane is None:
        return None
    column, row = plane.to_pixel(centre_mm)
    wide, high = (0.5 * diameter_mm / spacing for spacing in plane.spacing_mm)
    ends = np.array([(column - wide, row), (column + wide, row), (column, row - high), (column, row + high)])
    ends = ends if wide >= high else np.roll(ends, 2, axis=0)  # the longer axis comes first
    return _region_of(sr.GraphicTypeValues.ELLIPSE, np.round(ends + 0.5, 3), image, frame)


def _region_of(kind: sr.GraphicTypeValues, points: FloatArray, image: Dataset, frame: int) -> sr.ImageRegion:
    """A region on an image; points are (column, row)."""
    frames = [frame] if int(image.get("NumberOfFrames") or 1) > 1 else None
    return sr.ImageRegion(kind, points, sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, frames))


def _pictured(content: DicomContent) -> list[Dataset]:
    """The images on which lesions were measured, once each; the middle ones where there are none."""
    places = [
        (scan, lesion.centre_mm)
        for finding in content.findings
        for scan, lesion in ((content.reference, finding.lesion_reference), (content.template, finding.lesion_template))
        if lesion is not None
    ]
    places = places or [(content.reference, content.grid.centre_mm)]
    found = {str(scan.nearest(place)[0].SOPInstanceUID): (scan, *scan.nearest(place)) for scan, place in places}
    return [_with_plane(scan, image, frame) for scan, image, frame in found.values()]


def _with_plane(scan: SourceImages, image: Dataset, frame: int) -> Dataset:
    """An image with the geometry of a frame where highdicom's image library looks for it, and needs all of it."""
    plane = plane_of(image, frame)
    if plane is None or all(image.get(keyword) not in (None, "") for keyword in ("PixelSpacing", "SliceThickness")):
        return image
    result = Dataset()
    result.update(image)
    result.PixelSpacing = [*reversed(plane.spacing_mm)]
    result.SliceThickness = float(f"{scan.grid.spacing_mm[2]:.10g}")  # where the header states none
    result.ImageOrientationPatient = [float(f"{value:.10g}") for value in plane.axes.ravel()]
    result.ImagePositionPatient = [float(f"{value:.10g}") for value in plane.origin_mm]
    return result


def _time_point(name: str) -> sr.TimePointContext:
    order = 1 if name == "Prior" else 2
    return sr.TimePointContext(time_point=name, time_point_order=order)


def _site(finding: Finding) -> sr.FindingSite:
    return sr.FindingSite(codes.LUNG, laterality=codes.SIDES[finding.lung])


def _algorithm() -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(name=MODEL, version=__version__)


def _slice(scan: SourceImages, centre_mm: Vector3) -> sr.SourceImageForMeasurementGroup:
    image, frame = scan.nearest(centre_mm)
    frames = [frame] if int(image.get("NumberOfFrames") or 1) > 1 else None
    return sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID, frames)


def _known(
    values: Iterable[tuple[hd.sr.CodedConcept, float | None, hd.sr.CodedConcept]],
) -> list[sr.Measurement]:
    """Return the measurements whose value is known."""
    return [sr.Measurement(name, _rounded(value), unit) for name, value, unit in values if value is not None]


def _rounded(value: float) -> float:
    """Return six significant digits, as in the tables."""
    return float(f"{value:.6g}")
