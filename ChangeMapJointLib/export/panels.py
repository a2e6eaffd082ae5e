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
    data_uri,
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
SIGNED_LIMIT_HU = 500.0  # strongest colour in the pictures without a threshold: shows what registration left
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
    """One picture of the page. ``role`` is a key of :data:`COLUMNS`; ``uri`` holds the image itself."""

    role: str
    alt: str
    uri: str
    width: int
    height: int

    @property
    def caption(self) -> str:
        """Heading of its column."""
        return COLUMNS[self.role]


@dataclass(frozen=True)
class Row:
    """Pictures of one plane, side by side."""

    label: str
    pictures: tuple[Picture, ...]


def picture(role: str, pixels: Pixels, alt: str) -> Picture:
    """``pixels``, encoded for the page."""
    return Picture(role, alt, data_uri(pixels), pixels.shape[1], pixels.shape[0])


def template_centre_mm(content: ReportContent, finding: Finding) -> Vector3:
    """y(centre): where the finding lies in the template as acquired."""
    known = finding.centre_template_mm
    if known is None and content.displacement is not None:
        known = content.displacement.apply(np.array([finding.centre_mm]))[0]
    x, y, z = (float(v) for v in (finding.centre_mm if known is None else known))
    return x, y, z


# -- one finding ----------------------------------------------------------------------------
def finding_rows(content: ReportContent, finding: Finding, box_mm: FloatArray) -> tuple[Row, ...]:
    """Axial, coronal and sagittal: reference, warped template, template as acquired, overlay.

    Args:
        content: the scans and the map.
        finding: its centre is the middle of the pictures.
        box_mm: from :func:`finding_boxes_mm`; the pictures grow beyond :data:`FIELD_MM` to hold it.
    """
    field = field_mm(box_mm)
    return tuple(Row(name, _finding_row(content, finding, name, field, box_mm)) for name in SCREEN_AXES)


def field_mm(box_mm: FloatArray) -> float:
    """Width and height of the pictures of a finding in ``box_mm``."""
    return max(FIELD_MM, 10.0 * float(np.ceil(1.4 * (box_mm[1] - box_mm[0]).max() / 10.0)))


def finding_boxes_mm(content: ReportContent, *, margin_mm: float = 3.0) -> dict[int, FloatArray]:
    """For every finding the corners (LPS) of the box round its voxels with a margin, ``[2, 3]``, by id."""
    slices = [] if content.findings is None else ndimage.find_objects(content.findings.labels)
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
    here = square_plane(name, (x, y, z), field_mm=field)
    there = square_plane(name, template_centre_mm(content, finding), field_mm=field)
    shift = np.asarray(there.centre_mm) - np.asarray(here.centre_mm)
    marks, marks_there = Marks(box_mm), Marks(box_mm + shift)
    marks_map = Marks(box_mm, content.warning)
    index = here.index_on(content.reference.grid)
    index_there = there.index_on(content.template.grid)
    grey = lung_window(reslice(content.reference.array, index))
    made = {
        "reference": annotate(grey, here, marks),
        "warped": annotate(lung_window(reslice(content.warped_template, index)), here, marks_map),
        "template": annotate(lung_window(reslice(content.template.array, index_there)), there, marks_there),
        "overlay": annotate(_with_change(content, grey, index), here, marks_map),
    }
    about = f"finding {finding.id}, {finding.kind}, {finding.lung} lung"
    return tuple(picture(role, pixels, f"{name} plane, {COLUMNS[role]}, {about}") for role, pixels in made.items())


def _with_change(content: ReportContent, grey: Pixels, index: FloatArray) -> Pixels:
    if content.change_map is None or content.signed_hu is None:
        return grey
    change, signed_hu = (reslice_nearest(array, index) for array in (content.change_map, content.signed_hu))
    return overlay(grey, change, signed_hu, threshold=content.threshold)


# -- both lungs -----------------------------------------------------------------------------
def lung_rows(content: ReportContent) -> tuple[Row, ...]:
    """Slices through both lungs: reference, warped template and signed change without a threshold.

    With method ``rigid`` reference and rigidly aligned template, and more slices.
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
            rows.append(Row(label, _lung_row(content, plane, label)))
    return tuple(rows)


def _lung_row(content: ReportContent, plane: Plane, label: str) -> tuple[Picture, ...]:
    index = plane.index_on(content.reference.grid)
    reference = lung_window(reslice(content.reference.array, index))
    template = lung_window(reslice(content.warped_template, index))
    made = {"reference": annotate(reference, plane)}
    marks = Marks(warning=content.warning)
    if content.method == "rigid":
        made["rigid"] = annotate(template, plane, marks)
    else:
        made["warped"] = annotate(template, plane, marks)
        made["signed"] = annotate(_signed_change(content, reference, index), plane, marks)
    return tuple(picture(role, pixels, f"{label}, {COLUMNS[role]}") for role, pixels in made.items())


def _signed_change(content: ReportContent, grey: Pixels, index: FloatArray) -> Pixels:
    """Signed change in colour over the dimmed reference; hatched where the registration is not trusted."""
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
