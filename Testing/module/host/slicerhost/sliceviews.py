"""Slice views in widgets: Slicer's real pipeline, drawn in software; keys and mouse go to its interactor."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from headless import SliceView
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, Signal

from slicerhost import signals
from slicerhost.ctknumbers import ctkSliderWidget

SMALLEST = 120
KEY_SYMBOLS = {
    Qt.Key.Key_Space: "space",
    Qt.Key.Key_Left: "Left",
    Qt.Key.Key_Right: "Right",
    Qt.Key.Key_Up: "Up",
    Qt.Key.Key_Down: "Down",
    Qt.Key.Key_Escape: "Escape",
    Qt.Key.Key_Return: "Return",
    Qt.Key.Key_Tab: "Tab",
    Qt.Key.Key_Shift: "Shift_L",
    Qt.Key.Key_Control: "Control_L",
    Qt.Key.Key_Plus: "plus",
    Qt.Key.Key_Minus: "minus",
    Qt.Key.Key_BracketLeft: "bracketleft",
    Qt.Key.Key_BracketRight: "bracketright",
    Qt.Key.Key_Comma: "comma",
    Qt.Key.Key_Period: "period",
}
BUTTONS = {
    Qt.MouseButton.LeftButton: "Left",
    Qt.MouseButton.MiddleButton: "Middle",
    Qt.MouseButton.RightButton: "Right",
}


class qMRMLSliceView(QtWidgets.QWidget):
    """The picture of one slice view.

    Attributes:
        paints_late: draw what is due only where :meth:`paint_due` asks for it. Nobody looks at the window of a test,
            whose views would be drawn some dozens of times.
    """

    paints_late = False

    def __init__(self, view: SliceView, parent: Any = None) -> None:
        super().__init__(parent)
        self._view, self._is_due = view, False
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(view.logic)
        self._style.SetDisplayableManagers(view.managers)
        view.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._style.SetInteractor(view.interactor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumSize(SMALLEST, SMALLEST)
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self.update)
        self._observations = [
            (thing, thing.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_modified))
            for thing in (view.logic, view.node, view.composite)
        ]
        self._observations.append((view.managers, view.managers.AddObserver("UpdateEvent", self._on_modified)))

    def _on_modified(self, _caller: Any, _event: str) -> None:
        self._timer.start()

    def release(self) -> None:
        """Drop all observers, before the view goes."""
        for thing, tag in self._observations:
            thing.RemoveObserver(tag)
        self._observations = []
        self._timer.stop()

    def mrmlSliceNode(self) -> Any:
        return self._view.node

    def renderWindow(self) -> Any:
        return self._view.window

    def interactor(self) -> Any:
        return self._view.interactor

    def interactorStyle(self) -> Any:
        return self._view.interactor.GetInteractorStyle()

    def sliceViewInteractorStyle(self) -> Any:
        return self._style

    def displayableManagerByClassName(self, name: str) -> Any:
        return self._view.managers.GetDisplayableManagerByClassName(name)

    def scheduleRender(self) -> None:
        self._timer.start()

    def forceRender(self) -> None:
        self.repaint()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        size = event.size()
        if size.width() > 0 and size.height() > 0:
            self._view.resize(size.width(), size.height())

    def paintEvent(self, event: Any) -> None:
        self._is_due = qMRMLSliceView.paints_late
        if not self._is_due:
            self._paint()

    def paint_due(self) -> None:
        """Draw what was to be painted since."""
        if self._is_due:
            self._is_due = False
            self._view.picture()

    def _paint(self) -> None:
        pixels = self._view.picture()
        height, width = pixels.shape[:2]
        painter = QtGui.QPainter(self)
        painter.drawImage(0, 0, QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888))
        painter.end()

    def _tell(self, event: Any, name: str, x: float | None = None, y: float | None = None) -> None:
        held = event.modifiers()
        control, shift = (
            bool(held & Qt.KeyboardModifier.ControlModifier),
            bool(held & Qt.KeyboardModifier.ShiftModifier),
        )
        interactor = self._view.interactor
        if isinstance(event, QtGui.QKeyEvent):
            text = event.text()
            symbol = KEY_SYMBOLS.get(Qt.Key(event.key()), text or QtGui.QKeySequence(event.key()).toString())
            code = text if len(text) == 1 and text.isascii() else "\0"
            interactor.SetKeyEventInformation(control, shift, code, event.isAutoRepeat(), symbol)
        else:
            interactor.SetEventInformation(
                round(x or 0), self.height - 1 - round(y or 0), control, shift, "\0", 0, None
            )
        interactor.InvokeEvent(name)

    def keyPressEvent(self, event: QtGui.QKeyEvent) -> None:
        self._tell(event, "KeyPressEvent")
        if event.text():
            self._tell(event, "CharEvent")

    def keyReleaseEvent(self, event: QtGui.QKeyEvent) -> None:
        self._tell(event, "KeyReleaseEvent")

    def _mouse(self, event: QtGui.QMouseEvent, name: str) -> None:
        self._tell(event, name, event.position().x(), event.position().y())

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        self._mouse(event, "MouseMoveEvent")

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        self._mouse(event, BUTTONS.get(event.button(), "Left") + "ButtonPressEvent")

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        self._mouse(event, BUTTONS.get(event.button(), "Left") + "ButtonReleaseEvent")

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        name = "MouseWheelForwardEvent" if event.angleDelta().y() > 0 else "MouseWheelBackwardEvent"
        self._tell(event, name, event.position().x(), event.position().y())

    def enterEvent(self, event: QtGui.QEnterEvent) -> None:
        self._tell(event, "EnterEvent", event.position().x(), event.position().y())


class SliceController(QtWidgets.QFrame):
    """The bar above a slice view: its label in its color, and the offset."""

    def __init__(self, view: SliceView, parent: Any = None) -> None:
        super().__init__(parent)
        self._view = view
        self._busy = False
        self._shown: tuple[Any, ...] = ()
        self._label, self._slider = QtWidgets.QLabel(), ctkSliderWidget()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(4, 1, 4, 1)
        row.addWidget(self._label)
        row.addWidget(self._slider, 1)
        self._slider.decimals = 1
        self._slider.valueChanged.connect(self._on_slid)
        self._tag = view.logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._show()

    def minimumSizeHint(self) -> QtCore.QSize:
        """As wide as Slicer 5.12's with its buttons and the offset."""
        return QtCore.QSize(318, super().minimumSizeHint().height())

    def sliceOffsetSlider(self) -> Any:
        return self._slider

    def release(self) -> None:
        """Drop the observer, before the view goes."""
        self._view.logic.RemoveObserver(self._tag)

    def _on_slid(self, offset: float) -> None:
        if not self._busy:
            self._view.logic.SetSliceOffset(offset)

    def _on_modified(self, _caller: Any, _event: str) -> None:
        self._show()

    def _show(self) -> None:
        node, logic = self._view.node, self._view.logic
        bounds = [0.0] * 6
        logic.GetLowestVolumeSliceBounds(bounds)
        label = node.GetLayoutLabel() or node.GetName()
        shown = (node.GetLayoutColor(), label, min(bounds[4:]), max(bounds[4:]), logic.GetSliceOffset())
        if shown == self._shown:  # a slice logic tells of hundreds of changes that alter none of these
            return
        self._shown = shown
        red, green, blue = (round(255 * part) for part in node.GetLayoutColor())
        self._label.styleSheet = f"background: rgb({red},{green},{blue}); color: black; padding: 1px 6px;"
        self._label.text = label
        self._busy = True
        self._slider.setRange(*shown[2:4])
        self._slider.setValue(shown[4])
        self._busy = False


