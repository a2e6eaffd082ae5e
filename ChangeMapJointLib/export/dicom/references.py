"""References to the images that an object was made from."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset


def references(images: Sequence[Dataset]) -> list[Dataset]:
    """Return one reference for each image."""
    result = []
    for image in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        result.append(item)
    return result


def series_reference(uid: str, images: Sequence[Dataset]) -> Dataset:
    """Return a reference to the images of one series, by its SeriesInstanceUID."""
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = uid, references(images)
    return series
