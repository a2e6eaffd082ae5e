"""Makes and writes the objects of one result."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.export.dicom.content import DicomContent
from ChangeMapJointLib.export.dicom.measurements import measurement_report
from ChangeMapJointLib.export.dicom.pages import document, draw, pages
from ChangeMapJointLib.export.dicom.registration import deformable_registration, spatial_registration
from ChangeMapJointLib.export.dicom.volumes import parametric_map, segmentation


def make_objects(content: DicomContent) -> Iterator[tuple[str, Dataset]]:
    """Yield the name of the file and the object, one after another so that only one large one is in memory.

    Where the registration cannot be used there is no map, no field and no segmentation: an archive shows objects
    without the run's warnings around them.
    """
    usable = content.quality.verdict != "do not use"
    segments = segmentation(content) if usable else None
    if segments is not None:
        yield "segmentation.dcm", segments
    yield "measurements.dcm", measurement_report(content, segments)
    if usable:
        yield "registration_rigid.dcm", spatial_registration(content)
        change = parametric_map(content)
        if change is not None:
            yield "change_map.dcm", change
        deformation = deformable_registration(content)
        if deformation is not None:
            yield "registration_deformable.dcm", deformation
    sheets = draw(content)
    for number, page in enumerate(pages(content, sheets), 1):
        yield f"page_{number:02d}.dcm", page
    if content.document is not None:
        yield "report.dcm", document(content, content.document)


def write_objects(folder: Path, content: DicomContent, *, progress: Progress = silent) -> tuple[Path, ...]:
    """Write the objects into a folder that exists.

    Returns:
        The files, in the order in which an archive should get them: what is referred to comes first.

    Raises:
        OSError: a file cannot be written.
    """
    files = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom's quote the patient's name
        for count, (name, dataset) in enumerate(make_objects(content), 1):
            path = folder / name
            dataset.save_as(path, enforce_file_format=True)
            files.append(path)
            progress(min(count / 8.0, 1.0), f"writing {name}")
    return tuple(files)
