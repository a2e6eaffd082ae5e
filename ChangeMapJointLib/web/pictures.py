"""Slice views of a run, painted here and shown in a browser: six of trame-slicer's views in one scene."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import slicer
from trame_rca.encoders import RcaImageEncoder
from trame_rca.view_adapter import RcaViewAdapter
from trame_slicer.core import SlicerApp
from trame_slicer.rca_view.rca_view_factory import RcaWindow
from trame_slicer.views import NoScheduleRendering, ScheduledRenderStrategy, SliceView, ViewProps
from vtkmodules.vtkCommonCore import vtkCommand, vtkObject

from ChangeMapJointLib.scene.layouts import CURRENT_GROUP, PRIOR_GROUP
from ChangeMapJointLib.scene.nodes import CURRENT, ORIENTATIONS, PRIOR
from ChangeMapJointLib.web.painter import Painter

VIEWS = (*CURRENT, *PRIOR)
LAYOUTS: dict[str, tuple[str, ...]] = {
    "check": ("Red", PRIOR[0], "Green", "Yellow"),
    "compare": (*CURRENT, *PRIOR),
    "read": ("Red", "Green", "Yellow"),
}


class Pictures:
    """The scene and its slice views.

    Attributes:
        application: trame-slicer's application; its scene is ``slicer.mrmlScene``.
        painter: paints the views of the layout that is shown.
        on_size: called with a view's name when it has another size, also when it gets its first.
    """

    def __init__(self, server: Any) -> None:
        """Make the scene and all views.

        Args:
            server: the trame server.
        """
        self.application = SlicerApp()
        slicer.mrmlScene = self.application.scene
        self.on_size: Callable[[str], None] = lambda view: None  # noqa: ARG005
        self.painter = Painter(RcaImageEncoder.JPEG.encode)
        self._views: dict[str, SliceView] = {}
        self._adapters: list[RcaViewAdapter] = []
        vtkObject.GlobalWarningDisplayOff()  # of a missing X server, and of an event that trame-slicer still uses
        for view, orientation in zip(VIEWS, ORIENTATIONS * 2, strict=True):
            self._add(view, orientation, server)
        vtkObject.GlobalWarningDisplayOn()
        server.controller.on_server_ready.add(lambda **_: self._register(server))

    def _add(self, name: str, orientation: str, server: Any) -> None:
        # it must not paint while it is made: each of its fifty changes would be painted
        view = SliceView(
            self.application.scene, self.application.app_logic, name, scheduled_render_strategy=NoScheduleRendering()
        )
        view.render_window().SetMultiSamples(
            0
        )  # as in the application; eight take software rendering four times as long
        group = PRIOR_GROUP if name in PRIOR else CURRENT_GROUP
        view.set_view_properties(ViewProps(label=name, orientation=orientation, group=group))
        window = RcaWindow(view.render_window(), server.state, f"{name}_active_view_cursor")
        adapter = RcaViewAdapter(
            window, name, scheduler=_Requests(self.painter, name, window), do_schedule_render_on_interaction=False
        )
        self.painter.add(name, window, adapter.push)
        view.set_scheduled_render(_Strategy(self.painter, name))
        view.interactor().AddObserver(vtkCommand.WindowResizeEvent, lambda _caller, _event: self.on_size(name))
        self._views[name] = view
        self._adapters.append(adapter)

    def _register(self, server: Any) -> None:
        for adapter in self._adapters:
            server.controller.rc_area_register(adapter)

    def view(self, name: str) -> SliceView:
        """Return trame-slicer's slice view of that name."""
        return self._views[name]

    def show(self, layout: str) -> None:
        """Paint the views of a layout, and no others."""
        self.painter.show(LAYOUTS[layout])


def on_dark(display: Any) -> None:
    """Let the names of marks stand on a dark ground: orange and blue are not read on bone or lung."""
    text = display.GetTextProperty()
    text.SetShadow(False)
    text.SetBackgroundColor(0.0, 0.0, 0.0)
    text.SetBackgroundOpacity(0.6)
    display.Modified()


class _Strategy(ScheduledRenderStrategy):  # type: ignore[misc]  # trame-slicer has no types
    """Lets the displayable managers of a view ask for a picture."""

    def __init__(self, painter: Painter, name: str) -> None:
        super().__init__()
        self._painter, self._name = painter, name

    def schedule_render(self) -> None:
        self._painter.ask(self._name)


class _Requests:
    """Lets a page ask for the picture of a view; see trame-rca's ``RcaRenderSchedulerProtocol``."""

    target_fps = 30.0

    def __init__(self, painter: Painter, name: str, window: RcaWindow) -> None:
        self._painter, self._name, self.rca = painter, name, window

    def set_push_callback(self, callback: Any) -> None:
        """Nothing: the painter pushes."""

    def schedule_render(self) -> None:
        """The view has another size."""
        self._painter.ask(self._name)

    async def close(self) -> None:
        """Nothing to end."""

    def reset(self) -> None:
        """A page has connected: it has no picture yet."""
        self._painter.ask(self._name)


def quiet_wslink() -> None:
    """Keep wslink from printing its own start message."""
    os.environ["WSLINK_READY_MSG"] = ""
