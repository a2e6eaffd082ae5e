"""The choices that users have: methods, devices and weights. Imports nothing heavy.

The fixed properties of each method are in :mod:`ChangeMapJointLib.change.method_table`.
"""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["rigid", "sequential", "joint"]
DEFAULT_METHOD: Method = "sequential"

DeviceName = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[DeviceName, ...] = get_args(DeviceName)
DEFAULT_DEVICE: DeviceName = "auto"

DEFAULT_WEIGHTS = "default"  # of the joint network, below Resources/Models
