"""Makes the result tables in README and docs from the files in ``results``, so that none can be stale.

    python Testing/benchmarks/result_tables.py [--check]

A table stands between two marks, ``<!-- results NAME -->`` and ``<!-- end -->``; NAME is a function here. ``--check``
writes nothing and ends with code 1 where a table differs from its files; the tests run it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import result_cases

from ChangeMapJointLib.evaluation.output.tables import Table, reader_tables

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "Testing" / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MARKED = re.compile(r"(<!-- results (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Write or check every table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [page for page in PAGES if update(page, check=check)]
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'stale; run make tables' if check else 'updated'}")
    return 1 if check and stale else 0


def update(page: Path, *, check: bool) -> bool:
    """Bring the tables of a page up to date; returns whether any differed."""
    text = page.read_text("utf-8")
    fresh = MARKED.sub(lambda mark: f"{mark[1]}{TABLES[mark['name']]()}\n{mark[3]}", text)
    if fresh != text and not check:
        page.write_text(fresh, encoding="utf-8")
    return fresh != text


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown; a bar in a cell is escaped."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def load(name: str) -> dict[str, Any]:
    """A file of results."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return document


def evaluation() -> dict[str, Any]:
    """The document of ``make benchmark``."""
    (document,) = load("evaluation").values()
    return dict(document)


def evaluation_table(name: str) -> str:
    """One of the tables of ``changemap evaluate``."""
    found: dict[str, Table] = {table.name: table for table in reader_tables(evaluation())}
    return markdown(found[name].rows)


def evaluation_about() -> str:
    """What the pairs of ``make benchmark`` are, in one sentence."""
    document = evaluation()
    about, made = document["about"], document["metadata"]
    return (
        f"{about['cases']} pairs of {about['patients']} patients on whom nothing was trained or fitted "
        "(LIDC-IDRI-1011 was watched during the network's training), methods "
        f"{', '.join(document['methods'])}: {about['changes']} changes, mean |diameter difference| "
        f"{about['mean_diameter_change_mm']:.2f} mm; {about['null_cases']} pairs without change. Synthetic change and "
        f"motion on real CT. Commit {made['commit']}."
    )


def evaluation_readme() -> str:
    """The few figures for README."""
    document = evaluation()
    rows = []
    for name, entry in document["maps"].items():
        f = entry["figures"]
        rows.append(
            {
                "map": name,
                "recall at 0.68": value(f["recall_at_0.68"]),
                "false regions per scan": value(f["false_per_scan_at_0.68"]),
                "per scan without change": value(f["false_per_null_scan_at_0.68"]),
                "recall at 1 false per scan, one to one": value(f["recall_at_1_false_per_scan"]),
            }
        )
    return markdown(rows)


def readme() -> str:
    """The few results of README."""
    main, joint, peers = load("main_job"), load("joint"), load("registration")["known20mm"]["methods"]
    rigid = load("rigid_robustness")
    demo, known, popi = (main[name]["figures"] for name in ("demo", "known20mm", "popi"))
    greedy, ours = peers["greedy NCC 2x2x2"], peers["ChangeMapJoint"]
    (gained,) = (case["recall of optimised combined above sequential difference"] for case in joint.values())
    recall = gained["both patients"]["at_1_false_per_scan"]
    wrong = [entry["wrong"] for name, entry in rigid.items() if name.startswith("margins")]
    count = sum(entry["count"] for entry in wrong)
    refused = sum(n for entry in wrong for verdict, n in entry["verdicts"].items() if verdict.startswith("refused"))
    results = {
        "`make demo`, 2 CPU cores": f"{_cost(main['demo'])}; {_demo(demo)}",
        "breathing motion to 20 mm (`known20mm`)": f"lung points {_moved(known)} mm; picsl-greedy "
        f"{greedy['tre_mean_mm']:.2f} mm in {greedy['wall_s'] / ours['wall_s']:.1f} times the time",
        "40 pairs of two unseen patients, recall at 1 false positive per scan": f"joint {recall['combined']:.2f}, "
        f"sequential {recall['sequential']:.2f}",
        f"{count} wrong pairs: another patient, mirrored, turned, upside down": "all refused"
        if refused == count
        else f"{refused} refused",
        "POPI 00 against 50": f"41 landmarks {popi['before_mm']:.2f} to {popi['landmarks_mean_mm']:.2f} mm (known to "
        "±2 mm)",
    }
    return markdown([{"case": case, "result": result} for case, result in results.items()])


