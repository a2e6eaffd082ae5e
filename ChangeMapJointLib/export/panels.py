"""The pictures of the report: three planes of a finding, projections of the chest, whole-lung slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Vector3
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.pictures import (
    Marks,
    Pixels,
    annotate,
    change_colour,
    jpeg_uri,
    lung_window,
    overlay,
)
from ChangeMapJointLib.export.planes import (
    SCREEN_AXES,
    Plane,
    box_plane,
    physical_box,
    reslice,
    reslice_nearest,
    square_plane,
)
from ChangeMapJointLib.export.wording import number

if TYPE_CHECKING:
    from ChangeMapJointLib.change.findings import Finding

FIELD_MM = 64.0
WEAK_SHARE = 0.6  # of its peak: from here on a finding is coloured whose peak is below the threshold of the map
SIGNED_LIMIT_HU = 500.0  # full colour in pictures without a threshold, low enough to show registration residuals
COLUMNS = {
    "reference": "Reference (current)",
    "warped": "Template (prior), warped",
    "template": "Template (prior), as acquired",
    "overlay": "Reference with change",
    "signed": "Signed change, no threshold",
    "rigid": "Template (prior), rigidly aligned",
}


@dataclass(frozen=True)
class Picture:
    """One picture of the page.

    Attributes:
        role: a key of :data:`COLUMNS`.
        alt: alternative text.
        uri: the image as a ``data:`` URI.
        width: in pixels.
        height: in pixels.
    """

    role: str
    alt: str
    uri: str
    width: int
    height: int

    @property
    def caption(self) -> str:
        """The heading of its column."""
        return COLUMNS[self.role]


@dataclass(frozen=True)
class PictureRow:
    """Pictures of one plane, side by side."""

    label: str
    pictures: tuple[Picture, ...]


def picture(role: str, pixels: Pixels, alt: str) -> Picture:
    """Encode ``pixels`` for the page."""
    return Picture(role, alt, jpeg_uri(pixels), pixels.shape[1], pixels.shape[0])


def template_centre_mm(content: ReportContent, finding: Finding) -> Vector3:
    """y(centre): where the finding lies in the template as acquired."""
    centre_mm = finding.centre_template_mm
    if centre_mm is None and content.displacement is not None:
        centre_mm = content.displacement.apply(np.array([finding.centre_mm]))[0]
    x, y, z = (float(v) for v in (finding.centre_mm if centre_mm is None else centre_mm))
    return x, y, z


# -- one finding ----------------------------------------------------------------------------
def finding_rows(content: ReportContent, finding: Finding, box_mm: FloatArray) -> tuple[PictureRow, ...]:
    """Draw one finding: rows axial, coronal, sagittal; columns reference, warped template, template, overlay.

    Args:
        content: the scans and the map.
        finding: the pictures are centred on it.
        box_mm: from :func:`finding_boxes_mm`; the pictures grow beyond :data:`FIELD_MM` to hold it.
    """
    field = field_mm(box_mm)
    return tuple(PictureRow(name, _finding_row(content, finding, name, field, box_mm)) for name in SCREEN_AXES)


def field_mm(box_mm: FloatArray) -> float:
    """Width and height in mm of the pictures of a finding with the box ``box_mm``."""
    return max(FIELD_MM, 10.0 * float(np.ceil(1.4 * (box_mm[1] - box_mm[0]).max() / 10.0)))


def finding_boxes_mm(content: ReportContent, *, margin_mm: float = 3.0) -> dict[int, FloatArray]:
    """The box around each finding's voxels with a margin: its two corners ``[2, 3]`` in mm, LPS, by id."""
    labels = None if content.findings is None else content.findings.labels  # None where a saved run is shown
    slices = [] if labels is None else ndimage.find_objects(labels)
    grid = content.reference.grid
    boxes = {}
    for finding in content.items:
        centre = np.asarray(finding.centre_mm, dtype=float)
        half = max(finding.long_diameter_mm / 2, 3.0) + margin_mm
        low, high = centre - half, centre + half
        region = slices[finding.id - 1] if 0 < finding.id <= len(slices) else None
        if region is not None:
            start, stop = [s.start for s in region], [s.stop for s in region]
            region_low, region_high = physical_box(grid.crop(start, stop), margin_mm=margin_mm)
            low, high = np.minimum(region_low, centre - 6.0), np.maximum(region_high, centre + 6.0)
        boxes[finding.id] = np.stack([low, high])
    return boxes


