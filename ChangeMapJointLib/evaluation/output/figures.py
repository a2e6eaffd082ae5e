"""Figures of an evaluation, drawn from its document and the scores of its cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ChangeMapJointLib.evaluation import pooled_methods
from ChangeMapJointLib.evaluation.map_score import AT, GUARDED_XOR, OVERLAP_UNION, RULES
from ChangeMapJointLib.evaluation.output.style import COLORS, COLUMN_INCH, PAGE_INCH, drawing, label_text, look, save
from ChangeMapJointLib.evaluation.pooled_maps import FALSE_PER_SCAN
from ChangeMapJointLib.evaluation.score_case import CaseScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOUND, LOST = COLORS[0], "#f0c9a4"
LEAST_ML = 1e-3  # volumes below it are drawn there, on a logarithmic axis


@dataclass(frozen=True)
class DrawnFigure:
    """A figure that was drawn.

    Attributes:
        name: stem of its files.
        caption: what it shows.
        wide: whether it takes the whole width of a page.
    """

    name: str
    caption: str
    wide: bool = False


def draw_figures(folder: Path, cases: Sequence[CaseScore], document: Mapping[str, Any]) -> list[DrawnFigure]:
    """Draw every figure for which there is data, as PNG and SVG."""
    pictures = (
        _recall_curves(folder, document),
        _size_groups(folder, document),
        _froc(folder, document),
        _errors(folder, cases, document),
        _preservation(folder, cases, document),
        _growth(folder, cases, document),
        _trust(folder, document),
    )
    return [picture for picture in pictures if picture is not None]


def _recall_curves(folder: Path, document: Mapping[str, Any]) -> DrawnFigure | None:
    """The paper's Fig. 3, and what it leaves out."""
    maps = document["maps"]
    if not any(entry["changes"] for entry in maps.values()):
        return None
    with drawing(3, 1, PAGE_INCH, 2.7) as (figure, axes):
        for i, (name, entry) in enumerate(maps.items()):
            thresholds = entry["paper"]["thresholds"]
            overlap, guarded = entry["paper"][RULES[OVERLAP_UNION]], entry["paper"][RULES[GUARDED_XOR]]
            axes[0].plot(thresholds, _gaps(overlap["recall"]), **look(i), label=label_text(name))
            axes[1].plot(thresholds, _gaps(guarded["recall"]), **look(i), label=label_text(name))
            outside = np.maximum(_gaps(overlap["outside_ml_per_scan"]), LEAST_ML)
            axes[2].plot(thresholds, outside, **look(i), label=label_text(name))
        titles = ("any overlap (the paper's Fig. 3)", "one to one, IoU > 0.1", "marked outside all changes")
        for axis, title in zip(axes, titles, strict=True):
            axis.set(xscale="log", xlabel="threshold", title=title)
            axis.axvline(AT, color="#888888", linewidth=0.8, zorder=0)
        for axis in axes[:2]:
            axis.set(ylabel="recall", ylim=(-0.03, 1.03))
        axes[2].set(yscale="log", ylabel="ml per scan")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        save(figure, folder, "recall_curves")
    return DrawnFigure(
        "recall_curves",
        f"Recall over {document['about']['paper_curves_over']} against the threshold, in the paper's protocol (left) "
        "and with regions and changes matched one to one (middle). Right: what is marked outside every change. At low "
        f"thresholds one region fills the lung and overlaps all. Vertical line: {AT:g}.",
        wide=True,
    )


def _size_groups(folder: Path, document: Mapping[str, Any]) -> DrawnFigure | None:
    """The paper's Fig. 4."""
    maps = {name: entry for name, entry in document["maps"].items() if entry["size_groups"]}
    if not maps:
        return None
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    with drawing(columns, rows, PAGE_INCH if columns > 1 else COLUMN_INCH, 2.1 * rows) as (figure, axes):
        for axis, (name, entry) in zip(axes, maps.items(), strict=False):
            groups = entry["size_groups"]
            found = np.array([g["found"] for g in groups], dtype=float)
            total = found + [g["missed"] for g in groups]
            x = np.arange(len(groups))
            axis.bar(x, found / total, width=0.9, color=FOUND, label="found (TP)")
            axis.bar(
                x, 1 - found / total, bottom=found / total, width=0.9, color=LOST, hatch="///", label="missed (FN)"
            )
            edges = [groups[0]["low_mm"], *(g["high_mm"] for g in groups)]
            axis.set_xticks(np.arange(len(edges)) - 0.5, [f"{edge:.1f}" for edge in edges], rotation=45)
            axis.set(title=label_text(name), ylim=(0, 1), ylabel="share", xlabel="|diameter difference| (mm)")
            axis.grid(visible=False)
        for axis in axes[len(maps) :]:
            axis.set_visible(False)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        save(figure, folder, "size_groups")
    sizes = [g["found"] + g["missed"] for g in next(iter(maps.values()))["size_groups"]]
    each = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return DrawnFigure(
        "size_groups",
        f"Found and missed changes at {AT:g} by |diameter difference|, in {len(sizes)} groups of {each} "
        "changes (the paper's Fig. 4); the limits of the groups stand on the axis.",
        wide=columns > 1,
    )


