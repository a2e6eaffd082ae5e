"""How long-running stages report progress and learn that they should stop."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by a stage with the fraction of it that is done.

    Raise :class:`~ChangeMapJointLib.core.errors.Cancelled` from it to stop the stage.
    """

    def __call__(self, fraction: float, message: str = "") -> None:
        """``fraction`` of the stage in [0, 1]; ``message`` is a short phrase for people."""


def silent(fraction: float, message: str = "") -> None:
    """The default: report to nobody."""
