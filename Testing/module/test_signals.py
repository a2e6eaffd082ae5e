"""The signal: every listener is called, in order, whatever another one does."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "ChangeMapJoint"))

from ChangeMapJointGui import signals
from ChangeMapJointGui.signals import Signal


class Listener:
    """Remembers what it was called with."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def hear(self, value: Any) -> None:
        self.values.append(value)


def test_listeners_hear_each_value_once_and_in_order() -> None:
    signal, calls = Signal[str](), []
    first, second = (lambda value, n=n: calls.append((n, value)) for n in (1, 2))
    for listener in (first, second, first):
        signal.connect(listener)
    signal.emit("loaded")
    assert calls == [(1, "loaded"), (2, "loaded")]


def test_who_disconnects_hears_no_more() -> None:
    signal, one, other = Signal[int](), Listener(), Listener()
    signal.connect(one.hear)
    signal.connect(other.hear)
    signal.disconnect(one.hear)  # a bound method is made anew at each access
    signal.disconnect(one.hear)
    signal.emit(3)
    assert (one.values, other.values) == ([], [3])


def test_a_listener_may_disconnect_itself_while_it_is_called() -> None:
    signal, calls = Signal[int](), []

    def once(value: int) -> None:
        calls.append(value)
        signal.disconnect(once)

    after = Listener()
    signal.connect(once)
    signal.connect(after.hear)
    signal.emit(1)
    signal.emit(2)
    assert (calls, after.values) == ([1], [1, 2])


def test_an_error_of_one_listener_does_not_lose_the_others(monkeypatch) -> None:
    signal, last = Signal[str](), Listener()
    shown: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(error))

    def failing(text: str) -> Any:
        def listen(value: str) -> None:
            raise ValueError(f"{text}: {value}")

        return listen

    for listener in (failing("first"), failing("second"), last.hear):
        signal.connect(listener)
    with pytest.raises(ValueError, match="first: loaded"):
        signal.emit("loaded")
    assert last.values == ["loaded"]
    assert [str(error) for error in shown] == ["second: loaded"]


def test_each_signal_has_its_own_listeners() -> None:
    one, other, listener = Signal[int](), Signal[int](), Listener()
    one.connect(listener.hear)
    other.emit(1)
    assert listener.values == []


def test_the_example_in_its_docstring_is_true() -> None:
    result = doctest.testmod(signals)
    assert result.attempted > 0
    assert result.failed == 0
