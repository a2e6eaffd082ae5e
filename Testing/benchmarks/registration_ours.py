"""One registration as the product does it, on points: ``registration_ours.py REFERENCE TEMPLATE POINTS.npy OUT.npy``.

Reads both scans, finds the lungs, aligns rigidly, registers, and writes where the points (LPS, mm) go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ChangeMapJointLib.registration.rigid import align_rigid
from ChangeMapJointLib.registration.solver import register
from ChangeMapJointLib.volumes.lungs import segment_lungs
from ChangeMapJointLib.volumes.reading import read_volume

reference, template = (read_volume(Path(name)) for name in sys.argv[1:3])
lungs = [segment_lungs(volume).mask for volume in (reference, template)]
rigid = align_rigid(reference, template, *lungs)
found = register(reference, template, *lungs, rigid=rigid.matrix)
np.save(sys.argv[4], found.field.apply(np.load(sys.argv[3])))
print(json.dumps({"folding_percent": found.folding_percent, "rigid_only": rigid.matrix.tolist()}))
