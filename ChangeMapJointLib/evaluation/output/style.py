"""The look of all figures: fit for print, readable without colours, the same bytes for the same data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart with any kind of colour vision; the line and the marker differ as well
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
COLUMN_INCH, PAGE_INCH = 3.5, 7.2  # widths of one and of two columns in print
SETTINGS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "svg.hashsalt": "changemap",
    "svg.fonttype": "none",
    "figure.dpi": 100,
}
DPI = 300


def label_text(name: str) -> str:
    """The name of a map or method as a label: no formula begins at a dollar sign, and no underscore hides it."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def look(number: int) -> dict[str, Any]:
    """Colour, line and marker of the curve ``number`` from 0."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


@contextmanager
def drawing(columns: int, rows: int, width: float, height: float) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield an empty figure of ``width`` x ``height`` inches and its axes, row by row."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        yield figure, list(axes.ravel())


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name.png`` and ``name.svg``."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS):
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
