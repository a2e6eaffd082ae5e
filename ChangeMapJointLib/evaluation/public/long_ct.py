"""NLST-New-Lesion-LongCT (TCIA, doi 10.7937/eyvh-ag54): new lesions of NLST as points, with the prior scan.

As downloaded: a folder for each participant with one folder for each date, which holds CTs (``2-11111.nii.gz``) and
points (``point_1.nii.gz``), and folders ``register_Byr0_FUyr1`` with the prior registered to the follow-up, named after
both CTs: ``2-11111_3-22222.nii.gz`` (base line first). A point is an image that is 0 except at the lesion.

The registered prior tells which two CTs belong together; the pair itself is made of the CTs as acquired. The points
have no size: each lesion becomes a sphere of ``diameter_mm``, so a result finds it within half of that. Only new
lesions were annotated: anything else that changed counts as false, and precision says little.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.evaluation.public.pairs import PointLesion, PublicPair
from ChangeMapJointLib.io.read import read_array

DIAMETER_MM = 10.0
ENDING = ".nii.gz"
DATE = re.compile(r"(\d\d)-(\d\d)-(\d{4})")


def read_long_ct(folder: Path, *, diameter_mm: float = DIAMETER_MM) -> list[PublicPair]:
    """The pairs of the data set.

    Args:
        folder: that holds the participants' folders, at any depth.
        diameter_mm: of the sphere that stands for a lesion.

    Raises:
        InputError: there is no registered pair, a CT or the points of one are missing, or a point is empty.
    """
    pairs: list[PublicPair] = []
    for registered in sorted(folder.rglob(f"register_*/*{ENDING}")):
        patient = registered.parent.parent
        scans = {
            path.name.removesuffix(ENDING): path
            for path in sorted(patient.glob(f"*/*{ENDING}"))
            if not path.parent.name.startswith("register_") and not path.name.startswith("point_")
        }
        stem = registered.name.removesuffix(ENDING)
        both = [(a, b) for a in scans for b in scans if f"{a}_{b}" == stem]
        if len(both) != 1:
            raise InputError(
                "names two CTs that are not there", field=registered, expected=f"two of {', '.join(scans) or 'none'}"
            )
        template, reference = (scans[name] for name in both[0])
        points = sorted(reference.parent.glob(f"point_*{ENDING}"))
        if not points:
            raise InputError("holds no point_*.nii.gz", field=reference.parent, expected="the lesions of the follow-up")
        lesions = tuple(PointLesion(n, _centre(path), diameter_mm) for n, path in enumerate(points, 1))
        name = f"{patient.name}_{registered.parent.name.removeprefix('register_')}"
        if any(pair.name == name for pair in pairs):
            name = f"{name}_{stem}"
        days = _days(template.parent.name, reference.parent.name)
        pairs.append(PublicPair(name, patient.name, reference, template, days, lesions))
    if not pairs:
        raise InputError("holds no register_*/*.nii.gz", field=folder, expected="the NIfTI package of the data set")
    return pairs


def _centre(path: Path) -> Vector3:
    """Middle of the voxels above 0, in mm, LPS."""
    array, grid = read_array(path)
    index = np.argwhere(np.asarray(array, dtype=float) > 0)
    if not len(index):
        raise InputError("is empty", field=path, expected="a point above 0")
    x, y, z = grid.to_physical(index.mean(axis=0)[::-1])
    return float(x), float(y), float(z)


def _days(before: str, after: str) -> float | None:
    """Days between two folders whose names hold dates as TCIA writes them, ``01-02-1999``."""
    found = [DATE.search(name) for name in (before, after)]
    if not all(found):
        return None
    try:
        first, second = (date(int(m[3]), int(m[1]), int(m[2])) for m in found if m)
    except ValueError:
        return None
    return float((second - first).days)
