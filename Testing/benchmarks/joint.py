"""The joint network beside the sequential method on pairs of patients that it was not trained on.

    python Testing/benchmarks/joint.py DATA [--weights FILE] [--work FOLDER] [--jobs N]

DATA holds ``ct15``. Synthetic change and motion on the real CTs of LIDC-IDRI-1011 and 4DLung-113: 40 pairs of seeds
3000 to 3039 (three of four of the first, whose lungs are large enough for deep breathing), 40 null pairs of seeds 5000
to 5039 whose lesions are all stable, while kernel and slice thickness are others (0.4 and a factor of 1.5 at least),
and 12 pairs of seeds 6000 to 6011 whose lesions are cut from these two CTs and turned, not painted.
Every pair runs through the program's own stages (lung masks, rigid alignment, keypoints, registration or network) with
R and T alone; the truth is looked at afterwards. Maps are judged on R's own voxels, where the program looks
(``lungs_of_both``), and where told in all of the lungs of R and T(y), with the rim that lies between the two where y
is off by a few voxels:

* ``sequential``: CM_seq of the sequential method.
* ``network``: y of the network alone; CM_diff, CM_learn and CM_comb.
* ``optimised``: y after instance optimisation, and the same three maps; CM_learn is the network's second look.

What was made and measured stays in the work folder, so that a run that was stopped goes on. Writes
``results/joint.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joint_sums import FIRST, MOST_FALSE, OTHER, RESIZED, RIM, of_cut_lesions, summary
from numpy.typing import NDArray
from record import write_results

from ChangeMapJointLib.change.maps import change_map, lungs_of_both, match_voxel_blur
from ChangeMapJointLib.change.method_table import RIM_MM
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.evaluation.froc import count_scan
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.joint.checkpoint import read_checkpoint
from ChangeMapJointLib.joint.inference import run_network, update_learned_change
from ChangeMapJointLib.lungs.segment import segment_both
from ChangeMapJointLib.registration.deformable.register import folding_percent, register_deformable
from ChangeMapJointLib.registration.keypoints.match import find_correspondences
from ChangeMapJointLib.registration.quality import dice
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.padding import unseen_mask
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.draw import NULL_PAIRS, DrawOptions
from ChangeMapJointLib.synthesis.synthesize import SourceScan, synthesize
from ChangeMapJointLib.synthesis.truth import TrueChange, read_truth
from ChangeMapJointLib.training.samples import read_keypoints

# painted lesions
DRAWN: dict[str, Any] = {"lesions": (4, 9), "in_plane_mm": (1.5, 1.5), "slice_mm": (1.5, 5.0)}
DRAWN |= {"cut_share": 0.0, "eroded_share": 0.0}
# smooth motion and independent slices, as when the figures in docs were measured
DRAWN |= {"real_share": 0.0, "equal_slices_share": 0.0, "double_slices_share": 0.0}
HELD_OUT = DrawOptions(diaphragm_mm=(28.0, 46.0), **DRAWN)
NULL = replace(NULL_PAIRS, **DRAWN)
CUT = replace(HELD_OUT, cut_share=1.0)
SETS = {
    "held": (40, 3000, HELD_OUT, (FIRST,) * 3 + (OTHER,)),
    "null": (40, 5000, NULL, (FIRST, OTHER)),
    "cut": (12, 6000, CUT, (FIRST,) * 3 + (OTHER,)),
}
CONFIG = RunConfig()
FORMAT = 6  # of what is kept; raise it when it is measured in another way


def main() -> None:
    """Make the pairs, measure each, sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/joint"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=["sequential"], help="what does not need the weights, ahead of time")
    asked = parser.parse_args()
    folders = {name: make_pairs(asked.data, asked.work / name, name) for name in SETS}
    weights = None if asked.only else asked.weights or resource("Models", "default.safetensors")
    tasks = [(folder, asked.work / "figures", weights) for made in folders.values() for folder in made]
    with ProcessPoolExecutor(asked.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        measured = dict(zip([f for f, _, _ in tasks], pool.map(measure, *zip(*tasks, strict=True)), strict=True))
    if weights is None:
        return
    held, null, cut = ([measured[folder] for folder in folders[name]] for name in SETS)
    figures = summary(held, null)
    figures["lesions cut from CT"] = of_cut_lesions(cut)
    print(json.dumps(figures, indent=2))
    used = read_checkpoint(weights)
    figures |= {"weights_sha256": used.sha256, "network_options": to_mapping(used.network.options)}
    print(write_results("joint", {"synthetic change and motion on real CT": figures}))


def make_pairs(data: Path, out: Path, name: str) -> list[Path]:
    """The pairs of one set; those that are there stay."""
    count, seed, options, patients = SETS[name]
    there = sorted(p.parent for p in out.glob("*/truth.json"))
    if len(there) == count:
        return there
    scans = [data / "ct15" / f"{patient}_ct.nii.gz" for patient in patients]
    lesions = [data / "ct15" / f"{patient}_lesion.nii.gz" for patient in patients]
    sources = [SourceScan.read(*both) for both in zip(scans, lesions, strict=True)]
    return synthesize(sources, out, pairs=count, seed=seed, options=options)


def measure(folder: Path, kept: Path, weights: Path | None) -> dict[str, Any]:
    """Figures of one pair, by method; what was measured before is read."""
    model = None if weights is None else read_checkpoint(weights)
    how = f"{FORMAT} {RIM_MM} {json.dumps(to_mapping(CONFIG))}".encode() + (folder / "truth.json").read_bytes()
    key = f"{folder.name}.{hashlib.sha256(how).hexdigest()[:12]}"
    files = {"sequential": kept / f"{key}.sequential.json"}
    if model is not None:
        options = json.dumps(to_mapping(model.network.options)).encode()
        files["joint"] = kept / f"{key}.{model.sha256[:12]}.{hashlib.sha256(options).hexdigest()[:8]}.json"
    if not all(path.exists() for path in files.values()):
        kept.mkdir(parents=True, exist_ok=True)
        pair = Pair(folder)
        if not files["sequential"].exists():
            write(files["sequential"], pair.sequential())
        if model is not None and not files["joint"].exists():
            write(files["joint"], pair.joint(model))
        print(folder.name, flush=True)
    told = {name: value for path in files.values() for name, value in json.loads(path.read_text()).items()}
    return {**told, "name": folder.name}


def write(path: Path, values: dict[str, Any]) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values))
    part.rename(path)


