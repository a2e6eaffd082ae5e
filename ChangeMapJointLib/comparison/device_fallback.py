"""Where a comparison computes: on the device that was asked for, until its memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ChangeMapJointLib.core.memory import is_out_of_memory

T = TypeVar("T")

ON_CPU = "The GPU's memory did not suffice for the registration; from there on it was computed on the CPU."


class DeviceFallback:
    """A device, the CPU from the first call on that a GPU cannot hold.

    Attributes:
        device: where the next call computes.
        notes: sentences on what was done in another way than asked for.
    """

    def __init__(self, device: torch.device) -> None:
        """``device``: the one that was asked for."""
        self.device = device
        self.notes: tuple[str, ...] = ()

    def call(self, work: Callable[[torch.device], T]) -> T:
        """What ``work`` gives, which computes on the device that it is given; it may be called twice."""
        try:
            return work(self.device)
        except (MemoryError, RuntimeError) as error:
            if self.device.type == "cpu" or not is_out_of_memory(error):
                raise
        self.device, self.notes = torch.device("cpu"), (*self.notes, ON_CPU)
        return work(self.device)
