"""DIR-Lab: 300 landmarks in inhale and exhale of ten 4DCTs and of ten breath-hold pairs of COPDgene.

As downloaded from dir-lab.com: ``Case1Pack/Images/case1_T00_s.img`` with ``ExtremePhases/Case1_300_T00_xyz.txt``, and
``copd1/copd1_iBHCT.img`` with ``copd1_300_iBH_xyz_r1.txt``. Upper and lower case, and names of folders, vary between
the cases (``extremePhases``, ``case6_dirLab300_T00_xyz.txt``, ``case6_T00.img``), so files are found by their names.

Traps: landmarks are voxel numbers **from 1**, in the order x, y, z; images are int16 without a header, in HU + 1024,
-2000 or 0 outside the field of view; size and spacing stand on the web page alone (:data:`FOUR_D`, :data:`COPD`;
Castillo et al., Phys Med Biol 2009 and 2010, and 2013); the first slice is the one at the head. The scans are written
as NRRD with slices from the feet to the head, and the landmarks with them.

Inhale is the reference and exhale the template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.hu import LOWEST_HU
from ChangeMapJointLib.evaluation.public.pairs import PublicPair, RawScan

Geometry = tuple[int, int, int, float]  # voxels along x, y and z, and the in-plane spacing in mm
SLICE_MM = 2.5
FOUR_D: Mapping[int, Geometry] = {
    1: (256, 256, 94, 0.97),
    2: (256, 256, 112, 1.16),
    3: (256, 256, 104, 1.15),
    4: (256, 256, 99, 1.13),
    5: (256, 256, 106, 1.10),
    6: (512, 512, 128, 0.97),
    7: (512, 512, 136, 0.97),
    8: (512, 512, 128, 0.97),
    9: (512, 512, 128, 0.97),
    10: (512, 512, 120, 0.97),
}
COPD: Mapping[int, Geometry] = {
    1: (512, 512, 121, 0.625),
    2: (512, 512, 102, 0.645),
    3: (512, 512, 126, 0.652),
    4: (512, 512, 126, 0.590),
    5: (512, 512, 131, 0.647),
    6: (512, 512, 119, 0.633),
    7: (512, 512, 112, 0.625),
    8: (512, 512, 115, 0.586),
    9: (512, 512, 116, 0.664),
    10: (512, 512, 135, 0.742),
}
KINDS = {  # geometry; landmarks and image of a phase; phases of inhale and exhale
    "4dct": (FOUR_D, r"case(\d+)_.*300_(T\d\d)_xyz\.txt", r"case(\d+)_(T\d\d)(_s|-ssm)?\.img", ("T00", "T50")),
    "copd": (COPD, r"copd(\d+)_300_(iBH|eBH)_xyz_r1\.txt", r"copd(\d+)_(iBH|eBH)CT\.img", ("IBH", "EBH")),
}


def read_dirlab_4dct(folder: Path, geometry: Mapping[int, Geometry] = FOUR_D) -> list[PublicPair]:
    """The 4DCT cases below ``folder``, T00 as reference and T50 as template.

    Raises:
        InputError: there is none, or a file of a case is missing or damaged.
    """
    return _read(folder, "4dct", geometry)


def read_dirlab_copd(folder: Path, geometry: Mapping[int, Geometry] = COPD) -> list[PublicPair]:
    """The COPDgene cases below ``folder``, inhale (iBH) as reference and exhale (eBH) as template.

    Raises:
        InputError: as :func:`read_dirlab_4dct`.
    """
    return _read(folder, "copd", geometry)


def _read(folder: Path, kind: str, geometry: Mapping[int, Geometry]) -> list[PublicPair]:
    _, landmarks_name, image_name, phases = KINDS[kind]
    landmarks, images = _find(folder, landmarks_name), _find(folder, image_name)
    pairs = []
    for case in sorted({case for case, _ in landmarks}):
        if case not in geometry:
            raise InputError(f"found case {case}", field=folder, expected=f"cases {min(geometry)} to {max(geometry)}")
        missing = [
            f"{what} of {phase}"
            for phase in phases
            for what, found in (("landmarks", landmarks), ("image", images))
            if (case, phase) not in found
        ]
        if missing:
            raise InputError(f"case {case} lacks the {missing[0]}", field=folder, expected="the folders as downloaded")
        nx, ny, nz, spacing = geometry[case]
        grid = Grid((nz, ny, nx), (spacing, spacing, SLICE_MM))
        points = [_points(landmarks[case, phase], grid) for phase in phases]
        if len(points[0]) != len(points[1]):
            raise InputError(
                f"case {case} has {len(points[0])} and {len(points[1])} landmarks",
                field=folder,
                expected="the same number of both",
            )
        scans = [RawScan(images[case, phase], grid, LOWEST_HU, flipped=True) for phase in phases]
        name = f"{kind}{case:02d}"
        pairs.append(PublicPair(name, name, scans[0], scans[1], points=(points[0], points[1])))
    if not pairs:
        raise InputError("holds no landmarks of DIR-Lab", field=folder, expected=f"files like {landmarks_name}")
    return pairs


def _find(folder: Path, pattern: str) -> dict[tuple[int, str], Path]:
    """Files below ``folder`` by case and phase."""
    found = {}
    for path in sorted(folder.rglob("*")):
        match = re.fullmatch(pattern, path.name, re.IGNORECASE)
        if match:
            found[int(match[1]), match[2].upper()] = path
    return found


def _points(path: Path, grid: Grid) -> FloatArray:
    """Landmarks in mm, ``[n, 3]``, from voxel numbers from 1 with the first slice at the head."""
    rows = []
    for number, line in enumerate(path.read_text("ascii", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            x, y, z = (float(value) for value in line.split()[:3])
            if not all(1 <= v <= n for v, n in zip((x, y, z), grid.size, strict=True)):
                raise ValueError
        except ValueError as error:
            raise InputError(
                f"found {line.strip()[:40]!r}",
                field=(path, Argument(f"line {number}")),
                expected=f"voxel numbers from 1 to {grid.size}",
            ) from error
        rows.append((x - 1, y - 1, grid.shape[0] - z))
    if not rows:
        raise InputError("holds no landmarks", field=path)
    return grid.to_physical(np.array(rows))
