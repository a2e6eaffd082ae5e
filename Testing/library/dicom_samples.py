"""A small pair of DICOM series with a known deformation and hand-made findings, as a result."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from export_samples import ball, finding, measure, quality
from phantoms import Sphere, centred_grid, chest_phantom, dicom_slices, rotation, save_slices, voxel_points

from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.inputs import Input
from ChangeMapJointLib.comparison.result import Maps, Result, RunRecord
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.registration.rigid.align import Overlap, RigidAlignment
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.pair import ScanPair

SHAPE, SPACING_MM = (40, 52, 72), (5.0, 5.0, 5.0)
NEW_MM, GROWN_MM = (-90.0, 10.0, 20.0), (85.0, -15.0, -30.0)
IDENTITY = {"PatientID": "PID-4711", "PatientName": "Muster^Erika", "PatientBirthDate": "19500102", "PatientSex": "F"}
STUDY = {"AccessionNumber": "ACC-99", "StudyID": "S1", "StudyTime": "101500"}

POISON = {  # what a hospital's headers may hold beside what an object is filed by
    "InstitutionName": "Poisonhospital",
    "ReferringPhysicianName": "Poisondoctor^Paul",
    "OperatorsName": "Poisonoperator",
    "PatientAddress": "Poisonstreet 7",
    "PatientComments": "poisoncomment",
    "StudyDescription": "Poisonstudy",
    "SeriesDescription": "Poisonseries",
    "ImageComments": "poisonimage",
    "StationName": "POISONSTATION",
    "PatientTelephoneNumbers": "0815-4711",
    "DeviceSerialNumber": "POISON-SN",
    "ContrastBolusAgent": "80 ml for poisonpatient",
    "ProtocolName": "poisonprotocol",
    "OtherPatientIDs": "POISON-2",
}


@dataclass(frozen=True)
class Sample:
    """A result and its series."""

    result: Result
    current: Path
    prior: Path


def make_sample(folder: Path, **tags: object) -> Sample:
    """Two series below ``folder`` and the result of comparing them, with findings that are made by hand.

    ``tags`` go into the headers of both series.
    """
    grid = centred_grid(SHAPE, SPACING_MM, direction=rotation(4.0, -3.0, 6.0))
    tilted = centred_grid(SHAPE, SPACING_MM, centre_mm=(7.0, -4.0, 11.0))
    now = chest_phantom(grid=grid, lesions=[Sphere(NEW_MM, 14.0, 40.0), Sphere(GROWN_MM, 16.0, 40.0)])
    before = chest_phantom(grid=tilted, lesions=[Sphere(GROWN_MM, 12.0, 40.0)])
    headers = {**IDENTITY, **STUDY, **tags}
    series = []
    for name, volume, date in (("current", now, "20240131"), ("prior", before, "20230131")):
        slices = dicom_slices(volume, StudyDate=date, AcquisitionTime="101600", **headers)
        series.append(save_slices(folder / name, slices))
    inputs = Input(series[0]), Input(series[1])
    (now, first), (before, second) = inputs[0].read(), inputs[1].read()
    return Sample(_result(now, before, (first, second)), series[0], series[1])


def _result(now, before, inputs) -> Result:
    grid = now.grid
    points = voxel_points(grid)
    phase = points / 60.0
    u = np.stack((7 + 3 * np.sin(phase[..., 2]), -4 + 2 * np.cos(phase[..., 0]), 11 + np.sin(phase[..., 1])), -1)
    field = DisplacementField(u.astype(np.float32), grid)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.asarray(rotation(1.0, 2.0, -3.0)), (7.0, -4.0, 11.0)
    new, grown = ball(grid, NEW_MM, 14.0), ball(grid, GROWN_MM, 16.0) & ~ball(grid, GROWN_MM, 11.0)
    labels = np.zeros(grid.shape, np.int32)
    labels[new], labels[grown] = 1, 2
    change = np.where(labels > 0, 0.8, 0.01).astype(np.float32)
    signed = np.where(labels > 0, 840, 5).astype(np.int16)
    lungs = now.array < -500
    items = (
        finding(1, centre_mm=NEW_MM, peak_mm=NEW_MM, lesion_reference=measured(NEW_MM, 11.5), third="upper"),
        finding(
            2,
            kind="grown",
            lung="left",
            centre_mm=GROWN_MM,
            peak_mm=GROWN_MM,
            lesion_reference=measured(GROWN_MM, 17.2),
            lesion_template=measured((92.0, -19.0, -19.0), 7.2),
            volume_change_percent=138.9,
            volume_change_interval_percent=(80.0, 210.0),
            diameter_change_mm=8.0,
            interval_days=365,
            doubling_time_days=290.6,
            doubling_time_interval_days=(220.0, None),
            probability=0.97,
        ),
    )
    return Result(
        ScanPair.of(now, before, lungs.astype(np.uint8), (before.array < -500).astype(np.uint8)),
        RigidAlignment(matrix, 3.7, (7.0, -4.0, 11.0), Overlap(1.0, 1.0), 0.95, 0.8, 0.9, "aligned"),
        Deformation(field, grid, before.grid),
        (now.array - signed).astype(np.int16),
        quality(),
        maps=Maps(change, signed, np.ones(grid.shape, np.float32), np.ones(grid.shape, np.float32), lungs),
        findings=Findings(items, labels),
        record=RunRecord(RunConfig(), None, inputs),
    )


def measured(centre_mm, volume_ml):
    return replace(measure(volume_ml, 25.0, 22.0), centre_mm=centre_mm, texture="part-solid", juxtapleural=True)


ORDER = (  # in which they are written: what is referred to comes first
    *("segmentation.dcm", "measurements.dcm", "registration_rigid.dcm", "change_map.dcm"),
    *("registration_deformable.dcm", "page", "report.dcm"),
)


@dataclass(frozen=True)
class Exported:
    """The DICOM objects that were made of a sample's result."""

    sample: Sample
    folder: Path
    files: list[Path]

    def read(self, name: str) -> pydicom.Dataset:
        return pydicom.dcmread(self.folder / f"{name}.dcm")

    @classmethod
    def of(cls, sample: Sample, folder: Path) -> Exported:
        """The objects in a folder, in the order in which they are written."""
        files = folder.glob("*.dcm")
        return cls(
            sample, folder, sorted(files, key=lambda path: (ORDER.index(path.name.partition("_0")[0]), path.name))
        )


def places_of(report: pydicom.Dataset) -> dict[str, int]:
    """How many places on images each tracking UID of a measurement report has."""
    (groups,) = (item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    places: dict[str, int] = {}
    for group in groups.ContentSequence:
        assert group.ConceptNameCodeSequence[0].CodeValue == "125007"
        items = group.ContentSequence
        (uid,) = (item.UID for item in items if item.ConceptNameCodeSequence[0].CodeValue == "112040")
        places[uid] = places.get(uid, 0) + sum(item.ValueType == "SCOORD" for item in items)
    return places


def dcmtk(name: str) -> str | None:
    """A program of DCMTK; pynetdicom brings Python scripts of the same names and other options into its environment."""
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "python").exists()]
    return shutil.which(name, path=os.pathsep.join([*folders, "/usr/bin"]))
