"""The known truth of a synthetic pair, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.synthesis.breathing import BreathingMotion, as_vector
from ChangeMapJointLib.synthesis.lesions import Texture
from ChangeMapJointLib.synthesis.shapes import LesionShape

ChangeKind = Literal["new", "grown", "shrunk", "resolved", "stable"]
CHANGE_KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
FORMAT = "changemap-truth-1"


@dataclass(frozen=True)
class TrueChange:
    """One lesion in both scans.

    Attributes:
        id: number from 1 within the pair.
        kind: its change from the template (prior) to the reference (current).
        centre_reference_mm: LPS; its position in the reference, also where it is absent there.
        centre_template_mm: the same tissue in the template.
        diameter_reference_mm: of the sphere with its volume; 0: absent.
        diameter_template_mm: the same in the template.
        volume_reference_ml: of the voxels it fills; on the pleura smaller than the sphere's.
        volume_template_ml: the same in the template.
        texture: solid, part-solid or ground-glass.
        place: free, vessel or pleura; empty where unknown.
        side: left or right; empty where unknown.
        inserted: False for the patient's own lesions.
        cut: True where the inserted tissue was cut from a real CT; otherwise it was painted.
        shape: its outline in the reference's frame; None: a sphere is used.
    """

    id: int
    kind: ChangeKind
    centre_reference_mm: Vector3
    centre_template_mm: Vector3
    diameter_reference_mm: float
    diameter_template_mm: float
    volume_reference_ml: float = 0.0
    volume_template_ml: float = 0.0
    texture: Texture = "solid"
    place: str = ""
    side: str = ""
    inserted: bool = True
    cut: bool = False
    shape: LesionShape | None = None

    def __post_init__(self) -> None:
        check_kind(self.kind, self.diameter_reference_mm, self.diameter_template_mm)

    @property
    def solid(self) -> bool:
        """Whether it is dense throughout, so that a threshold on the HU difference should detect its change."""
        return self.texture == "solid"

    @property
    def is_change(self) -> bool:
        """Whether its kind is anything but stable."""
        return self.kind != "stable"

    @property
    def diameter_change_mm(self) -> float:
        """Absolute difference of the two diameters."""
        return abs(self.diameter_reference_mm - self.diameter_template_mm)

    def inside(self, grid: Grid) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[slice, slice, slice]]:
        """Its masks L^R and L^T(y) on a grid in the reference's space.

        The lesion moves rigidly, so L^T(y) has the template's size around the centre in the reference.

        Returns:
            The two masks, bool ``[z, y, x]``, and the box of ``grid`` that they cover.
        """
        shape = self.shape or LesionShape()
        largest = max(self.diameter_reference_mm, self.diameter_template_mm)
        radius = shape.radius_mm(largest) + float(max(grid.spacing_mm))
        middle = np.asarray(grid.to_index(self.centre_reference_mm))
        low = np.clip(np.floor(middle - radius / np.array(grid.spacing_mm)), 0, grid.size).astype(int)
        high = np.clip(np.ceil(middle + radius / np.array(grid.spacing_mm)) + 1, 0, grid.size).astype(int)
        high = np.maximum(low, high)
        a, b, c = (slice(int(lo), int(hi)) for lo, hi in zip(low[::-1], high[::-1], strict=True))
        if (high == low).any():
            empty = np.zeros((a.stop - a.start, b.stop - b.start, c.stop - c.start), dtype=bool)
            return empty, empty.copy(), (a, b, c)
        crop = grid.crop(low[::-1], high[::-1])
        offsets = index_points(crop, crop.affine).numpy() - np.asarray(self.centre_reference_mm)
        now = shape.signed_distance(offsets, self.diameter_reference_mm) <= 0
        before = shape.signed_distance(offsets, self.diameter_template_mm) <= 0
        return now & (self.diameter_reference_mm > 0), before & (self.diameter_template_mm > 0), (a, b, c)


@dataclass(frozen=True)
class Correspondences:
    """Corresponding points in the lungs of both scans.

    Attributes:
        reference_mm: ``[n, 3]``, LPS.
        template_mm: ``[n, 3]``, y of the reference points.
        on_vessel: bool ``[n]``; whether the point lies on a vessel.
    """

    reference_mm: FloatArray
    template_mm: FloatArray
    on_vessel: NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The truth of a pair.

    Attributes:
        changes: its lesions, stable ones included.
        motion: y; None where the motion is not synthetic.
        points: true correspondences; None where there are none.
        about: everything else in the file: source, licence, grids, how the pair was made.
    """

    changes: tuple[TrueChange, ...]
    motion: BreathingMotion | None = None
    points: Correspondences | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def check_kind(kind: str, reference_mm: float, template_mm: float) -> None:
    """Check that the two diameters agree with ``kind``.

    Raises:
        InputError: they do not, or the kind is unknown.
    """
    fits = {
        "new": reference_mm > 0 and template_mm == 0,
        "resolved": reference_mm == 0 and template_mm > 0,
        "grown": reference_mm > template_mm > 0,
        "shrunk": template_mm > reference_mm > 0,
        "stable": reference_mm == template_mm > 0,
    }
    if kind not in fits:
        raise InputError(f"found {kind!r}", field="lesion kind", expected=f"one of {', '.join(CHANGE_KINDS)}")
    if not fits[kind]:
        raise InputError(
            f"found {reference_mm:g} mm in the reference and {template_mm:g} mm in the template, which is not {kind}",
            field=f"{kind} lesion",
            remedy="correct the kind or the diameters (0 = absent)",
        )


