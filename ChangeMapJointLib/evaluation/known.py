"""What is known of a case: its lesions in both scans, corresponding points, lungs, and the true deformation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.change.method_table import SMALLEST_REGION_VOX
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.filters import label_sizes
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.evaluation.cases import Case
from ChangeMapJointLib.evaluation.detection import ChangeRegion
from ChangeMapJointLib.evaluation.lesion_table import (
    TrueLesion,
    kind_of_sizes,
    read_lesion_table,
    read_points,
    sphere_ml,
)
from ChangeMapJointLib.evaluation.outline import Outline, mask_outlines, moved_outline, shape_outline
from ChangeMapJointLib.io.deformation_files import read_deformation
from ChangeMapJointLib.io.mappings import Mapping
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.lesions.growth import sphere_diameter_mm
from ChangeMapJointLib.synthesis.truth import TrueChange, read_truth

PAIR_FILES = {  # of a folder of ``changemap synthesize``; only the first must be there
    "truth": "truth.json",
    "lungs_reference": "lungs_reference.nrrd",
    "lungs_template": "lungs_template.nrrd",
    "true_deformation": "deformation.nrrd",
    "landmarks": "keypoints.csv",
}
NEAREST = 4  # corresponding points that decide where a lesion of the prior belongs in the current scan
MOST_LABELS = 10_000


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask, bool ``[z, y, x]``, on its grid."""

    array: NDArray[np.bool_]
    grid: Grid


@dataclass(frozen=True, eq=False)
class KnownLesion:
    """A lesion and where it is.

    Attributes:
        lesion: its kind and sizes.
        reference: L^R; None where it is absent in the current scan.
        template: L^T, in the prior's space; None where it is absent there, or its place there is not known.
        moved: L^T(y) in the current scan's space; None where it is absent in the prior, or its place is not known.
    """

    lesion: TrueLesion
    reference: Outline | None
    template: Outline | None
    moved: Outline | None

    @property
    def placed(self) -> bool:
        """Whether it is known where its change lies in the current scan."""
        return self.moved is not None or self.lesion.diameter_template_mm == 0

    @property
    def centre_mm(self) -> Vector3 | None:
        """Its centre in the current scan's space, LPS; None where unknown."""
        outline = self.reference or self.moved
        return self.lesion.centre_reference_mm or (None if outline is None else outline.centre_mm)

    def region(self, grid: Grid, inside: NDArray[np.bool_] | None = None) -> ChangeRegion:
        """The region of its change on ``grid``, at least one voxel.

        Args:
            grid: in the current scan's space.
            inside: limits the region, bool ``[z, y, x]`` on ``grid``.

        Raises:
            InputError: its centre lies outside ``grid``.
        """
        outlines = [outline for outline in (self.reference, self.moved) if outline is not None]
        centre = self.centre_mm
        assert outlines
        assert centre is not None
        if not grid.contains(centre):
            place = ", ".join(f"{v:.0f}" for v in centre)
            raise InputError(
                f"lesion {self.lesion.id} at ({place}) mm lies outside its grid",
                expected="a grid in the current scan's space (mm, LPS) that covers every lesion",
            )
        box = _union([outline.box(grid) for outline in outlines])
        now, before = (
            np.zeros(tuple(s.stop - s.start for s in box), bool) if outline is None else outline.mask(grid, box)
            for outline in (self.reference, self.moved)
        )
        lesion = now | before
        if inside is not None and (lesion & inside[box]).any():
            now, before = now & inside[box], before & inside[box]
            lesion = now | before
        if not lesion.any():  # smaller than a voxel
            k, j, i = np.rint(grid.to_index(centre)[::-1]).astype(int) - [s.start for s in box]
            lesion[k, j, i] = True
        changed = now ^ before
        return ChangeRegion(self.lesion.id, box, changed if changed.any() else lesion, lesion)


@dataclass(frozen=True, eq=False)
class KnownCase:
    """What is known of a case.

    Attributes:
        lesions: all lesions, stable ones included; empty for a null pair.
        lesions_known: whether every change is known, so that anything else is false; False where only points are.
        points: corresponding points of the current scan and the prior, each ``[n, 3]`` in mm, LPS.
        mapping: the true y.
        lungs_reference: mask of the lungs in the current scan.
        lungs_template: mask in the prior.
        notes: what could not be used, one sentence each.
    """

    lesions: tuple[KnownLesion, ...]
    lesions_known: bool
    points: tuple[FloatArray, FloatArray] | None = None
    mapping: Mapping | None = None
    lungs_reference: Mask | None = None
    lungs_template: Mask | None = None
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[KnownLesion, ...]:
        """The changed lesions whose place is known."""
        return tuple(known for known in self.lesions if known.lesion.is_change and known.placed)


