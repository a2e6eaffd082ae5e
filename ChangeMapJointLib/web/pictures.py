"""Slice views of a run, painted here and shown in a browser: trame-slicer's scene and views, six of them at most."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import slicer
from trame_rca.encoders import RcaImageEncoder
from trame_slicer.core import SlicerApp
from trame_slicer.rca_view import RemoteViewFactory
from trame_slicer.views import NoScheduleRendering, SliceView, ViewLayoutDefinition, ViewProps, ViewType
from vtkmodules.vtkCommonCore import vtkCommand, vtkObject

from ChangeMapJointLib.scene.layouts import CURRENT_GROUP, PRIOR_GROUP
from ChangeMapJointLib.scene.nodes import CURRENT, ORIENTATIONS, PRIOR

VIEWS = (*CURRENT, *PRIOR)
QUALITY_MOVING, QUALITY_STILL = 75, 95  # of the JPEG pictures
PICTURES_PER_SECOND = 30
LAYOUTS: dict[str, tuple[str, ...]] = {
    "check": ("Red", PRIOR[0], "Green", "Yellow"),
    "compare": (*CURRENT, *PRIOR),
    "read": ("Red", "Green", "Yellow"),
}


class Pictures:
    """The scene and its slice views.

    Attributes:
        application: trame-slicer's application; its scene is ``slicer.mrmlScene``.
        on_size: called with a view's name when it has another size, also when it gets its first.
    """

    def __init__(self, server: Any) -> None:
        """Make the scene and all views; they paint only while their layout shows them.

        Args:
            server: the trame server.
        """
        self.application = SlicerApp()
        slicer.mrmlScene = self.application.scene
        self.on_size: Callable[[str], None] = lambda view: None  # noqa: ARG005
        factory = RemoteViewFactory(
            server,
            _slice_view,
            ViewType.SLICE_VIEW,
            rca_encoder=RcaImageEncoder.JPEG,
            target_fps=PICTURES_PER_SECOND,
            blur_fps=PICTURES_PER_SECOND,
            interactive_quality=QUALITY_MOVING,
            populate_view_ui_f=None,
        )
        self._manager = self.application.view_manager
        self._manager.register_factory(factory)
        vtkObject.GlobalWarningDisplayOff()  # of a missing X server, and of an event that trame-slicer still uses
        for view, orientation in zip(VIEWS, ORIENTATIONS * 2, strict=True):
            group = PRIOR_GROUP if view in PRIOR else CURRENT_GROUP
            properties = ViewProps(label=view, orientation=orientation, group=group)
            self._manager.create_view(ViewLayoutDefinition(view, ViewType.SLICE_VIEW, properties))
            self._prepare(view, factory)
        vtkObject.GlobalWarningDisplayOn()

    def _prepare(self, view: str, factory: RemoteViewFactory) -> None:
        slice_view = self.view(view)
        factory.get_factory_view(view).view_adapter.update_quality(QUALITY_MOVING, QUALITY_STILL)
        slice_view.set_render_blocked(True)
        slice_view.interactor().AddObserver(
            vtkCommand.WindowResizeEvent, lambda _caller, _event, name=view: self.on_size(name)
        )

    def view(self, name: str) -> Any:
        """Return trame-slicer's slice view of that name."""
        return self._manager.get_view(name)

    def show(self, layout: str) -> None:
        """Paint the views of a layout, and no others."""
        shown = LAYOUTS[layout]
        self._manager.set_current_view_ids(list(shown))
        for view in shown:
            self.view(view).schedule_render()


def _slice_view(**values: Any) -> SliceView:
    """Make a slice view that does not paint while it is made: each of its fifty changes would be painted."""
    view = SliceView(scheduled_render_strategy=NoScheduleRendering(), **values)
    view.render_window().SetMultiSamples(0)  # as in the application; eight take software rendering four times as long
    return view


def quiet_wslink() -> None:
    """Keep wslink from printing its own start message."""
    os.environ["WSLINK_READY_MSG"] = ""
