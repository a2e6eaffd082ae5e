"""greedy NCC 2x2x2, affine and deformable, on points: ``registration_greedy.py REFERENCE TEMPLATE POINTS.npy OUT.npy``.

Runs in an environment of its own with ``picsl-greedy`` and ``SimpleITK``. Intensities are clipped to [-1000, 200] HU;
the mask is the reference's lungs by threshold, dilated by 4 voxels.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from picsl_greedy import Greedy3D

MASK_VOX, LUNG_HU = 4, -500
AFFINE = "-i fixed moving -a -dof 12 -ia-identity -m NCC 2x2x2 -n 100x50x0 -o {} -threads 2"
DEFORMABLE = "-i fixed moving -m NCC 2x2x2 -n 100x100x40 -s 2vox 0.7vox -gm mask -it {} -o {} -threads 2"
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

fixed, moving = (sitk.Clamp(sitk.ReadImage(name, sitk.sitkFloat32), lowerBound=-1000, upperBound=200)
                 for name in sys.argv[1:3])  # fmt: skip
labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(fixed < LUNG_HU))
outside = [np.unique(labels[:, :, side]) for side in (0, -1)] + [np.unique(labels[:, side]) for side in (0, -1)]
lungs = (labels > 0) & ~np.isin(labels, np.concatenate(outside))
mask = sitk.GetImageFromArray(lungs.astype(np.uint8))
mask.CopyInformation(fixed)
mask = sitk.Cast(sitk.BinaryDilate(mask, [MASK_VOX] * 3), sitk.sitkFloat32)

greedy = Greedy3D()
with tempfile.TemporaryDirectory() as folder:
    affine, warp_file = Path(folder) / "affine.mat", Path(folder) / "warp.nii.gz"
    greedy.execute(AFFINE.format(affine), fixed=fixed, moving=moving)
    greedy.execute(DEFORMABLE.format(affine, warp_file), fixed=fixed, moving=moving, mask=mask)
    matrix = RAS @ np.loadtxt(affine) @ RAS
    warp = sitk.Cast(sitk.ReadImage(str(warp_file)), sitk.sitkVectorFloat64)

points = np.load(sys.argv[3])
moved = np.empty_like(points)
inside = sitk.DisplacementFieldTransform(warp)
for i, point in enumerate(points):
    moved[i] = (matrix @ [*inside.TransformPoint(point.tolist()), 1.0])[:3]
np.save(sys.argv[4], moved)
print("{}")