def read_known(case: Case) -> KnownCase:
    """Read the truth of a case, each file once.

    Raises:
        InputError: a file cannot be read, does not hold what its column says, or two of them contradict each other.
    """
    files = {name: getattr(case, name) for name in PAIR_FILES if name != "truth"}
    changes: tuple[TrueChange, ...] = ()
    points = None
    if case.pair is not None:
        truth = read_truth(case.pair / PAIR_FILES["truth"])
        changes = truth.changes
        points = None if truth.points is None else (truth.points.reference_mm, truth.points.template_mm)
        for name, given in files.items():
            path = case.pair / PAIR_FILES[name]
            if not given and path.exists():
                files[name] = (path,) if name == "true_deformation" else path
    if files["landmarks"] is not None:
        points = read_points(files["landmarks"])
    mapping = read_deformation(files["true_deformation"]) if files["true_deformation"] else None
    listed = any((case.lesions, case.lesions_reference, case.lesions_template))
    lesions = _lesions(case, mapping, points) if listed else tuple(_of_change(change) for change in changes)
    lost = [str(known.lesion.id) for known in lesions if known.lesion.is_change and not known.placed]
    notes = (
        (f"Lesions {', '.join(lost)}: it is not known where they lay in the current scan; they are left out.",)
        if lost
        else ()
    )
    return KnownCase(
        lesions,
        listed or case.null or case.pair is not None,
        points,
        mapping,
        _mask(files["lungs_reference"]),
        _mask(files["lungs_template"]),
        notes,
    )


def read_labels(path: Path) -> tuple[NDArray[Any], Grid]:
    """Read a label map: whole numbers of 0 or more, ``[z, y, x]``, and its grid.

    Raises:
        InputError: the file cannot be read, or holds anything else.
    """
    array, grid = read_array(path)
    if array.ndim != 3:
        raise InputError(f"{array.shape[-1]} components per voxel", field=path, expected="a label map")
    if array.dtype.kind not in "biu":
        low, high = (float(array.min()), float(array.max())) if np.isfinite(array).all() else (np.nan, np.nan)
        whole = np.isfinite(low) and all(bool((plane == np.rint(plane)).all()) for plane in array)
        if not whole or not 0 <= low <= high <= MOST_LABELS:
            raise InputError(
                f"holds values from {low:g} to {high:g}", field=path, expected="a label map of whole numbers from 0"
            )
        return array.astype(np.int16 if high < 2**15 else np.int32), grid
    if array.dtype.kind == "b":
        return array.astype(np.uint8), grid
    if int(array.min()) < 0 or int(array.max()) > MOST_LABELS:
        raise InputError(
            f"holds values from {array.min()} to {array.max()}",
            field=path,
            expected=f"a label map of 0 to {MOST_LABELS}",
        )
    return array, grid


def _mask(path: Path | None) -> Mask | None:
    if path is None:
        return None
    labels, grid = read_labels(path)
    if not labels.any():
        raise InputError("is empty", field=path, expected="a mask of the lungs")
    return Mask(labels > 0, grid)


def _union(boxes: list[tuple[slice, slice, slice]]) -> tuple[slice, slice, slice]:
    filled = [box for box in boxes if all(s.stop > s.start for s in box)] or boxes[:1]
    a, b, c = (
        slice(min(box[axis].start for box in filled), max(box[axis].stop for box in filled)) for axis in range(3)
    )
    return a, b, c


def _of_change(change: TrueChange) -> KnownLesion:
    """A lesion of ``truth.json``: it moves as a whole, so L^T(y) has the prior's size around the centre in R."""
    now, before = change.diameter_reference_mm, change.diameter_template_mm
    lesion = TrueLesion(
        change.id,
        change.kind,
        change.centre_reference_mm,
        change.centre_template_mm,
        now,
        before,
        change.volume_reference_ml or sphere_ml(now),
        change.volume_template_ml or sphere_ml(before),
        change.inserted,
    )
    return KnownLesion(
        lesion,
        shape_outline(change.centre_reference_mm, now, change.shape),
        shape_outline(change.centre_template_mm, before, change.shape),
        shape_outline(change.centre_reference_mm, before, change.shape),
    )