def write_truth(path: Path, truth: Truth) -> None:
    """Write ``truth`` as JSON: ``about`` first, then one change and one point on each line."""
    document: dict[str, Any] = {"format": FORMAT, **truth.about}
    lines = [f"{json.dumps(key)}: {json.dumps(value, indent=1)}" for key, value in document.items()]
    if truth.motion is not None:
        lines.append(f'"motion": {json.dumps(truth.motion.to_dict())}')
    lines.append('"changes": [\n' + ",\n".join(json.dumps(_change_to_dict(c)) for c in truth.changes) + "\n]")
    if truth.points is not None:
        pairs = np.round(np.hstack([truth.points.reference_mm, truth.points.template_mm]), 3).tolist()
        rows = [json.dumps([*pair, int(on)]) for pair, on in zip(pairs, truth.points.on_vessel, strict=True)]
        lines.append('"points_columns": "x, y, z in the reference, x, y, z in the template (mm, LPS), on a vessel"')
        lines.append('"points": [\n' + ",\n".join(rows) + "\n]")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_truth(path: Path) -> Truth:
    """Read a file that :func:`write_truth` wrote.

    Raises:
        InputError: the file is missing or has another format.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT:
            raise KeyError("format")
        changes = tuple(_change_from_dict(entry) for entry in document.pop("changes"))
        motion = document.pop("motion", None)
        rows = document.pop("points", None)
        document.pop("points_columns", None)
    except OSError as fault:
        raise InputError(f"cannot be read ({fault.strerror})", field=path, expected="a truth file") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as fault:
        if isinstance(fault, InputError):
            raise
        raise InputError(
            f"not a truth file of format {FORMAT!r} ({fault})", field=path, expected="a file from write_truth()"
        ) from None
    points = None
    if rows is not None:
        table = np.asarray(rows, dtype=float).reshape(-1, 7)
        points = Correspondences(table[:, :3], table[:, 3:6], table[:, 6] > 0)
    return Truth(changes, None if motion is None else BreathingMotion.from_dict(motion), points, document)


def _change_to_dict(change: TrueChange) -> dict[str, Any]:
    values = {name: getattr(change, name) for name in change.__dataclass_fields__}
    values["solid"] = change.solid
    values["shape"] = None if change.shape is None else change.shape.to_dict()
    return values


def _change_from_dict(values: Mapping[str, Any]) -> TrueChange:
    entry = {name: value for name, value in values.items() if name in TrueChange.__dataclass_fields__}
    entry["centre_reference_mm"] = as_vector(entry["centre_reference_mm"])
    entry["centre_template_mm"] = as_vector(entry["centre_template_mm"])
    shape = entry.get("shape")
    entry["shape"] = None if shape is None else LesionShape.from_dict(shape)
    return TrueChange(**entry)
