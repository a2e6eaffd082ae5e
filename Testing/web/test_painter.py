"""Which views are painted, in which order, and when their pictures are sent again: with windows that only count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

painter = pytest.importorskip("ChangeMapJointLib.web.painter")


class Window:
    """A view that writes down that it was painted."""

    def __init__(self, name: str, log: list[str], then: Callable[[], None] = lambda: None) -> None:
        self._name, self._log, self.then = name, log, then

    @property
    def img_cols_rows(self) -> tuple[str, int, int]:
        self._log.append(self._name)
        self.then()
        return f"picture of {self._name}", 4, 3


def queue(names: str) -> tuple[painter.Painter, dict[str, Window], list[str], list[tuple[str, int]]]:
    painted: list[str] = []
    pushed: list[tuple[str, int]] = []
    made = painter.Painter(lambda image, _cols, _rows, quality: (image, {"quality": quality}, 0))
    windows = {name: Window(name, painted) for name in names}
    for name, window in windows.items():
        made.add(name, window, lambda _image, about, name=name: pushed.append((name, about["quality"])))
    return made, windows, painted, pushed


def test_only_views_that_are_shown_and_changed_are_painted_each_once_the_one_looked_at_first() -> None:
    async def run() -> None:
        made, _, painted, _ = queue("abcd")
        made.show("abc")
        await made.paint()
        assert painted == ["a", "b", "c"]
        made.look_at("c")
        made.ask("a", "c", "d")
        made.ask("c")
        await made.paint()
        assert painted[3:] == ["c", "a"]
        await made.paint()
        assert len(painted) == 5

    asyncio.run(run())


def test_what_changes_while_others_are_painted_is_painted_in_the_same_go() -> None:
    async def run() -> None:
        made, windows, painted, _ = queue("ab")
        made.show("ab")
        await made.paint()
        windows["b"].then = lambda: painted.count("b") < 3 and made.ask("a")  # type: ignore[func-returns-value]
        made.ask("b")
        await made.paint()
        assert painted == ["a", "b", "b", "a"]

    asyncio.run(run())


def test_at_rest_the_last_pictures_are_sent_again_in_better_quality_without_painting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(painter, "STILL_AFTER_S", 0.01)

    async def run() -> None:
        made, _, painted, pushed = queue("ab")
        made.show("ab")
        still = asyncio.Event()
        made.add(
            "b",
            Window("b", painted),
            lambda _i, about: (
                pushed.append(("b", about["quality"])),
                about["quality"] == painter.QUALITY_STILL and still.set(),
            ),
        )
        work = asyncio.ensure_future(made.run())
        await asyncio.wait_for(still.wait(), 10)
        work.cancel()
        assert painted == ["a", "b"]
        moving, best = painter.QUALITY_MOVING, painter.QUALITY_STILL
        assert pushed == [("a", moving), ("b", moving), ("a", best), ("b", best)]

    asyncio.run(run())
