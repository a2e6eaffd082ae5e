"""Stand-ins for CTK's sliders and spin boxes of real numbers."""

from __future__ import annotations

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from slicerhost.properties import stored

STEPS = 100_000


class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    """A spin box of real numbers."""


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box for one real number."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)
    pageStep, setPageStep = stored(float, "pageStep", 10.0)
    tracking, setTracking = stored(bool, "tracking", True)
    tickInterval, setTickInterval = stored(float, "tickInterval", 0.0)
    invertedAppearance, setInvertedAppearance = stored(bool, "invertedAppearance", False)
    popupSlider, setPopupSlider = stored(bool, "popupSlider", False)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._minimum, self._maximum, self._value, self._step = 0.0, 99.0, 0.0, 1.0
        self._busy = False
        self._slider = QtWidgets.QSlider(Qt.Orientation.Horizontal, self)
        self._spin_box = QtWidgets.QDoubleSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider, 1)
        row.addWidget(self._spin_box)
        self._slider.setRange(0, STEPS)
        self._spin_box.setKeyboardTracking(False)
        self._spin_box.setRange(self._minimum, self._maximum)
        self._slider.valueChanged.connect(self._on_slid)
        self._slider.sliderReleased.connect(self._on_released)
        self._spin_box.valueChanged.connect(lambda value: None if self._busy else self.setValue(value))

    def _slider_value(self) -> float:
        share = self._slider.value / STEPS
        return round(self._minimum + (self._maximum - self._minimum) * share, self._spin_box.decimals)

    def _on_slid(self, _position: int) -> None:
        if self._busy:
            return
        held = self._slider.isSliderDown()
        if held:
            self.valueIsChanging.emit(self._slider_value())
        if self.tracking or not held:
            self.setValue(self._slider_value())

    def _on_released(self) -> None:
        if not self.tracking:
            self.setValue(self._slider_value())

    def setValue(self, value: float) -> None:
        value = round(min(max(float(value), self._minimum), self._maximum), self._spin_box.decimals)
        changed, self._value = value != self._value, value
        self._busy = True
        self._spin_box.setValue(value)
        span = (self._maximum - self._minimum) or 1
        self._slider.setValue(round((value - self._minimum) / span * STEPS))
        self._busy = False
        if changed:
            self.valueChanged.emit(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self._minimum, self._maximum = float(minimum), max(float(minimum), float(maximum))
        self._busy = True
        self._spin_box.setRange(self._minimum, self._maximum)
        self._busy = False
        self.setValue(self._value)

    def setMinimum(self, minimum: float) -> None:
        self.setRange(minimum, max(minimum, self._maximum))

    def setMaximum(self, maximum: float) -> None:
        self.setRange(min(maximum, self._minimum), maximum)

    def setSingleStep(self, step: float) -> None:
        self._step = step
        self._spin_box.setSingleStep(step)
        self._slider.setSingleStep(max(round(step / ((self._maximum - self._minimum) or 1) * STEPS), 1))

    def setDecimals(self, decimals: int) -> None:
        self._spin_box.setDecimals(decimals)
        self.decimalsChanged.emit(decimals)

    def setSpinBoxVisible(self, visible: bool) -> None:
        self._spin_box.setVisible(visible)

    def setSuffix(self, suffix: str) -> None:
        self._spin_box.setSuffix(suffix)

    def setPrefix(self, prefix: str) -> None:
        self._spin_box.setPrefix(prefix)

    def reset(self) -> None:
        self.setValue(0.0)

    value = Property(float, lambda self: self._value, setValue)
    minimum = Property(float, lambda self: self._minimum, setMinimum)
    maximum = Property(float, lambda self: self._maximum, setMaximum)
    singleStep = Property(float, lambda self: self._step, setSingleStep)
    decimals = Property(int, lambda self: self._spin_box.decimals, setDecimals)
    suffix = Property(str, lambda self: self._spin_box.suffix, setSuffix)
    prefix = Property(str, lambda self: self._spin_box.prefix, setPrefix)
    spinBoxVisible = Property(bool, lambda self: self._spin_box.visible, setSpinBoxVisible)


class ctkDoubleSlider(ctkSliderWidget):
    """A slider of real numbers without the spin box."""

    sliderMoved = Signal(float)
    sliderPressed = Signal()
    sliderReleased = Signal()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((one for one in arguments if isinstance(one, QtWidgets.QWidget)), None))
        self._spin_box.setVisible(False)
        self._spin_box.setDecimals(6)
        self._slider.sliderMoved.connect(lambda _: self.sliderMoved.emit(self._slider_value()))
        self._slider.sliderPressed.connect(self.sliderPressed)
        self._slider.sliderReleased.connect(self.sliderReleased)


def _of_both(name: str, kind: type) -> Property:
    """A property that both spin boxes of a range share."""

    def put(self: Any, value: Any) -> None:
        for box in (self._low, self._high):
            setattr(box, name, value)

    return Property(kind, lambda self: getattr(self._low, name), put)


class ctkRangeWidget(QtWidgets.QWidget):
    """Two numbers in a range; here two spin boxes without the slider between them."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._low, self._high = QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for box in (self._low, self._high):
            row.addWidget(box)
            box.setRange(0.0, 99.0)
        self._high.setValue(99.0)
        self._low.valueChanged.connect(self._on_low)
        self._high.valueChanged.connect(self._on_high)

    def _on_low(self, value: float) -> None:
        self._high.setValue(max(self._high.value, value))
        self.minimumValueChanged.emit(value)
        self.valuesChanged.emit(value, self._high.value)

    def _on_high(self, value: float) -> None:
        self._low.setValue(min(self._low.value, value))
        self.maximumValueChanged.emit(value)
        self.valuesChanged.emit(self._low.value, value)

    def setValues(self, low: float, high: float) -> None:
        self._high.setValue(max(high, self._low.value))
        self._low.setValue(low)
        self._high.setValue(high)

    def setRange(self, minimum: float, maximum: float) -> None:
        for box in (self._low, self._high):
            box.setRange(minimum, maximum)
        self.rangeChanged.emit(minimum, maximum)

    minimumValue = Property(float, lambda self: self._low.value, lambda self, value: self._low.setValue(value))
    maximumValue = Property(float, lambda self: self._high.value, lambda self, value: self._high.setValue(value))
    minimum, maximum = _of_both("minimum", float), _of_both("maximum", float)
    decimals, singleStep = _of_both("decimals", int), _of_both("singleStep", float)
    suffix, prefix = _of_both("suffix", str), _of_both("prefix", str)


class ctkDoubleRangeSlider(ctkRangeWidget):
    """The range's slider alone."""
