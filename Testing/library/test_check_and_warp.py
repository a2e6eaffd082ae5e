"""The check of a registration and the warp run at once: one note where a GPU is full, an end where the user stops."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ChangeMapJointLib.comparison import assess
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.core.errors import Cancelled
from ChangeMapJointLib.core.parallel import run_both


def test_a_gpu_that_is_full_for_two_at_once_is_left_once() -> None:
    both = threading.Barrier(2, timeout=60)
    fallback = DeviceFallback(torch.device("cuda"))

    def work(device: torch.device) -> str:
        if device.type == "cuda":
            both.wait()  # each has begun on the GPU
            raise torch.OutOfMemoryError("CUDA out of memory")
        return device.type

    assert run_both(lambda: fallback.call(work), lambda: fallback.call(work)) == ("cpu", "cpu")
    assert len(fallback.notes) == 1


def test_a_check_that_the_user_stops_ends_at_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, stopped = threading.Event(), threading.Event()

    def endless(*arguments: Any) -> None:
        progress = arguments[-1]
        try:
            while True:
                progress(0.5)
                stopped.wait(0.001)
        except Cancelled:
            ended.set()
            raise

    def stop(_fraction: float, _message: str = "") -> None:
        raise Cancelled

    monkeypatch.setattr(assess, "check_registration", endless)
    monkeypatch.setattr(assess, "warp_template", lambda *_: None)
    pair: Any = SimpleNamespace(reference=SimpleNamespace(array=np.zeros((1, 1, 1))), clear_cache=lambda: None)
    output: Any = None
    with pytest.raises(Cancelled):
        assess._check_and_warp(pair, output, RunConfig(), DeviceFallback(torch.device("cpu")), stop)
    assert ended.wait(60)