def _froc(folder: Path, document: Mapping[str, Any]) -> DrawnFigure | None:
    maps = {name: entry for name, entry in document["maps"].items() if entry["changes"]}
    if not maps:
        return None
    with drawing(1, 1, COLUMN_INCH, 2.8) as (figure, (axis,)):
        for i, (name, entry) in enumerate(maps.items()):
            curve = entry["froc"][RULES[GUARDED_XOR]]
            grid = np.geomspace(FALSE_PER_SCAN[0], FALSE_PER_SCAN[-1], 200)
            row = np.searchsorted(curve["false_per_scan"], grid + 1e-9, side="right") - 1
            recall = np.where(row >= 0, np.array(curve["recall"], dtype=float)[np.maximum(row, 0)], 0.0)
            axis.plot(grid, recall, **{**look(i), "marker": None}, drawstyle="steps-post", label=label_text(name))
            points = [entry["sensitivity"][f"{limit:g}"] for limit in FALSE_PER_SCAN]
            shift = 1 + 0.03 * (i - (len(maps) - 1) / 2)  # so that the bars do not cover each other
            values = np.array([p["value"] for p in points], dtype=float)
            if all(p["low"] is not None for p in points):
                below, above = (np.array([p[side] for p in points], dtype=float) for side in ("low", "high"))
                bars = np.maximum([values - below, above - values], 0)
                x, marker, color = np.array(FALSE_PER_SCAN) * shift, look(i)["marker"], COLORS[i % len(COLORS)]
                axis.errorbar(x, values, bars, fmt=marker, color=color, elinewidth=0.7)
        axis.set_xscale("log", base=2)
        axis.set_xticks(FALSE_PER_SCAN, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axis.set(xlabel="false regions per scan", ylabel="recall (one to one, XOR)", ylim=(-0.03, 1.03))
        axis.legend(loc="lower right")
        save(figure, folder, "froc")
    return DrawnFigure(
        "froc",
        "Free-response ROC over all thresholds, regions and changes matched one to one against the symmetric "
        "difference of the masks. Bars: 95 % intervals over patients.",
    )


def _errors(folder: Path, cases: Sequence[CaseScore], document: Mapping[str, Any]) -> DrawnFigure | None:
    """Distribution of the landmark errors of each method."""
    found = []
    for name in document["methods"]:
        each = [
            f.tre_mm for case in cases if name in case.methods and (f := case.methods[name].field) and len(f.tre_mm)
        ]
        if each:
            found.append((name, np.sort(np.concatenate(each))))
    if not found:
        return None
    with drawing(1, 1, COLUMN_INCH, 2.6) as (figure, (axis,)):
        for i, (name, errors) in enumerate(found):
            share = np.arange(1, len(errors) + 1) / len(errors)
            axis.plot(np.maximum(errors, 1e-2), share, **{**look(i), "marker": None}, label=label_text(name))
        axis.set(xscale="log", xlabel="distance after registration (mm)", ylabel="share of landmarks", ylim=(0, 1.01))
        axis.legend(loc="lower right")
        save(figure, folder, "landmarks")
    return DrawnFigure("landmarks", "Distance of corresponding points after registration, all landmarks of all cases.")


def _preservation(folder: Path, cases: Sequence[CaseScore], document: Mapping[str, Any]) -> DrawnFigure | None:
    """Every lesion: its true change of size, and what the registration made of it."""
    found = []
    for name in document["methods"]:
        ratios = [
            (lesion.volume_reference_ml / lesion.volume_template_ml, f.preserved[lesion.id])
            for case in cases
            if name in case.methods and (f := case.methods[name].field)
            for lesion in (*case.changes, *case.stable)
            if lesion.id in f.preserved and lesion.volume_reference_ml > 0 and f.preserved[lesion.id] > 0
        ]
        if ratios:
            found.append((name, np.array(ratios)))
    if not found:
        return None
    with drawing(1, 1, COLUMN_INCH, 2.8) as (figure, (axis,)):
        axis.axhline(1, color="#888888", linewidth=0.8)
        low, high = (f(p[:, 0].min() if f is min else p[:, 0].max() for _, p in found) for f in (min, max))
        axis.plot([low, high], [low, high], color="#888888", linewidth=0.8, linestyle=":")
        for i, (name, points) in enumerate(found):
            axis.plot(*points.T, **{**look(i), "linestyle": "none"}, alpha=0.8, label=label_text(name))
        axis.set(xscale="log", yscale="log", xlabel="true volume ratio, now / before", ylabel="|Lᵀ(y)| / |Lᵀ|")
        axis.legend(loc="upper left")
        save(figure, folder, "preservation")
    return DrawnFigure(
        "preservation",
        "Lesions in both scans: the volume of the warped prior lesion over its own, against the true change. On the "
        "horizontal line its size is kept; on the dotted line all of the change is deformed away.",
    )


def _growth(folder: Path, cases: Sequence[CaseScore], document: Mapping[str, Any]) -> DrawnFigure | None:
    """Bland-Altman plots of doublings, and of doubling times where the interval is known."""
    found = []
    for name in document["methods"]:
        measured = pooled_methods.growth(
            *pooled_methods.with_list([case for case in cases if name in case.methods], name)
        )
        if len(measured.true_percent):
            found.append((name, measured, document["methods"][name]["list"]["growth"]))
    if not found:
        return None
    timed = any(len(measured.true_days) for _, measured, _ in found)
    with drawing(2 if timed else 1, 1, PAGE_INCH if timed else COLUMN_INCH, 2.8) as (figure, axes):
        for i, (name, measured, summary) in enumerate(found):
            _bland_altman(axes[0], i, name, measured.true_doublings, measured.measured_doublings, summary["doublings"])
            if timed:
                days = summary["doubling_days"]
                _bland_altman(axes[1], i, name, measured.true_days, measured.measured_days, days)
        axes[0].set(xlabel="mean of true and measured doublings", ylabel="measured minus true (doublings)")
        if timed:
            axes[1].set(xlabel="mean of true and measured (days)", ylabel="measured minus true (days)")
        axes[0].legend(loc="best")
        save(figure, folder, "growth")
    return DrawnFigure(
        "growth",
        "Bland-Altman: agreement of measured with true growth, in doublings of the volume"
        + (" and as doubling time" if timed else "")
        + ". Lines: bias and bias ± 1.96 standard deviations of each method.",
        wide=timed,
    )


def _bland_altman(
    axis: Axes, number: int, name: str, true: Any, measured: Any, summary: Mapping[str, float | None]
) -> None:
    axis.plot(
        (true + measured) / 2,
        measured - true,
        **{**look(number), "linestyle": "none"},
        alpha=0.8,
        label=label_text(name),
    )
    for key in ("bias", "low", "high"):
        value = summary[key]
        if value is not None:
            axis.axhline(
                value, color=COLORS[number % len(COLORS)], linewidth=0.8, linestyle="-" if key == "bias" else ":"
            )


def _trust(folder: Path, document: Mapping[str, Any]) -> DrawnFigure | None:
    found = [(name, entry["trust"]) for name, entry in document["methods"].items() if entry["trust"]]
    if not found:
        return None
    with drawing(1, 1, COLUMN_INCH, 2.6) as (figure, (axis,)):
        for i, (name, entry) in enumerate(found):
            bins = [b for b in entry["bins"] if b["n"]]
            x = np.array([(b["from"] + b["to"]) / 2 for b in bins]) + 0.008 * i
            middle, high = (np.array([b[key] for b in bins]) for key in ("median_mm", "p90_mm"))
            axis.errorbar(
                x, middle, [np.zeros(len(x)), high - middle], **look(i), elinewidth=0.8, label=label_text(name)
            )
        axis.set(xlabel="trust", ylabel="error at landmarks (mm)", xlim=(0, 1), ylim=(0, None))
        axis.legend(loc="upper right")
        save(figure, folder, "trust")
    return DrawnFigure("trust", "Error at the landmarks by trust: median, and up to the 90th percentile.")


def _gaps(values: Sequence[float | None]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([np.nan if v is None else v for v in values], dtype=float)
