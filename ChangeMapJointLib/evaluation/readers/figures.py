"""Figures of a reader study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.evaluation.output.figures import DrawnFigure
from ChangeMapJointLib.evaluation.output.style import COLORS, MARKERS, PAGE_INCH, drawing, save
from ChangeMapJointLib.evaluation.readers.log import Arm
from ChangeMapJointLib.evaluation.readers.tables import ARM_TITLES, TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ChangeMapJointLib.evaluation.readers.study import ReaderStudy

MOST_PER_ROW = 6
SPREAD = 0.16  # of the points of one arm, in steps of the axis


def draw_study(folder: Path, study: ReaderStudy) -> list[DrawnFigure]:
    """Draw every figure for which there is data, as PNG and SVG."""
    pictures = [_times(folder, study)]
    if study.document["differences"]:
        pictures.append(_changes(folder, study.document))
    if study.hits is not None:
        pictures.append(_recall(folder, study.document))
    return pictures


def _times(folder: Path, study: ReaderStudy) -> DrawnFigure:
    """Every reading: one panel a reader, lines join the same case."""
    readers, arms = study.document["readers"], study.document["arms"]
    columns = min(len(readers), MOST_PER_ROW)
    rows = -(-len(readers) // columns)
    with drawing(columns, rows, PAGE_INCH, 2.5 * rows + 0.2) as (figure, axes):
        for axis, reader in zip(axes, readers, strict=False):
            _reader_times(axis, study, reader, arms)
        for axis in axes[len(readers) :]:
            axis.set_visible(False)
        top = max(axis.get_ylim()[1] for axis in axes[: len(readers)])
        for axis in axes[: len(readers)]:
            axis.set_ylim(0, top)
        for axis in axes[::columns]:
            axis.set_ylabel("active reading time (s)")
        save(figure, folder, "times")
    return DrawnFigure(
        "times",
        "Reading time of every case, by reader and arm. A thin line joins the readings of one case, a bar is the mean.",
    )


def _reader_times(axis: Axes, study: ReaderStudy, reader: str, arms: Sequence[Arm]) -> None:
    cases = study.document["cases"]
    seconds = {(r.case, r.arm): r.active_s for r in study.readings if r.session.reader == reader}
    for n, case in enumerate(cases):
        shift = SPREAD * (2 * n / max(len(cases) - 1, 1) - 1)
        points = [(k + shift, seconds[case, arm]) for k, arm in enumerate(arms) if (case, arm) in seconds]
        axis.plot([x for x, _ in points], [y for _, y in points], color="#b9c2ca", linewidth=0.7, zorder=1)
        for x, y in points:
            number = round(x)
            axis.plot(x, y, color=COLORS[number], marker=MARKERS[number], linestyle="none", zorder=2)
    for k, arm in enumerate(arms):
        values = [s for (_, a), s in seconds.items() if a == arm]
        if values:
            axis.hlines(sum(values) / len(values), k - 0.3, k + 0.3, color=COLORS[k], linewidth=2, zorder=3)
    axis.set_xticks(range(len(arms)), [ARM_TITLES[arm].replace(" map", "\nmap") for arm in arms])
    axis.set_xlim(-0.5, len(arms) - 0.5)
    axis.grid(axis="x", visible=False)
    axis.set_title(reader)


def _changes(folder: Path, document: Mapping[str, Any]) -> DrawnFigure:
    """Differences of the arms with their intervals."""
    names = [name for name in ("seconds_percent", "recall", "precision", "merit") if name in document["differences"][0]]
    labels = [f"{ARM_TITLES[d['second']]}\nminus {ARM_TITLES[d['first']]}" for d in document["differences"]]
    with drawing(len(names), 1, PAGE_INCH, 0.5 * len(labels) + 1.0) as (figure, axes):
        for axis, name in zip(axes, names, strict=True):
            for row, entry in enumerate(document["differences"]):
                value = entry[name]
                if value["value"] is None:
                    continue
                if value["low"] is not None:
                    axis.hlines(row, value["low"], value["high"], color=COLORS[row], linewidth=1.6)
                axis.plot(value["value"], row, color=COLORS[row], marker=MARKERS[row], markersize=5)
            axis.axvline(0, color="#555555", linewidth=0.8)
            axis.set_ylim(len(labels) - 0.5, -0.5)
            axis.set_yticks(range(len(labels)), labels if axis is axes[0] else [""] * len(labels))
            axis.grid(axis="y", visible=False)
            axis.set_title(TITLES[name])
        save(figure, folder, "differences")
    return DrawnFigure("differences", "Differences between arms with 95 % bootstrap intervals over readers and cases.")


def _recall(folder: Path, document: Mapping[str, Any]) -> DrawnFigure:
    """Recall and false marks of every reader in every arm."""
    with drawing(1, 1, 4.6, 2.9) as (figure, axes):
        axis = axes[0]
        groups = {(g["reader"], g["arm"]): g for g in document["by_reader"] if g["cases"] and g["recall"] is not None}
        for reader in document["readers"]:
            path = [groups[reader, arm] for arm in document["arms"] if (reader, arm) in groups]
            if not path:
                continue
            x, y = [g["false_per_case"] for g in path], [g["recall"] for g in path]
            axis.plot(x, y, color="#b9c2ca", linewidth=0.9, zorder=1)
            axis.annotate(reader, (x[-1], y[-1]), xytext=(4, 4), textcoords="offset points")
        for k, arm in enumerate(document["arms"]):
            chosen = [g for (_, a), g in groups.items() if a == arm]
            axis.plot(
                [g["false_per_case"] for g in chosen],
                [g["recall"] for g in chosen],
                color=COLORS[k],
                marker=MARKERS[k],
                markersize=6,
                linestyle="none",
                label=ARM_TITLES[arm],
            )
        axis.set_xlabel("false marks per case")
        axis.set_ylabel("recall")
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlim(left=min(-0.05, axis.get_xlim()[0]))
        figure.legend(loc="outside right upper")
        save(figure, folder, "recall")
    return DrawnFigure(
        "recall", "Recall and false marks of every reader; a line joins the arms of one reader in their order."
    )
