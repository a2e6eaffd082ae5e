"""Names that a user chooses from: methods, devices, weights, and presets of the registration. It imports nothing heavy.

What is fixed about each method stands in :mod:`ChangeMapJointLib.change.method_table`.
"""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["rigid", "sequential", "joint"]
DEFAULT_METHOD: Method = "sequential"

DeviceName = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[DeviceName, ...] = get_args(DeviceName)
DEFAULT_DEVICE: DeviceName = "auto"

DEFAULT_WEIGHTS = "default"  # of the joint network, below Resources/Models

Preset = Literal["fast", "default", "accurate"]
DEFAULT_PRESET: Preset = "default"
# voxel size in mm that the finest level of the registration works at
WORKING_MM: dict[Preset, float] = {"fast": 2.25, "default": 1.5, "accurate": 1.0}