def _lesions(
    case: Case, mapping: Mapping | None, points: tuple[FloatArray, FloatArray] | None
) -> tuple[KnownLesion, ...]:
    """The lesions of masks, of a table, or of both: then the masks say where, and the table what."""
    table = {lesion.id: lesion for lesion in read_lesion_table(case.lesions)} if case.lesions else None
    sides = [_outlines(path) for path in (case.lesions_reference, case.lesions_template)]
    volumes = [{number: volume for number, (_, volume) in side.items()} for side in sides]
    outlines = [{number: outline for number, (outline, _) in side.items()} for side in sides]
    masks = case.lesions_reference or case.lesions_template
    numbers = sorted(set(outlines[0]) | set(outlines[1])) if table is None else sorted(table)
    if table is not None and masks:
        strange = sorted((set(outlines[0]) | set(outlines[1])) - set(table))
        if strange:
            raise InputError(f"label {strange[0]} is not an id in {case.lesions}", field=masks)
    found = []
    for number in numbers:
        lesion = table[number] if table is not None else _lesion_of(number, volumes, outlines)
        reference, template = (side.get(number) for side in outlines)
        if reference is None and lesion.centre_reference_mm is not None:
            reference = shape_outline(lesion.centre_reference_mm, lesion.diameter_reference_mm)
        if template is None and lesion.centre_template_mm is not None:
            template = shape_outline(lesion.centre_template_mm, lesion.diameter_template_mm)
        moved = _moved(lesion, reference, template, mapping if template is not None else None, points)
        found.append(KnownLesion(lesion, reference, template, moved))
    return tuple(found)


def _moved(
    lesion: TrueLesion,
    reference: Outline | None,
    template: Outline | None,
    mapping: Mapping | None,
    points: tuple[FloatArray, FloatArray] | None,
) -> Outline | None:
    """L^T(y): by the true y; else as a whole to the lesion's own place in R; else by the nearest true points."""
    if lesion.diameter_template_mm == 0:
        return None
    if template is not None and mapping is not None:
        return moved_outline(template, mapping)
    place = lesion.centre_reference_mm or (None if reference is None else reference.centre_mm)
    if place is None and template is not None and points is not None:
        distance = np.linalg.norm(points[1] - template.centre_mm, axis=1)
        nearest = np.argsort(distance)[:NEAREST]
        x, y, z = (float(v) for v in template.centre_mm + (points[0] - points[1])[nearest].mean(axis=0))
        place = (x, y, z)
    if place is None:
        return None
    return shape_outline(place, lesion.diameter_template_mm) if template is None else template.at(place)


def _outlines(path: Path | None) -> dict[int, tuple[Outline, float]]:
    """Outline and volume in ml of every label of a map."""
    if path is None:
        return {}
    labels, grid = read_labels(path)
    if int(labels.max()) == 1:  # perhaps a mask of all lesions
        parts, _ = ndimage.label(labels, np.ones((3, 3, 3)))
        large = int((label_sizes(parts)[1:] >= SMALLEST_REGION_VOX).sum())
        if large > 1:
            raise InputError(
                f"holds one label in {large} separate parts",
                field=path,
                expected="a number of its own for every lesion, the same in both scans",
                remedy="label the lesions from 1 (one lesion in several parts: from 2)",
            )
    sizes = label_sizes(labels)
    outlines = mask_outlines(labels, grid)
    return {number: (outline, float(sizes[number]) * grid.voxel_volume_ml) for number, outline in outlines.items()}


def _lesion_of(number: int, volumes: list[dict[int, float]], outlines: list[dict[int, Outline]]) -> TrueLesion:
    """A lesion that is known from its masks alone."""
    now, before = (side.get(number, 0.0) for side in volumes)
    here, there = (None if number not in side else side[number].centre_mm for side in outlines)
    diameters = [sphere_diameter_mm(volume) for volume in (now, before)]
    return TrueLesion(number, kind_of_sizes(now, before), here, there, diameters[0], diameters[1], now, before)
