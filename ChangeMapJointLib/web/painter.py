"""Paints views that changed, one after the other, and pushes their pictures: the one that is looked at first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

QUALITY_MOVING, QUALITY_STILL = 80, 95  # of the JPEG pictures
PICTURES_PER_SECOND = 30
STILL_AFTER_S = 0.2  # without a change

Image = Any  # RGB, ``[row, column, 3]`` uint8
Push = Callable[[bytes, dict[str, Any]], None]


class Window(Protocol):
    """What is painted: trame-slicer's wrapper of a render window."""

    @property
    def img_cols_rows(self) -> tuple[Image, int, int]:
        """Paint, and return the picture with its number of columns and rows."""
        ...  # pragma: no cover


Encode = Callable[[Image, int, int, int], tuple[bytes, dict[str, Any], int]]


@dataclass
class _View:
    window: Window
    push: Push
    last: tuple[Image, int, int] | None = None  # pushed roughly, waits for its still picture


class Painter:
    """One queue for all views of a page.

    Painting happens in the event loop. Between two views it lets the loop run, so that a key or a turn of the wheel
    that came meanwhile counts before the next view is painted; the view that the reader works in comes first. A view
    that was asked for several times is painted once. Once nothing has changed for a while, the last pictures are sent
    again in better quality, without being painted again.
    """

    def __init__(self, encode: Encode) -> None:
        """Make a queue.

        Args:
            encode: picture, columns, rows, quality to JPEG, its description and a time.
        """
        self._encode = encode
        self._views: dict[str, _View] = {}
        self._dirty: set[str] = set()
        self._shown: tuple[str, ...] = ()
        self._first = ""
        self._asked = asyncio.Event()

    def add(self, name: str, window: Window, push: Push) -> None:
        """Let a view be painted.

        Args:
            name: of the view.
            window: paints it.
            push: sends its pictures to the page.
        """
        self._views[name] = _View(window, push)

    def show(self, views: Sequence[str]) -> None:
        """Paint these views, and from now on no others."""
        self._shown = tuple(views)
        self._dirty &= set(views)
        self.ask(*views)

    def look_at(self, view: str) -> None:
        """Paint this view before all others from now on."""
        self._first = view

    def ask(self, *views: str) -> None:
        """Paint views again as soon as the loop comes to it; those that are not shown are left out."""
        self._dirty.update(view for view in views if view in self._shown and view in self._views)
        if self._dirty:
            self._asked.set()

    async def run(self) -> None:
        """Paint what is asked for, until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._asked.wait(), STILL_AFTER_S if self._rough else None)
            except asyncio.TimeoutError:
                await self._refine()
                continue
            started = time.monotonic()
            await self.paint()
            await asyncio.sleep(max(0.0, 1 / PICTURES_PER_SECOND - (time.monotonic() - started)))

    async def paint(self) -> None:
        """Paint and push all views that were asked for."""
        while self._dirty:
            name = self._next()
            view = self._views[name]
            picture = view.window.img_cols_rows
            view.last = picture
            self._push(view, picture, QUALITY_MOVING)
            await asyncio.sleep(0)
        self._asked.clear()

    @property
    def _rough(self) -> list[_View]:
        return [view for view in self._views.values() if view.last is not None]

    async def _refine(self) -> None:
        for view in self._rough:
            if self._asked.is_set():
                return
            picture, view.last = view.last, None
            assert picture is not None
            self._push(view, picture, QUALITY_STILL)
            await asyncio.sleep(0)

    def _next(self) -> str:
        name = next((view for view in (self._first, *self._shown) if view in self._dirty), None) or next(
            iter(self._dirty)
        )
        self._dirty.discard(name)
        return name

    def _push(self, view: _View, picture: tuple[Image, int, int], quality: int) -> None:
        content, about, _ = self._encode(*picture, quality)
        view.push(content, about)