def main_job() -> str:
    """The main job against its bars."""
    found = load("main_job")
    figures = {name: entry["figures"] for name, entry in found.items()}
    known, popi = figures["known20mm"], figures["popi"]
    folds = "no folding" if known["folding_percent"] == 0 else f"{known['folding_percent']:g} % folded"
    rows = (
        (
            "`make demo` (the sample pair; needs no DATA)",
            f"{_cost(found['demo'])}; {_demo(figures['demo'])}; lung points {_moved(figures['demo'], 1)} mm",
            "120 s, 4 GB; all of 6 mm or more, none false above 1 ml",
            "demo",
        ),
        (
            "known20mm: breathing motion to 20 mm, 6 lesions",
            f"lung points {_moved(known)} mm (95th percentile {known['tre_p95_mm']:.2f}, vessels "
            f"{known['tre_vessels_mm']:.2f}), lung Dice {known['lung_dice']:.3f}, {folds}, lesion centres within "
            f"{max(known['lesion_centres_mm']):.2f} mm; {known['findings']} findings for 5 changes",
            "0.34 (0.85, 0.30), 0.99, 1 mm",
            "known20mm",
        ),
        (
            "POPI 00 against 50: 41 landmarks on real 4D CT",
            f"{popi['before_mm']:.2f} to {popi['landmarks_mean_mm']:.2f} mm (the landmark frame is known to ±2 mm)",
            "2.5 mm",
            "popi",
        ),
        ("a scan against itself", _highest(figures["itself"]), "below 0.02", "itself"),
        (
            "a scan moved by (8, -5, 12) mm and 5 degrees",
            _highest(figures["moved_rigidly"]),
            "none at 0.68",
            "moved_rigidly",
        ),
        (
            "native DICOM 512 x 512 x 275 against its own 1.5 mm volume",
            f"{_cost(found['native'])}; {_highest(figures['native'])}",
            "none at 0.68, 240 s, 6 GB",
            "native",
        ),
    )
    return markdown([{"case": a, "result": b, "bar": c, "`--only`": f"`{d}`"} for a, b, c, d in rows])


def _cost(entry: Mapping[str, Any]) -> str:
    return f"{entry['wall_s']:.0f} s, {entry['peak_memory_mb'] / 1000:.1f} GB"


def _moved(figures: Mapping[str, Any], digits: int = 2) -> str:
    after = figures["tre_mean_mm"] if "tre_mean_mm" in figures else figures["error_after_mm"]
    before = figures["before_mm"] if "before_mm" in figures else figures["error_before_mm"]
    return f"{before:.{digits}f} to {after:.2f}"


def _demo(figures: Mapping[str, Any]) -> str:
    false, solid, others = figures["false_findings"], figures["solid_changes"], figures["other_changes"]
    found = figures["solid_changes_found"] + figures["other_changes_found"]
    return (
        f"{found} of {solid + others} changes found ({figures['solid_changes_found']} of {solid} solid ones), "
        f"{figures['kinds_right']} named rightly, {false or 'no'} false finding{'s' if false > 1 else ''}"
    )


def _highest(figures: Mapping[str, Any]) -> str:
    found = figures["findings"]
    digits = 3 if figures["map_max"] < 0.01 else 2
    return (
        f"highest value of the map {figures['map_max']:.{digits}f}, {found or 'no'} finding{'s' if found > 1 else ''}"
    )


def registration_peers() -> str:
    """Ours beside the peers: error, worst centre of a changed lesion, volume kept of grown lesions, time."""
    results = load("registration")
    columns = {
        "known20mm": "known20mm",
        "hard38mm": "38 mm, 40 HU of noise",
        "sliding40mm": "40 mm, sliding",
        "thick": "1.5 against 5 mm slices",
        "half": "half a prior",
        "popi": "POPI",
    }
    rows = []
    for method in results["known20mm"]["methods"]:
        row = {"": method}
        for pair, title in columns.items():
            found = results[pair]["methods"].get(method)
            row[title] = "" if found is None else _peer(found)
        rows.append(row)
    return markdown(rows)


def _peer(found: Mapping[str, Any]) -> str:
    """One cell of the table of peers."""
    if "tre_mean_mm" not in found and "landmarks_mm" not in found:
        return "failed"
    figures = [found.get("tre_mean_mm", found.get("landmarks_mm"))]
    lesions = found.get("lesions", [])
    centres = [lesion["centre_mm"] for lesion in lesions if lesion["kind"] != "stable" and "centre_mm" in lesion]
    kept = [lesion["preserved"] for lesion in lesions if lesion["kind"] == "grown" and "preserved" in lesion]
    figures += [max(centres)] if centres else []
    figures += [sum(kept) / len(kept)] if kept else []
    return f"{', '.join(f'{v:.2f}' for v in figures)}; {found['wall_s']:.0f} s"


def given_field() -> str:
    """Growth that fields of other programs deform away, and what refinement brings back."""
    fields = load("given_field")["known20mm"]["fields"]
    rows = []
    for name, found in fields.items():
        kept = ", ".join(f"{lesion['preserved']:.2f}" for lesion in found["lesions"] if lesion["kind"] == "grown")
        rows.append(
            {
                "field": "our own registration" if name == "ours" else name,
                "error, mean / p95 (mm)": f"{found['tre_mean_mm']:.2f} / {found['tre_p95_mm']:.2f}",
                "volume kept (grown)": kept,
                "map": f"{found['map_in_grown_tissue']['share_at_0.4']:.2f}",
                "findings at 0.68, of 5 changes": str(len(found["findings"])),
            }
        )
    return markdown(rows)


def value(figure: Mapping[str, float | None], digits: int = 2) -> str:
    """A figure with its interval."""
    if figure["value"] is None:
        return "–"
    text = f"{figure['value']:.{digits}f}"
    if figure["low"] is not None and figure["high"] is not None:
        text += f" ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"
    return text


TABLES: dict[str, Callable[[], str]] = {
    "readme": readme,
    "main-job": main_job,
    "registration-peers": registration_peers,
    "given-field": given_field,
    **result_cases.TABLES,
    "evaluation-about": evaluation_about,
    "evaluation-readme": evaluation_readme,
    **{
        f"evaluation-{name}": lambda name=name: evaluation_table(name)  # type: ignore[misc]
        for name in ("maps", "froc", "registration", "preservation", "lists", "growth", "comparisons", "cost")
    },
}

if __name__ == "__main__":
    sys.exit(main())
