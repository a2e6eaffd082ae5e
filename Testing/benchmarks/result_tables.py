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
    about, made = evaluation()["about"], evaluation()["metadata"]
    return (
        f"{about['cases']} pairs of {about['patients']} patients on whom nothing was trained, fitted or chosen: "
        f"{about['changes']} changes, mean |diameter difference| {about['mean_diameter_change_mm']:.2f} mm; "
        f"{about['null_cases']} pairs without change. Synthetic change and motion on real CT. Commit {made['commit']}."
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


def value(figure: Mapping[str, float | None], digits: int = 2) -> str:
    """A figure with its interval."""
    if figure["value"] is None:
        return "–"
    text = f"{figure['value']:.{digits}f}"
    if figure["low"] is not None and figure["high"] is not None:
        text += f" ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"
    return text


TABLES: dict[str, Callable[[], str]] = {
    "evaluation-about": evaluation_about,
    "evaluation-readme": evaluation_readme,
    **{
        f"evaluation-{name}": lambda name=name: evaluation_table(name)  # type: ignore[misc]
        for name in ("maps", "froc", "registration", "preservation", "lists", "growth", "comparisons", "cost")
    },
}

if __name__ == "__main__":
    sys.exit(main())
