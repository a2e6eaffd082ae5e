"""Stand-ins for CTK's containers and buttons, with the properties, slots and signals of their headers."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, QRect, QSize, Qt, Signal

from slicerhost.properties import stored

UNLIMITED = 16777215


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A titled section that a click folds away."""

    contentsCollapsed = Signal(bool)
    flat, setFlat = stored(bool, "flat", False)
    collapsedHeight, setCollapsedHeight = stored(int, "collapsedHeight", 10)
    contentsLineWidth, setContentsLineWidth = stored(int, "contentsLineWidth", 1)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((one for one in arguments if isinstance(one, QtWidgets.QWidget)), None))
        if arguments and isinstance(arguments[0], str):
            self.text = arguments[0]
        self._collapsed = False
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda on: self._fold(not on))

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: self._collapsed, setCollapsed)

    def _fold(self, collapsed: bool) -> None:
        self._collapsed = bool(collapsed)
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(not collapsed)
        self.setMaximumHeight(self._title_height() + 4 if collapsed else UNLIMITED)
        self.updateGeometry()
        self.contentsCollapsed.emit(self._collapsed)

    def _title_height(self) -> int:
        return self.fontMetrics().height() + 8

    def event(self, event: QtCore.QEvent) -> bool:
        if event.type() in (QtCore.QEvent.Type.LayoutRequest, QtCore.QEvent.Type.Show) and self.layout() is not None:
            margins = self.layout().contentsMargins
            if margins.top() < self._title_height():
                margins.setTop(margins.top() + self._title_height())
                self.layout().setContentsMargins(margins)
        return super().event(event)

    def sizeHint(self) -> QSize:
        inside = self.layout().sizeHint() if self.layout() and not self._collapsed else QSize(100, 0)
        return QSize(max(inside.width(), 120), max(inside.height(), self._title_height()))

    def minimumSizeHint(self) -> QSize:
        inside = self.layout().minimumSize() if self.layout() and not self._collapsed else QSize(100, 0)
        return QSize(inside.width(), max(inside.height(), self._title_height()))

    def paintEvent(self, event: Any) -> None:
        painter, option = QtWidgets.QStylePainter(self), QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QRect(0, 0, self.width, self._title_height())
        option.text = ("▸ " if self._collapsed else "▾ ") + self.text
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButton, option)
        painter.end()

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() <= self._title_height()


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box that folds away when it is unchecked."""

    collapsedHeight, setCollapsedHeight = stored(int, "collapsedHeight", 14)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(self._fold)

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.checked, setCollapsed)

    def _fold(self, expanded: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(expanded)
        self.setMaximumHeight(UNLIMITED if expanded else self.fontMetrics().height() + 8)


class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box."""


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for no choice."""

    defaultText, setDefaultText = stored(str, "defaultText", "")
    scrollWheelEffect = stored(int, "scrollWheelEffect", 0)[0]


class ctkPushButton(QtWidgets.QPushButton):
    """A push button."""


class ctkCheckablePushButton(ctkPushButton):
    """A push button with a check box in it."""

    checkBoxControlsButton, setCheckBoxControlsButton = stored(bool, "checkBoxControlsButton", True)


class ctkMenuButton(QtWidgets.QPushButton):
    """A push button whose arrow opens its menu."""


class ctkColorPickerButton(QtWidgets.QPushButton):
    """A button that shows a color and lets it be chosen."""

    colorChanged = Signal("QColor")
    displayColorName, setDisplayColorName = stored(bool, "displayColorName", True)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._color = QtCore.Qt.GlobalColor.black

    def setColor(self, color: Any) -> None:
        if color != self._color:
            self._color = color
            self.colorChanged.emit(color)

    color = Property("QColor", lambda self: self._color, setColor)


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box with "do not show again"."""

    dontShowAgain, setDontShowAgain = stored(bool, "dontShowAgain", False)
    dontShowAgainVisible, setDontShowAgainVisible = stored(bool, "dontShowAgainVisible", False)
    dontShowAgainSettingsKey, setDontShowAgainSettingsKey = stored(str, "dontShowAgainSettingsKey", "")


class ctkExpandButton(QtWidgets.QToolButton):
    """A tool button with an arrow."""

    orientation = stored(int, "orientation", Qt.Orientation.Horizontal.value)[0]
