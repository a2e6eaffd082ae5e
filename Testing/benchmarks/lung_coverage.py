"""How much of every annotated lesion the lung masks cover, on the CTs of ``DATA/ct15``.

    python Testing/benchmarks/lung_coverage.py DATA

Writes ``results/lung_coverage.json``: volumes of both lungs, notes, and the covered share of every lesion component.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import write_results
from scipy import ndimage

from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs


def coverage(scan: Path) -> dict[str, Any]:
    """Figures of one CT; lesions are the components of ``*_lesion`` of at least five voxels."""
    volume = read_volume(scan)
    start = time.monotonic()
    lungs = segment_lungs(volume)
    figures: dict[str, Any] = {
        "time_s": round(time.monotonic() - start, 2),
        "right_ml": round(lungs.right_ml, 1),
        "left_ml": round(lungs.left_ml, 1),
        "notes": list(lungs.notes),
        "lesions": [],
    }
    marked = scan.with_name(scan.name.replace("_ct", "_lesion"))
    if marked.exists():
        labels, count = ndimage.label(read_array(marked)[0] > 0, np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        figures["lesions"] = [
            {
                "volume_ml": round(float(sizes[n]) * volume.grid.voxel_volume_ml, 3),
                "covered": round(float(lungs.mask[labels == n].mean()), 4),
            }
            for n in range(1, count + 1)
            if sizes[n] >= 5
        ]
    return figures


def main() -> None:
    """Measure every CT and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    scans = sorted((parser.parse_args().data / "ct15").glob("*_ct.nii.gz"))
    results = {scan.name.removesuffix("_ct.nii.gz"): coverage(scan) for scan in scans}
    for name, figures in results.items():
        print(name, figures)
    print(write_results("lung_coverage", results))


if __name__ == "__main__":
    main()
