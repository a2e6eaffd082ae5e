"""Learn2Reg NLST and LungCT: keypoints in both scans, and masks of the lungs.

As downloaded (learn2reg.grand-challenge.org): ``NLST_dataset.json`` or ``LungCT_dataset.json`` with
``training_paired_images``, a list of ``{"fixed": "./imagesTr/NLST_0001_0000.nii.gz", "moving": ...}``; beside it
``keypointsTr/NLST_0001_0000.csv`` with one point per row (no header) and ``masksTr/NLST_0001_0000.nii.gz``.

Trap: keypoints are voxel indices from 0 along the axes of the file, not mm. The challenge's TRE multiplies by the
spacing, as the affine of the header does here. Fixed is the reference, moving the template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.evaluation.public.pairs import PublicPair
from ChangeMapJointLib.io.nifti import read_nifti_header
from ChangeMapJointLib.io.sources import reason_of

SETS = ("training_paired_images", "registration_val", "registration_test")
ENDING = ".nii.gz"


def read_learn2reg(folder: Path) -> list[PublicPair]:
    """The pairs of NLST or LungCT that have keypoints.

    Raises:
        InputError: the JSON file is missing or is not from Learn2Reg, a scan is missing, or keypoints are damaged.
    """
    document = read_only_document(folder, "*_dataset.json")
    pairs: dict[str, PublicPair] = {}
    for entry in (entry for name in SETS for entry in document.get(name) or ()):
        if not (isinstance(entry, Mapping) and {"fixed", "moving"} <= set(entry)):
            raise InputError(f"found {str(entry)[:60]!r}", field=folder, expected="pairs of fixed and moving")
        scans = [folder / str(entry[side]) for side in ("fixed", "moving")]
        keypoints = [_beside(scan, "keypoints", ".csv") for scan in scans]
        name = scans[0].name.removesuffix(ENDING).rsplit("_", 1)[0]
        if name in pairs or not all(path.exists() for path in keypoints):
            continue
        for scan in scans:
            if not scan.exists():
                raise InputError("no such file", field=scan, expected="the scan that the JSON file names")
        points = [_points(path, scan) for path, scan in zip(keypoints, scans, strict=True)]
        if len(points[0]) != len(points[1]):
            raise InputError(
                f"has {len(points[0])} points", field=keypoints[0], expected=f"{len(points[1])}, as moving"
            )
        masks = [_beside(scan, "masks", ENDING) for scan in scans]
        lungs = (masks[0], masks[1]) if all(mask.exists() for mask in masks) else None
        pairs[name] = PublicPair(name, name, scans[0], scans[1], points=(points[0], points[1]), lungs=lungs)
    if not pairs:
        raise InputError("holds no pair with keypoints", field=folder, expected="keypointsTr/*.csv beside imagesTr")
    return list(pairs.values())


def read_only_document(folder: Path, pattern: str) -> dict[str, Any]:
    """The one JSON object in ``folder`` that ``pattern`` fits.

    Raises:
        InputError: there is none, there are several, or it is not a JSON object.
    """
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise InputError(f"holds {len(files)} files {pattern}", field=folder, expected="one")
    try:
        document = json.loads(files[0].read_text("utf-8-sig"))
        if not isinstance(document, dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=files[0], expected="a JSON object") from error
    return document


def _beside(scan: Path, kind: str, ending: str) -> Path:
    """``keypointsTr/X.csv`` or ``masksTr/X.nii.gz`` for ``imagesTr/X.nii.gz``."""
    folder = scan.parent.with_name(scan.parent.name.replace("images", kind))
    return folder / (scan.name.removesuffix(ENDING) + ending)


def _points(path: Path, scan: Path) -> FloatArray:
    """Points in mm (LPS), ``[n, 3]``, from indices along the axes of the scan's file."""
    try:
        index = np.loadtxt(path, delimiter=",", ndmin=2)
        if index.shape[1] != 3 or not np.isfinite(index).all():
            raise ValueError(f"{index.shape[1]} columns")
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be read ({reason_of(error)})", field=path, expected="rows of three indices"
        ) from error
    header = read_nifti_header(scan, scalar=True)
    nz, ny, nx = header.shape
    if (index < -0.5).any() or (index > np.array([nx, ny, nz]) - 0.5).any():
        raise InputError("holds points outside the scan", field=path, expected=f"indices from 0 to {(nx, ny, nz)}")
    affine = np.asarray(header.affine)
    points: FloatArray = index @ affine[:3, :3].T + affine[:3, 3]
    return points
