"""Settings of the registration by what they cost and give.

CPU seconds of one core for 165 x 123 x 173 voxels of 1.75 mm, and the error on known20mm and on a pair of 38 mm with
40 HU of noise (``Testing/benchmarks/registration_cases.py``):

=========== ===== ============ =========
preset      CPU s  known20mm     38 mm
=========== ===== ============ =========
fast          2.1     0.30 mm    0.36 mm
default       4.8     0.16 mm    0.32 mm
accurate      9.3     0.16 mm    0.32 mm
=========== ===== ============ =========

``accurate`` pays where voxels are finer than 1.5 mm: it works at 1 mm.
"""

from __future__ import annotations

from typing import Literal

from ChangeMapJointLib.registration.solver import RegistrationOptions

Preset = Literal["fast", "default", "accurate"]

PRESETS: dict[str, RegistrationOptions] = {
    "fast": RegistrationOptions(iterations=(40, 25, 10), working_mm=2.25, tolerance=3e-3),
    "default": RegistrationOptions(),
    "accurate": RegistrationOptions(iterations=(100, 80, 60), working_mm=1.0, tolerance=1e-4),
}
