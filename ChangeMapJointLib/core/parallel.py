"""Run several calls in parallel, and finish even where no thread can start.

``threading.Thread.start`` waits for ever if the new thread runs out of memory before it reports that it has started,
and the pools of :mod:`concurrent.futures` use it. :mod:`_thread` does not wait for its threads. A call that no thread
has begun after a while is run by the caller.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

TICK_S = 0.1
PATIENCE_TICKS = 20  # a thread may take this long to begin

_limits = threading.local()  # threads: of this thread's calls; without, a thread for each call


def limit_threads(count: int) -> None:
    """Let :func:`run_parallel`, called by this thread or by its calls, use ``count`` threads at a time.

    Args:
        count: 0 for a thread for each call.
    """
    _limits.threads = count


def run_parallel(calls: Sequence[Callable[[], T]], tick: Callable[[], None]) -> list[T]:
    """Run ``calls`` in parallel and return their results in order.

    If calls fail, the error of the first one in order is raised. Where :func:`limit_threads` allows fewer threads than
    calls, calls that no thread has begun by then never run.

    Args:
        calls: each runs in a thread of its own, or in the calling thread.
        tick: called in the calling thread every 0.1 s while it waits. An error that it raises is passed on; the calls
            themselves go on running.
    """
    limit = getattr(_limits, "threads", 0)
    pending = [_Call(call, limit) for call in calls]
    at_a_time = limit or max(len(pending), 1)
    results = []
    for first in range(0, len(pending), at_a_time):
        group = pending[first : first + at_a_time]
        for call in group:
            try:
                _thread.start_new_thread(call.run, ())
            except RuntimeError:  # no memory is left for a thread's stack
                break
        results += [call.result(tick) for call in group]
    return results


def run_both(first: Callable[[], A], second: Callable[[], B], tick: Callable[[], None] = lambda: None) -> tuple[A, B]:
    """Run two calls that return different things as :func:`run_parallel` does."""
    ones: list[A] = []
    others: list[B] = []
    run_parallel([lambda: ones.append(first()), lambda: others.append(second())], tick)
    return ones[0], others[0]


class _Call(Generic[T]):
    """One call, run by whichever thread claims it first."""

    def __init__(self, call: Callable[[], T], limit: int) -> None:
        self.call, self.limit = call, limit
        self.claimed = threading.Lock()  # never released
        self.ended = threading.Event()
        self.value: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the call, unless another thread has claimed it."""
        if not self.claimed.acquire(blocking=False):
            return
        limit_threads(self.limit)  # as in the thread that waits for it
        try:
            self.value.append(self.call())
        except BaseException as error:  # raised again in result()
            self.error = error
        finally:
            self.ended.set()

    def result(self, tick: Callable[[], None]) -> T:
        """Wait for the call; return its value or raise its error."""
        ticks = 0
        while not self.ended.wait(TICK_S):
            tick()
            ticks += 1
            if ticks >= PATIENCE_TICKS:
                self.run()
        if self.error is not None:
            raise self.error
        return self.value[0]
