"""What a user does: choose, click, drag, type, press keys, wait; and pictures of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtTest, QtWidgets
from PySide6.QtCore import Qt

from slicerhost.sliceviews import qMRMLSliceView

STEP_MS = 10
LOOK_MS = 25  # between two looks at what is waited for, which may be all processes of the system


def choose(selector: Any, choice: Any) -> None:
    """Pick a node (or None) in a qMRMLNodeComboBox, or a text in a combo box, from its drop-down list."""
    box = getattr(selector, "_list", selector)
    index = box.findText(choice) if isinstance(choice, str) else box.findData(choice.GetID() if choice else "")
    if index < 0:
        raise LookupError(f"{selector.name} does not list {choice}: {entries(selector)}")
    box.setCurrentIndex(index)
    box.activated.emit(index)
    slicer.app.processEvents()


def entries(selector: Any) -> list[str]:
    """The texts that a drop-down list shows."""
    box = getattr(selector, "_list", selector)
    return [box.itemText(index) for index in range(box.count)]


def click(widget: Any, at: QtCore.QPoint | None = None) -> None:
    """Click a widget; a button must be enabled and not hidden."""
    if not widget.isEnabled() or widget.isHidden():
        raise RuntimeError(f"{widget.name} cannot be clicked: enabled {widget.isEnabled()}, hidden {widget.isHidden()}")
    if isinstance(widget, QtWidgets.QAbstractButton) and at is None:
        widget.click()
    else:
        QtTest.QTest.mouseClick(widget, Qt.MouseButton.LeftButton, pos=at or widget.rect.center())
    slicer.app.processEvents()


def drag(slider: Any, *values: float) -> None:
    """Drag a slider's handle over these values and let go."""
    handle = getattr(slider, "_slider", slider)
    handle.setSliderDown(True)
    for value in values:
        span = (slider.maximum - slider.minimum) or 1
        share = (value - slider.minimum) / span
        handle.setValue(round(handle.minimum + share * (handle.maximum - handle.minimum)))
        slicer.app.processEvents()
    handle.setSliderDown(False)
    slicer.app.processEvents()


def type_text(widget: Any, text: str, enter: bool = True) -> None:
    """Replace a field's content by typing; sliders and path lines have a field inside."""
    field = getattr(widget, "_spin_box", getattr(widget, "_line", widget))
    field.setFocus()
    field.selectAll()
    QtTest.QTest.keyClicks(field, text)
    if enter:
        QtTest.QTest.keyClick(field, Qt.Key.Key_Return)
    slicer.app.processEvents()


def press(widget: Any, key: Any, modifiers: Any = Qt.KeyboardModifier.NoModifier) -> None:
    """Press and release a key."""
    QtTest.QTest.keyClick(widget, key, modifiers)
    slicer.app.processEvents()


def hold(widget: Any, key: Any) -> None:
    """Press a key and keep it down."""
    QtTest.QTest.keyPress(widget, key)
    slicer.app.processEvents()


def let_go(widget: Any, key: Any) -> None:
    """Release a key."""
    QtTest.QTest.keyRelease(widget, key)
    slicer.app.processEvents()


def move_mouse(view: Any, x: int, y: int, modifiers: Any = Qt.KeyboardModifier.NoModifier) -> None:
    """Move the mouse to a pixel of a view; with Shift, Slicer moves the crosshair along."""
    place = QtCore.QPointF(x, y)
    button = Qt.MouseButton.NoButton
    event = QtGui.QMouseEvent(QtCore.QEvent.Type.MouseMove, place, view.mapToGlobal(place), button, button, modifiers)
    QtWidgets.QApplication.sendEvent(view, event)
    slicer.app.processEvents()


def turn_wheel(view: Any, notches: int) -> None:
    """Turn the wheel over the middle of a view; forward is positive."""
    place = QtCore.QPointF(view.rect.center())
    for _ in range(abs(notches)):
        turn = QtCore.QPoint(0, 120 if notches > 0 else -120)
        nothing, phase = QtCore.QPoint(), Qt.ScrollPhase.NoScrollPhase
        held = Qt.KeyboardModifier.NoModifier
        button = Qt.MouseButton.NoButton
        event = QtGui.QWheelEvent(place, view.mapToGlobal(place), nothing, turn, button, held, phase, False)
        QtWidgets.QApplication.sendEvent(view, event)
    slicer.app.processEvents()


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    """Let the application work until something holds.

    Raises:
        TimeoutError: it did not in time.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout_s} s: {condition}")
        QtTest.QTest.qWait(LOOK_MS)


def screenshot(path: Path | str, widget: Any = None) -> None:
    """Picture of the main window, or of a widget."""
    slicer.app.processEvents()
    late, qMRMLSliceView.paints_late = qMRMLSliceView.paints_late, False
    try:
        picture = (widget or slicer.app.mainWindow()).grab()
    finally:
        qMRMLSliceView.paints_late = late
    if not picture.save(str(path)):
        raise OSError(f"{path}: cannot be written")


class StallTimer:
    """Measures how long the event loop was busy at most: ``with StallTimer() as stall: ...; stall.longest_s``."""

    def __enter__(self) -> StallTimer:
        self.longest_s, self._last = 0.0, time.monotonic()
        self._timer = QtCore.QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(STEP_MS)
        return self

    def _tick(self) -> None:
        now = time.monotonic()
        self.longest_s, self._last = max(self.longest_s, now - self._last - STEP_MS / 1000), now

    def __exit__(self, *_exception: Any) -> None:
        self._timer.stop()
