"""Make ``correspondences.npz`` from a folder of ``case_NNN.csv``: i, j, k in one scan and in the other, in voxels.

python Resources/Motion/make_motion.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ChangeMapJointLib.synthesis.shipped_motion import PATIENTS, UNIT_MM

VOXEL_MM = np.tile([1.75, 1.25, 1.75], 2)

if __name__ == "__main__":
    folder, here = Path(sys.argv[1]), Path(__file__).parent
    points = {
        name: np.rint(np.loadtxt(folder / f"case_{name}.csv", delimiter=",") * VOXEL_MM / UNIT_MM).astype(np.int16)
        for name in PATIENTS
    }
    np.savez_compressed(here / "correspondences.npz", **points)  # type: ignore[arg-type]
