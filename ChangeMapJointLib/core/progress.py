"""How long-running stages report progress and can be stopped."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callback that a stage calls with the fraction done.

    Raise :class:`~ChangeMapJointLib.core.errors.Cancelled` in it to stop the stage.
    """

    def __call__(self, fraction: float, message: str = "") -> None:
        """Receive the ``fraction`` of the stage that is done, in [0, 1], and a short ``message`` for the user."""


def silent(fraction: float, message: str = "") -> None:
    """Ignore progress; the default."""
