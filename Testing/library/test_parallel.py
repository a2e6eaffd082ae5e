"""Calls at once: order, errors, and threads that never begin."""

import _thread
import contextlib
import threading
from collections.abc import Callable

import pytest

from ChangeMapJointLib.core.parallel import limit_threads, run_both, run_parallel


def nothing() -> None:
    pass


def test_calls_run_at_the_same_time_and_keep_their_order() -> None:
    met = threading.Barrier(2, timeout=60)

    def call(value: str) -> str:
        met.wait()  # passes only when both run
        return value

    assert run_parallel([lambda: call("first"), lambda: call("second")], nothing) == ["first", "second"]


def test_the_error_of_the_first_is_raised() -> None:
    def fail(error: Exception) -> None:
        raise error

    calls = [lambda: fail(MemoryError("one")), lambda: fail(ValueError("two"))]
    with pytest.raises(MemoryError, match="one"):
        run_parallel(calls, nothing)


def test_one_thread_runs_one_call_at_a_time_and_not_the_calls_after_an_error() -> None:
    running, most, begun = [], [], []

    def call(number: int) -> int:
        running.append(number)
        begun.append(number)
        most.append(len(running))
        if number == 3:
            raise ValueError("three")
        running.remove(number)
        return number

    limit_threads(1)
    try:
        assert run_parallel([lambda n=n: call(n) for n in (1, 2)], nothing) == [1, 2]
        with pytest.raises(ValueError, match="three"):
            run_parallel([lambda n=n: call(n) for n in (3, 4)], nothing)
    finally:
        limit_threads(0)
    assert max(most) == 1
    assert begun == [1, 2, 3]


def test_the_limit_holds_for_the_calls_of_calls_and_for_no_other_thread() -> None:
    def pair(value: int, wait_s: float) -> list[int]:
        met = threading.Barrier(2)

        def call(n: int) -> int:
            with contextlib.suppress(threading.BrokenBarrierError):
                met.wait(wait_s)  # passes only when both run
                return value + n
            return -1

        return run_parallel([lambda: call(1), lambda: call(2)], nothing)

    limit_threads(1)
    try:
        assert run_parallel([lambda: pair(10, 0.1)], nothing) == [[-1, -1]]
        other: list[list[int]] = []
        thread = threading.Thread(target=lambda: other.append(pair(20, 60.0)))
        thread.start()
        thread.join()
    finally:
        limit_threads(0)
    assert other == [[21, 22]]


def dead(function: Callable[[], None], arguments: tuple[()]) -> None:
    """A thread that ends before it begins, without a word, as one does without memory."""


def refused(function: Callable[[], None], arguments: tuple[()]) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("start", [dead, refused])
def test_what_no_thread_begins_the_caller_does(start: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", start)
    assert run_parallel([threading.get_ident, threading.get_ident], nothing) == [threading.get_ident()] * 2


def test_what_a_tick_raises_is_raised_while_a_call_runs() -> None:
    go_on = threading.Event()

    def stop() -> None:
        raise InterruptedError

    try:
        with pytest.raises(InterruptedError):
            run_parallel([lambda: go_on.wait(60)], stop)
    finally:
        go_on.set()


def test_both_return_their_own_and_the_error_of_either_is_raised() -> None:
    barrier = threading.Barrier(2, timeout=60)  # each waits for the other
    assert run_both(lambda: (barrier.wait(), 1)[1], lambda: (barrier.wait(), "b")[1]) == (1, "b")
    with pytest.raises(ZeroDivisionError):
        run_both(lambda: 1, lambda: 1 / 0)
