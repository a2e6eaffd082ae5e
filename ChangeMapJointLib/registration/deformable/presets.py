"""Presets of the registration, with their cost and accuracy.

Run time of the whole process on two cores (start-up, lung masks, rigid alignment, keypoints, registration) and mean
error in the lungs, on known20mm and on a pair with 38 mm of motion and 40 HU of noise
(``Testing/benchmarks/registration.py``):

=========== =============== ===============
preset      known20mm       38 mm
=========== =============== ===============
fast        24 s, 0.30 mm   17 s, 0.36 mm
default     22 s, 0.17 mm   18 s, 0.25 mm
accurate    24 s, 0.17 mm   19 s, 0.25 mm
=========== =============== ===============

The registration itself takes 2 to 4 s of that. ``fast`` is worthwhile where voxels are much finer than 2.25 mm,
``accurate``, which works at 1 mm, where they are finer than 1.5 mm.
"""

from __future__ import annotations

from ChangeMapJointLib.core.choices import WORKING_MM, Preset
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions

PRESETS: dict[Preset, RegistrationOptions] = {
    "fast": RegistrationOptions(iterations=(40, 25, 10), working_mm=WORKING_MM["fast"], tolerance=3e-3),
    "default": RegistrationOptions(),
    "accurate": RegistrationOptions(iterations=(100, 80, 60), working_mm=WORKING_MM["accurate"], tolerance=1e-4),
}