class qMRMLSliceWidget(QtWidgets.QFrame):
    """A slice view with its bar."""

    nodeAboutToBeEdited = Signal(object)

    def __init__(self, view: SliceView, parent: Any = None) -> None:
        super().__init__(parent)
        self._view = view
        self.setObjectName("qMRMLSliceWidget" + view.node.GetLayoutName())
        self._controller, self._picture = SliceController(view, self), qMRMLSliceView(view, self)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._controller)
        column.addWidget(self._picture, 1)

    def release(self) -> None:
        """Drop all observers, before the view goes."""
        self._controller.release()
        self._picture.release()

    def view(self) -> SliceView:
        """The headless view behind the widget (not in Slicer)."""
        return self._view

    def sliceLogic(self) -> Any:
        return self._view.logic

    def mrmlSliceNode(self) -> Any:
        return self._view.node

    def mrmlSliceCompositeNode(self) -> Any:
        return self._view.composite

    def sliceView(self) -> qMRMLSliceView:
        return self._picture

    def sliceController(self) -> SliceController:
        return self._controller

    def fitSliceToBackground(self) -> None:
        self._view.logic.FitSliceToBackground()

    def sliceOrientation(self) -> str:
        return self._view.node.GetOrientation()


signals.alias(qMRMLSliceWidget, "nodeAboutToBeEdited(vtkMRMLNode*)", "nodeAboutToBeEdited")
