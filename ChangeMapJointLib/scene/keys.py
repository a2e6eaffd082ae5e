"""Keys of the Slicer panel and of the browser viewer, and what each list says about them: one source for both."""

from __future__ import annotations

from typing import Literal

Action = Literal[
    "threshold_up",
    "threshold_down",
    "next",
    "previous",
    "more",
    "accept",
    "reject",
    "overlay",
    "edges",
    "lung",
    "mediastinum",
    "bone",
]
FLICKER_KEY = "w"  # held; for warped. Slicer's slice views use B, F, G, R, T and V
KEYS: dict[str, Action] = {
    "+": "threshold_up",
    "=": "threshold_up",  # the same key without shift
    "-": "threshold_down",
    "n": "next",
    "p": "previous",
    "m": "more",
    "a": "accept",
    "x": "reject",
    "o": "overlay",
    "e": "edges",
    "1": "lung",
    "2": "mediastinum",
    "3": "bone",
}
HELD = "{key} (hold)"
KEY_HELP: tuple[tuple[str, str], ...] = (
    ("+ / -", "threshold up / down"),
    ("N / P", "next / previous finding"),
    ("M", "more: unfold / fold possible, explained and stable changes"),
    ("A / X", "accept / reject the finding; press again to undo"),
    ("O", "overlay on / off"),
    ("E", "edges of the warped prior on / off"),
    (HELD, "flicker: show the warped prior while held (cursor in a view)"),
    ("1 / 2 / 3", "lung / mediastinum / bone window"),
)
_FINE_BELOW, _FINE_STEP, _STEP = 0.3, 0.005, 0.02


def threshold_step(threshold: float) -> float:
    """One step of the map's threshold: finer at low thresholds, where one step changes much.

    Examples:
        >>> threshold_step(0.2), threshold_step(0.7)
        (0.005, 0.02)
    """
    return _FINE_STEP if threshold < _FINE_BELOW else _STEP
