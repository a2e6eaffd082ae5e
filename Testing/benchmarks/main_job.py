"""The bars of the main job, measured: accuracy on known motion, null pairs, native DICOM, the demo.

    python Testing/benchmarks/main_job.py DATA [--repeat 3] [--only demo,known20mm]

DATA holds ``pairs/known20mm``, ``pairs/popi``, ``ct15`` and ``dicom``. Every case is a whole process of the command
line, timed from outside: medians over the repeats. Figures are those of the last repeat; all give the same bytes.
Change in all of these pairs is synthetic, except POPI, which is a real 4D CT without lesions.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import Measured, measure, median, write_results

from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.io.write import read_displacement, write_nrrd

Figures = dict[str, Any]


def run_pair(reference: Path, template: Path, out: Path) -> Measured:
    """``changemap run`` on one pair."""
    command = [sys.executable, "-m", "ChangeMapJointLib", "run", "--progress", "none", "--overwrite"]
    return measure([*command, "--reference", str(reference), "--template", str(template), "--out", str(out)])


def read_rows(path: Path) -> list[dict[str, float]]:
    """A CSV of numbers; words become NaN."""

    def value(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return float("nan")

    with path.open(newline="") as stream:
        return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def columns(rows: list[dict[str, float]], *names: str) -> np.ndarray:
    """``[n, len(names)]``."""
    return np.array([[row[name] for name in names] for row in rows])


def errors_mm(out: Path, reference_mm: np.ndarray, template_mm: np.ndarray) -> np.ndarray:
    """Distance of y(reference points) from their partners."""
    return np.linalg.norm(read_displacement(out / "deformation.nrrd").apply(reference_mm) - template_mm, axis=1)


def map_figures(out: Path) -> Figures:
    """Highest value of the map, number and volume of the findings, and the registration's own figures."""
    findings = json.loads((out / "findings.json").read_text())["findings"]
    quality = json.loads((out / "quality.json").read_text())["quality"]
    return {
        "map_max": round(float(read_array(out / "change_map.nrrd")[0].max()), 4),
        "findings": len(findings),
        "largest_finding_ml": max((f["volume_ml"] for f in findings), default=0.0),
        "lung_dice": quality["lung_dice"],
        "folding_percent": quality["folding_percent"],
        "verdict": quality["verdict"],
    }


def known20mm(data: Path, scratch: Path) -> tuple[Measured, Figures]:
    """A scan breathed out by a known motion of up to 20 mm, with six lesions."""
    folder, out = data / "pairs" / "known20mm", scratch / "known20mm"
    measured = run_pair(folder / "reference.nii.gz", folder / "template.nii.gz", out)
    rows = read_rows(folder / "points.csv")
    r, t = columns(rows, "rx", "ry", "rz"), columns(rows, "tx", "ty", "tz")
    vessel = columns(rows, "on_vessel")[:, 0] > 0
    error, before = errors_mm(out, r, t), np.linalg.norm(r - t, axis=1)
    lesions = read_rows(folder / "lesions.csv")
    centres = errors_mm(out, columns(lesions, "rx", "ry", "rz"), columns(lesions, "tx", "ty", "tz"))
    return measured, {
        "before_mm": round(float(before[~vessel].mean()), 3),
        "tre_mean_mm": round(float(error[~vessel].mean()), 3),
        "tre_p95_mm": round(float(np.percentile(error[~vessel], 95)), 3),
        "tre_vessels_mm": round(float(error[vessel].mean()), 3),
        "lesion_centres_mm": [round(float(e), 2) for e in centres],
        **map_figures(out),
    }


def popi(data: Path, scratch: Path) -> tuple[Measured, Figures]:
    """Two phases of a real 4D CT with landmarks (frame fitted: +-2 mm)."""
    folder, out = data / "pairs" / "popi", scratch / "popi"
    measured = run_pair(folder / "phase_00.nii.gz", folder / "phase_50.nii.gz", out)
    r, t = (columns(read_rows(folder / f"phase_{p}_landmarks.csv"), "x", "y", "z") for p in ("00", "50"))
    error = errors_mm(out, r, t)
    before = float(np.linalg.norm(r - t, axis=1).mean())
    return measured, {
        "before_mm": round(before, 3),
        "landmarks_mean_mm": round(float(error.mean()), 3),
        "landmarks_median_mm": round(float(np.median(error)), 3),
        **map_figures(out),
    }


def itself(data: Path, scratch: Path) -> tuple[Measured, Figures]:
    """A scan against itself: no change anywhere."""
    scan, out = data / "ct15" / "LIDC-IDRI-0314_ct.nii.gz", scratch / "itself"
    measured = run_pair(scan, scan, out)
    return measured, map_figures(out)


def moved_rigidly(data: Path, scratch: Path) -> tuple[Measured, Figures]:
    """A scan against itself, moved by (8, -5, 12) mm and 5 degrees."""
    scan, moved, out = data / "ct15" / "LIDC-IDRI-0314_ct.nii.gz", scratch / "moved.nrrd", scratch / "moved_rigidly"
    volume = read_volume(scan)
    angle, centre = np.deg2rad(5.0), np.asarray(volume.grid.centre_mm)
    matrix = np.eye(4)
    matrix[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + (8.0, -5.0, 12.0)
    hu = resample(volume.array, volume.grid, volume.grid, matrix=matrix, outside=-1024.0)
    write_nrrd(moved, np.rint(hu).astype(np.int16), volume.grid)
    measured = run_pair(scan, moved, out)
    return measured, map_figures(out)


def native(data: Path, scratch: Path) -> tuple[Measured, Figures]:
    """512 x 512 x 275 DICOM as reference, its own 1.5 mm volume as template."""
    out = scratch / "native"
    measured = run_pair(data / "dicom" / "LIDC-IDRI-0314.zip", data / "ct15" / "LIDC-IDRI-0314_ct.nii.gz", out)
    return measured, map_figures(out)


def demo(data: Path, scratch: Path) -> tuple[Measured, Figures]:
    """``changemap demo``: the sample pair, scored against its truth."""
    out = scratch / "demo"
    measured = measure([sys.executable, "-m", "ChangeMapJointLib", "demo", "--progress", "json", "--out", str(out)])
    events = [json.loads(line) for line in measured.output.splitlines() if line.startswith("{")]
    score = next(e for e in events if e["event"] == "score")
    return measured, {**{k: v for k, v in score.items() if k not in ("event", "lines")}, **map_figures(out)}


CASES: dict[str, Callable[[Path, Path], tuple[Measured, Figures]]] = {
    "demo": demo,
    "known20mm": known20mm,
    "popi": popi,
    "itself": itself,
    "moved_rigidly": moved_rigidly,
    "native": native,
}


def main() -> None:
    """Measure the chosen cases and write ``results/main_job.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default=",".join(CASES))
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name in arguments.only.split(","):
        runs = []
        with tempfile.TemporaryDirectory() as scratch:
            for _ in range(arguments.repeat):
                measured, figures = CASES[name](arguments.data, Path(scratch))
                runs.append(measured)
        results[name] = {
            "what": (CASES[name].__doc__ or "").strip(),
            "repeats": len(runs),
            "wall_s": median([m.wall_s for m in runs]),
            "cpu_s": median([m.cpu_s for m in runs]),
            "peak_memory_mb": median([m.peak_memory_mb for m in runs]),
            "figures": figures,
        }
        print(name, json.dumps(results[name]))
    print(write_results("main_job", results))


if __name__ == "__main__":
    main()