def _finding_row(
    content: ReportContent, finding: Finding, name: str, field: float, box_mm: FloatArray
) -> tuple[Picture, ...]:
    x, y, z = (float(v) for v in finding.centre_mm)
    plane = square_plane(name, (x, y, z), field_mm=field)
    template_plane = square_plane(name, template_centre_mm(content, finding), field_mm=field)
    shift = np.asarray(template_plane.centre_mm) - np.asarray(plane.centre_mm)
    marks, template_marks = Marks(box_mm), Marks(box_mm + shift)
    registered_marks = Marks(box_mm, content.warning)
    index = plane.index_on(content.reference.grid)
    template_index = template_plane.index_on(content.template.grid)
    grey = lung_window(reslice(content.reference.array, index))
    template_grey = lung_window(reslice(content.template.array, template_index))
    images = {
        "reference": annotate(grey, plane, marks),
        "warped": annotate(lung_window(reslice(content.warped_template, index)), plane, registered_marks),
        "template": annotate(template_grey, template_plane, template_marks),
        "overlay": annotate(_with_change(content, grey, index, shown_from(content, finding)), plane, registered_marks),
    }
    about = f"finding {finding.id}, {finding.kind}, {finding.lung} lung"
    return tuple(picture(role, pixels, f"{name} plane, {COLUMNS[role]}, {about}") for role, pixels in images.items())


def shown_from(content: ReportContent, finding: Finding) -> float:
    """Value of the map from which a finding's pictures are coloured: a weak one would have no colour else."""
    return content.threshold if finding.peak >= content.threshold else WEAK_SHARE * finding.peak


def _with_change(content: ReportContent, grey: Pixels, index: FloatArray, threshold: float) -> Pixels:
    if content.change_map is None or content.signed_hu is None:
        return grey
    change, signed_hu = (reslice_nearest(array, index) for array in (content.change_map, content.signed_hu))
    return overlay(grey, change, signed_hu, threshold=threshold)


# -- both lungs -----------------------------------------------------------------------------
def lung_rows(content: ReportContent) -> tuple[PictureRow, ...]:
    """Draw slices through both lungs: reference, warped template and signed change without a threshold.

    With method ``rigid``: reference and rigidly aligned template, in more slices.
    """
    rigid = content.method == "rigid"
    low, high = physical_box(content.reference.grid, content.lungs, margin_mm=8.0)
    cuts = {"coronal": (0.3, 0.5, 0.7), "axial": (0.75, 0.55, 0.35, 0.2) if rigid else (0.6, 0.3)}
    rows = []
    for name, fractions in cuts.items():
        middle = box_plane(name, low, high, pixel_mm=max(0.7, float((high - low).max()) / 420))
        depth_axis = middle.depth_axis
        for fraction in fractions:
            plane = middle.at_depth((fraction - 0.5) * float((high - low)[depth_axis]))
            label = f"{name}, {'xyz'[depth_axis]} = {number(plane.centre_mm[depth_axis], 0)} mm"
            rows.append(PictureRow(label, _lung_row(content, plane, label)))
    return tuple(rows)


def _lung_row(content: ReportContent, plane: Plane, label: str) -> tuple[Picture, ...]:
    index = plane.index_on(content.reference.grid)
    reference = lung_window(reslice(content.reference.array, index))
    template = lung_window(reslice(content.warped_template, index))
    images = {"reference": annotate(reference, plane)}
    marks = Marks(warning=content.warning)
    if content.method == "rigid":
        images["rigid"] = annotate(template, plane, marks)
    else:
        images["warped"] = annotate(template, plane, marks)
        images["signed"] = annotate(_signed_change(content, reference, index), plane, marks)
    return tuple(picture(role, pixels, f"{label}, {COLUMNS[role]}") for role, pixels in images.items())


def _signed_change(content: ReportContent, grey: Pixels, index: FloatArray) -> Pixels:
    """Overlay signed change on the dimmed reference; regions where the registration is not trusted are hatched."""
    assert content.signed_hu is not None
    strength = np.clip(np.nan_to_num(reslice(content.signed_hu, index)) / SIGNED_LIMIT_HU, -1, 1)
    inside = np.isfinite(reslice_nearest(content.signed_hu, index))
    if content.lungs is not None:
        inside &= reslice_nearest(content.lungs, index) > 0.5
    weight = (np.abs(strength) * inside)[..., None]
    pixels: Pixels = np.rint((1 - weight) * 0.45 * grey + weight * change_colour(strength)).astype(np.uint8)
    if content.trust is not None:
        doubtful = inside & (reslice_nearest(content.trust, index) < content.trust_limit)
        rows, columns = np.indices(doubtful.shape)
        pixels[doubtful & ((rows + columns) % 8 < 2)] = (200, 200, 200)
    return pixels