class Pair:
    """One pair, aligned as the program does it, and its truth."""

    def __init__(self, folder: Path) -> None:
        self.r, self.t = (read_volume(folder / f"{side}.nrrd") for side in ("reference", "template"))
        self.lungs = segment_both(self.r, self.t, options=CONFIG.lungs)
        self.rigid = align_rigid(*map(Scan.of, (self.r, self.t), [side.mask for side in self.lungs])).matrix
        self.scans = (self.r, self.t, *(side.mask for side in self.lungs))
        self.truth = read_truth(folder / "truth.json").changes
        self.points = read_keypoints(folder / "keypoints.csv")
        self.labels, _ = read_array(folder / "lesions_template.nrrd")
        self.matches = find_correspondences(ScanPair.of(*self.scans, rigid=self.rigid), keypoints=CONFIG.keypoints)
        self.matched = match_voxel_blur(
            self.r.array,
            self.r.grid,
            self.t.array,
            self.t.grid,
            reference_unseen=unseen_mask(self.r),
            template_unseen=unseen_mask(self.t),
        )

    def sequential(self) -> dict[str, Any]:
        """The sequential method, and the rigid alignment alone."""
        started = time.monotonic()
        found = register_deformable(
            ScanPair.of(*self.scans, rigid=self.rigid), keypoints=self.matches.keypoints, options=CONFIG.registration
        )
        seconds = time.monotonic() - started
        rigid = DisplacementField.from_affine(self.rigid, self.r.grid.corners())
        return {"rigid": self.geometry(rigid), "sequential": {**self.judged(found.field), "seconds": seconds}}

    def joint(self, model: Any) -> dict[str, Any]:
        """The network alone, and with instance optimisation."""
        times = [time.monotonic()]
        answer = run_network(model, ScanPair.of(*self.scans, rigid=self.rigid))
        times.append(time.monotonic())
        options = replace(CONFIG.registration, iterations=CONFIG.joint.instance)
        keypoints = self.matches.keypoints
        found = register_deformable(
            ScanPair.of(*self.scans, rigid=self.rigid), start=answer.field, keypoints=keypoints, options=options
        )
        again = update_learned_change(model, answer, found.field, self.r.grid)
        times.append(time.monotonic())
        network = self.judged(answer.field, answer.learned)
        optimised = self.judged(found.field, again.learned)
        return {
            "network": {**network, "seconds": times[1] - times[0]},
            "optimised": {**optimised, "seconds": times[2] - times[1]},
        }

    def geometry(self, field: DisplacementField) -> dict[str, float]:
        """TRE in mm over the known correspondences, folding in percent of M_R, Dice of the lungs."""
        apart = np.linalg.norm(field.apply(self.points[0]) - self.points[1], axis=1)
        ours, theirs = (side.mask for side in self.lungs)
        moved = warp(theirs, self.t.grid, self.r.grid, field) >= 0.5
        worst = np.sort(apart)[-max(len(apart) * 3 // 10, 1) :]
        return {
            "tre_mm": float(apart.mean()),
            "tre_worst_30_percent_mm": float(worst.mean()),
            "folding_percent": folding_percent(field, ours, self.r.grid),
            "dice": dice(ours, moved),
        }

    def judged(self, field: DisplacementField, learned: NDArray[np.float32] | None = None) -> dict[str, Any]:
        """Geometry, volumes of lesions, and counts of every map that y gives."""
        ours, theirs = (side.mask for side in self.lungs)
        warped = warp(theirs, self.t.grid, self.r.grid, field) >= 0.5
        moved = warp(self.matched[1], self.t.grid, self.r.grid, field, outside=np.nan)
        box = tuple(slice(max(a.min() - 3, 0), a.max() + 4) for a in np.nonzero(ours | warped))
        grid = self.r.grid.crop([s.start for s in box], [min(s.stop, n) for s, n in zip(box, ours.shape, strict=True)])
        kept = (None if a is None else a[box] for a in (self.matched[0], moved, ours, warped, learned))
        return {
            **self.geometry(field),
            "preserved": {kind: self.preserved(field, grid, kind) for kind in RESIZED},
            "counts": counts(*kept, grid, self.truth),  # type: ignore[arg-type]
            "changes": self.changes(),
        }

    def changes(self) -> list[dict[str, Any]]:
        """Kind and change of diameter of every true change, in the order of the counts."""
        return [{"kind": c.kind, "change_mm": c.diameter_change_mm} for c in self.truth if c.is_change]

    def preserved(self, field: DisplacementField, grid: Grid, kind: str) -> list[float]:
        """``|L^T(y)| / |L^T|`` of the lesions of one kind."""
        ratios = []
        for change in self.truth:
            lesion = self.labels == change.id
            if change.kind == kind and lesion.any():  # the smallest fall between thick slices
                volume = float(lesion.sum()) * self.t.grid.voxel_volume_ml
                moved = float(warp(lesion, self.t.grid, grid, field).sum()) * grid.voxel_volume_ml
                ratios.append(moved / volume)
        return ratios


def counts(
    reference: NDArray[np.generic],
    moved: NDArray[np.float32],
    ours: NDArray[np.bool_],
    warped: NDArray[np.bool_],
    learned: NDArray[np.float32] | None,
    grid: Grid,
    truth: Sequence[TrueChange],
) -> dict[str, Any]:
    """Hits and false positives of the maps of R and T(y), both matched, and of CM_learn; where the program looks, and
    with the rim.
    """
    counted = {}
    for where, inside in (("", lungs_of_both(ours, warped, grid)), (RIM, ours | warped)):
        maps = {"difference": change_map(reference, moved, inside)}
        if learned is not None:
            maps["learned"] = np.where(inside, learned, np.float32(0))
            maps["combined"] = maps["difference"] * maps["learned"]
        for name, values in maps.items():
            found = count_scan(values, truth, grid, inside=inside, most_false=MOST_FALSE)
            counted[name + where] = {"hit": found.hit.astype(int).tolist(), "false": found.false.tolist()}
    return counted


if __name__ == "__main__":
    main()
