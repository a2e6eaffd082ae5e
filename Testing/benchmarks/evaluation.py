"""All methods on synthetic pairs with fixed seeds, scored by ``changemap evaluate``: what ``make benchmark`` runs.

    python Testing/benchmarks/evaluation.py [DATA] [--work FOLDER] [--changed 1] [--null 1] [--methods NAME ...]

Without DATA the pairs are made from the scan of the sample pair that ships with the project: one patient, so there are
no intervals. With DATA (``ct15`` and ``native``) they are made from the scans of four patients on whom nothing was
trained or fitted; the network's training watched one of them, LIDC-IDRI-1011. Every pair goes through ``changemap run``
with the methods rigid, sequential and joint, as a user runs them. Change, motion and noise are synthetic on real CT.
What was made stays in the work folder, so that a run that was stopped goes on.

Writes ``results/evaluation.json`` and the recall curves, ``results/evaluation_*.png``; the page and all else stay in
WORK/evaluation. ``result_tables.py`` makes the tables of README and docs from it.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import RESULTS, metadata, write_results

from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.evaluation.evaluate import evaluate
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.synthesis.draw import NULL_PAIRS, DrawOptions
from ChangeMapJointLib.synthesis.synthesize import SourceScan, synthesize

JUDGED_ON = (  # nothing was trained or fitted on these patients
    "ct15/LIDC-IDRI-1011_ct.nii.gz",
    "native/QIN-LSC-0049_full_ct.nii.gz",
    "native/QIN-LUNG-01-0007_full_ct.nii.gz",
    "native/LIDC-IDRI-0063_full_ct.nii.gz",
)
METHODS = ("rigid", "sequential", "joint")
CHANGED_SEED, NULL_SEED = 9000, 9500
DAYS = 180  # what the table of cases says of every pair, for doubling times
PICTURES = ("recall_curves", "size_groups", "froc")


def main() -> None:
    """Make the pairs, run every method on each, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, default=Path("build/benchmark"))
    parser.add_argument("--changed", type=int, default=1, help="pairs with change for each patient")
    parser.add_argument("--null", type=int, default=1, help="pairs without change for each patient")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    asked = parser.parse_args()
    start = metadata()
    pairs = make_pairs(asked.data, asked.work, asked.changed, asked.null)
    runs = [(pair, method, asked.work / "runs" / method / pair.name) for pair in pairs for method in asked.methods]
    for number, (pair, method, out) in enumerate(runs, 1):
        print(f"{number} of {len(runs)}: {method} on {pair.name}", flush=True)
        run(pair, method, out)
    table = write_cases(asked.work / "cases.csv", runs)
    out = asked.work / "evaluation"
    scores = evaluate(table, out, overwrite=True)
    for name in PICTURES:
        if (out / "figures" / f"{name}.png").exists():
            shutil.copyfile(out / "figures" / f"{name}.png", RESULTS / f"evaluation_{name}.png")
    what = "synthetic change and motion on real CT"
    print(write_results("evaluation", {what: summary(scores.document)}, start), out / "evaluation.html")


def make_pairs(data: Path | None, work: Path, changed: int, null: int) -> list[Path]:
    """The folders of all pairs, those without change last."""
    scans = [resource("SamplePair", "template.nrrd")] if data is None else [data / name for name in JUDGED_ON]
    sources = [SourceScan.read(scan) for scan in scans]
    folders = []
    for name, seed, count, options in (
        ("changed", CHANGED_SEED, changed, DrawOptions()),
        ("null", NULL_SEED, null, NULL_PAIRS),
    ):
        if count:
            folders += synthesize(sources, work / name, pairs=count * len(sources), seed=seed, options=options)
    return folders


def run(pair: Path, method: str, out: Path) -> None:
    """``changemap run`` on a pair, unless it is there."""
    if (out / run_files.RUN).exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ChangeMapJointLib", "run", "--method", method, "--progress", "none"]
    scans = ["--reference", str(pair / "reference.nrrd"), "--template", str(pair / "template.nrrd")]
    subprocess.run([*command, *scans, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)


def write_cases(path: Path, runs: list[tuple[Path, str, Path]]) -> Path:
    """The table of cases that ``changemap evaluate`` reads."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("case", "patient", "days", "pair", "run"))
        for pair, _, out in runs:
            patient = pair.name.partition("_")[2].removesuffix("_full_ct").removesuffix("_ct")
            folders = (folder.resolve().relative_to(path.parent.resolve()) for folder in (pair, out))
            writer.writerow((pair.name, patient, DAYS, *folders))
    return path


def summary(document: dict[str, Any]) -> dict[str, Any]:
    """The document without the points of the long curves."""
    maps = {
        name: {key: entry[key] for key in ("cases", "changes", "figures", "sensitivity", "size_groups", "null")}
        for name, entry in document["maps"].items()
    }
    kept = ("about", "methods", "comparisons", "notes")
    return {**{key: document[key] for key in kept}, "maps": maps}


if __name__ == "__main__":
    main()
