"""Does its tissue's mass explain how dense a lung is after a breath?

    python Testing/benchmarks/breathing_density.py DATA

DATA holds ``pairs/popi`` (phases 00, 30 and 50 of a real 4D CT: nothing but breathing lies between them; voxels of
5 x 5 x 6 mm) and ``pairs/known20mm`` (synthetic motion, density and lesions on a real CT). Each pair is registered as
the program does it, and T(y) compared with R as it is, and as dense as its tissue is in R's room
(``joint/density.py``), which a network's last block can be shown. Writes ``results/breathing_density.json``: over R's
lungs deeper than 5 mm, the mean of |R - T(y)| in HU, and the median of R - T(y) where y says that the lung was
compressed or stretched by a twentieth at least.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_results
from scipy.ndimage import distance_transform_edt

from ChangeMapJointLib.change.maps import match_voxel_blur
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.joint.density import at_density
from ChangeMapJointLib.lungs.segment import segment_both
from ChangeMapJointLib.registration.deformable.register import register
from ChangeMapJointLib.registration.keypoints.match import find_correspondences
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.padding import unseen_of
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan

PAIRS = {
    "real: POPI, 00 to 50": ("popi/phase_00", "popi/phase_50"),
    "real: POPI, 50 to 00": ("popi/phase_50", "popi/phase_00"),
    "real: POPI, 30 to 00": ("popi/phase_30", "popi/phase_00"),
    "synthetic on real CT: known20mm": ("known20mm/reference", "known20mm/template"),
}
DEEPER_MM = 5.0
COMPRESSED, STRETCHED = 1.05, 0.95


def measure(reference: Path, template: Path) -> dict[str, Any]:
    """Figures of one pair."""
    r, t = read_volume(reference), read_volume(template)
    lungs = [side.mask for side in segment_both(r, t)]
    rigid = align_rigid(*map(Scan.of, (r, t), lungs)).matrix
    keypoints = find_correspondences(ScanPair.of(r, t, *lungs, rigid=rigid)).keypoints
    field = register(ScanPair.of(r, t, *lungs, rigid=rigid), keypoints=keypoints).field
    ours, theirs = match_voxel_blur(
        r.array, r.grid, t.array, t.grid, reference_unseen=unseen_of(r), template_unseen=unseen_of(t)
    )
    moved = warp(theirs, t.grid, r.grid, field, outside=np.nan)
    det = resample(field.jacobian_determinant(), field.grid, r.grid, outside=1.0)
    matched = at_density(torch.from_numpy(moved)[None, None], torch.from_numpy(det)[None])[0, 0].numpy()
    deep = distance_transform_edt(lungs[0], sampling=r.grid.spacing_mm[::-1]) > DEEPER_MM
    deep &= np.isfinite(moved) & np.isfinite(ours)
    where = {"compressed": deep & (det > COMPRESSED), "stretched": deep & (det < STRETCHED)}
    return {
        "det, 10, 50 and 90 %": [round(float(v), 3) for v in np.percentile(det[deep], (10, 50, 90))],
        "mean |R - T(y)| HU": _both(lambda v: np.abs(ours - v)[deep].mean(), moved, matched),
        **{
            f"median R - T(y) HU where {name}": _both(lambda v, part=part: np.median((ours - v)[part]), moved, matched)
            for name, part in where.items()
            if part.mean() > 0.01 * deep.mean()
        },
    }


def _both(figure: Any, moved: NDArray[np.float32], matched: NDArray[np.float32]) -> dict[str, float]:
    return {"as it is": round(float(figure(moved)), 1), "density matched": round(float(figure(matched)), 1)}


def main() -> None:
    """Measure every pair and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    pairs = parser.parse_args().data / "pairs"
    results = {}
    for name, sides in PAIRS.items():
        reference, template = (pairs / f"{side}.nii.gz" for side in sides)
        results[name] = measure(reference, template)
        print(name, results[name], flush=True)
    print(write_results("breathing_density", results))


if __name__ == "__main__":
    main()
