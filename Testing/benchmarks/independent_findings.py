"""What the list finds on pairs of another generator, and what it invents.

    python Testing/benchmarks/independent_findings.py PAIRS [--names 001_QIN-LSC-0049 ...] [--operating-point standard]

PAIRS is what ``independent_pairs.py`` wrote: other shapes, motions, textures and noise than ``changemap synthesize``,
on which nothing was chosen. By default the pairs of the patients that the judge was not fitted on. A change is found
where a listed finding lies within its diameter, at least 6 mm, of its centre in either scan; each finding counts once,
what is left over is false. Writes ``results/independent_findings.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from record import metadata, write_results

import ChangeMapJointLib as cmj
from ChangeMapJointLib.change.finding import Finding

LEFT_OUT = ("QIN-LSC-0049", "QIN-LUNG-01-0007")  # patients that the judge was not fitted on
NEAR_MM = 6.0


def main() -> None:
    """Compare every pair and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--operating-point", default="standard", choices=("sensitive", "standard", "specific"))
    arguments = parser.parse_args()
    started = metadata()
    names = arguments.names or [p.name for p in sorted(arguments.pairs.iterdir()) if p.name.endswith(LEFT_OUT)]
    config = {"findings": {"operating_point": arguments.operating_point}}
    rows: list[dict[str, Any]] = []
    false = 0
    for name in names:
        folder = arguments.pairs / name
        truth = json.loads((folder / "truth.json").read_text("utf-8"))["lesions"]
        result = cmj.compare(folder / "reference.nrrd", folder / "template.nrrd", config=config)
        changes = [lesion for lesion in truth if lesion["kind"] != "stable"]
        found = match(list(result.findings), changes)
        wrong = len(result.findings) - len(found)
        false += wrong
        rows += [{**lesion, "pair": name, "listed_as": found.get(i)} for i, lesion in enumerate(changes)]
        print(name, result.quality.verdict, f"{len(found)} of {len(changes)} found, {wrong} false", flush=True)
    document = {"pairs": names, "operating_point": arguments.operating_point, "false": false, **counted(rows)}
    document["missed"] = [described(row) for row in rows if row["listed_as"] is None]
    write_results("independent_findings", {arguments.operating_point: document}, started)
    print(json.dumps(document, indent=1))


def match(findings: list[Finding], changes: list[dict[str, Any]]) -> dict[int, str]:
    """The kind under which each change is listed, by its index; the nearest pairs first, each finding once."""
    pairs = sorted(
        (distance_mm(finding, change), i, j) for i, change in enumerate(changes) for j, finding in enumerate(findings)
    )
    found: dict[int, str] = {}
    used: set[int] = set()
    for distance, i, j in pairs:
        largest = max(changes[i]["diameter_reference_mm"], changes[i]["diameter_template_mm"], NEAR_MM)
        if distance <= largest and i not in found and j not in used:
            found[i] = findings[j].kind
            used.add(j)
    return found


def distance_mm(finding: Finding, change: dict[str, Any]) -> float:
    """From the finding to the lesion, in the scan where they are nearer."""
    here = np.subtract(finding.centre_mm, change["centre_reference_mm"])
    there = np.subtract(finding.centre_template_mm, change["centre_template_mm"])
    return float(min(np.linalg.norm(here), np.linalg.norm(there)))


def counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Changes, found ones and ones of the right kind: in all, by density, by site, and by size."""
    groups: dict[str, list[dict[str, Any]]] = {"all": rows}
    for row in rows:
        largest = max(row["diameter_reference_mm"], row["diameter_template_mm"])
        size = "6 mm and more" if largest >= 6 else "below 6 mm"
        for name in (row["density"], f"at {row['site']}", size, f"{row['density']}, {size}"):
            groups.setdefault(name, []).append(row)
    return {
        name: {
            "changes": len(part),
            "found": sum(row["listed_as"] is not None for row in part),
            "kind_right": sum(row["listed_as"] == row["kind"] for row in part),
        }
        for name, part in sorted(groups.items())
    }


def described(row: dict[str, Any]) -> str:
    before, now = row["diameter_template_mm"], row["diameter_reference_mm"]
    return f"{row['kind']}, {row['density']}, {row['site']}, {before:.1f} to {now:.1f} mm ({row['pair']})"


if __name__ == "__main__":
    main()
