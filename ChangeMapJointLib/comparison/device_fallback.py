"""Compute on the chosen device, and move to the CPU when the GPU runs out of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.memory import is_out_of_memory

T = TypeVar("T")

ON_CPU = "The GPU ran out of memory during the registration; the rest was computed on the CPU."


_changing = threading.Lock()


class DeviceFallback:
    """The device of a comparison; becomes the CPU at the first call that does not fit into the GPU's memory.

    Attributes:
        device: where the next call computes.
        notes: sentences for the report on every change of device.
    """

    def __init__(self, device: torch.device) -> None:
        """``device``: where to start."""
        self.device = device
        self.notes: tuple[str, ...] = ()

    def call(self, work: Callable[[torch.device], T]) -> T:
        """Return ``work(device)``; ``work`` is called a second time, with the CPU, if the GPU runs out of memory.

        Several threads may call at once.
        """
        device = self.device
        try:
            return work(device)
        except (MemoryError, RuntimeError) as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
        with _changing:
            if self.device.type != "cpu":
                self.device, self.notes = torch.device("cpu"), (*self.notes, ON_CPU)
        return work(self.device)
