"""Several calls at once, which end even where no thread can start.

``threading.Thread.start`` waits for ever for a thread that dies of a lack of memory before it says that it runs; pools
of :mod:`concurrent.futures` start theirs by it. Threads started by :mod:`_thread` are not waited for: what none of
them has begun after a while, the caller does.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

TICK_S = 0.1
PATIENCE = 20  # ticks that a thread may take to begin


def run_parallel(calls: Sequence[Callable[[], T]], tick: Callable[[], None]) -> list[T]:
    """The results of ``calls``, in their order; the error of the first that has one.

    Args:
        calls: each runs in a thread of its own, or in the calling one.
        tick: called in the calling thread every 0.1 s while it waits; what it raises is raised, and nothing ends the
            calls but themselves.
    """
    waiting = [_Call(call) for call in calls]
    for one in waiting:
        try:
            _thread.start_new_thread(one.run, ())
        except RuntimeError:  # no memory is left for a thread's stack
            break
    return [one.result(tick) for one in waiting]


class _Call(Generic[T]):
    """One call, run by whoever claims it first."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.call = call
        self.claimed = threading.Lock()  # never released
        self.ended = threading.Event()
        self.value: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run it, unless it runs already."""
        if not self.claimed.acquire(blocking=False):
            return
        try:
            self.value.append(self.call())
        except BaseException as error:  # raised again where it is waited for
            self.error = error
        finally:
            self.ended.set()

    def result(self, tick: Callable[[], None]) -> T:
        """Wait for it."""
        ticks = 0
        while not self.ended.wait(TICK_S):
            tick()
            ticks += 1
            if ticks >= PATIENCE:
                self.run()
        if self.error is not None:
            raise self.error
        return self.value[0]
