"""The gate: right pairs are fine, simulated conditions are said, turned headers are doubted, wrong pairs refused.

    python Testing/benchmarks/gate.py DATA [--only right|conditions|orientation|wrong|children] [--cache FOLDER]

DATA holds ``ct15``, ``native`` and ``pairs`` (``known20mm``, ``popi``, ``followup_lung``). Conditions are simulated on
real CT (``gate_conditions.py``): fluid of 10 HU in the back of a lung, 40 HU in its base, -1005 HU in its front, a lung
filled, a metal sphere with streaks, noise, contrast agent, a cropped prior, a field of view of one lung. Scans whose
lung masks are implausible (not 2 to 8 l) are left out and named. With ``--cache``, a run that was stopped goes on where
it was; remove the folder after a change of the code. Results: ``results/gate.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gate_conditions import Known, noisy, relabelled, simulated
from record import write_results

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, bounding_box
from ChangeMapJointLib.gate.anatomy import chest_view, orientation
from ChangeMapJointLib.gate.answer import GateAnswer
from ChangeMapJointLib.gate.checks import check_ct, check_pair
from ChangeMapJointLib.gate.rules import BY_NAME
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.body_size import as_adult, body_scale
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

PLAUSIBLE_ML = (2000.0, 8000.0)
TURNS: tuple[tuple[int, ...], ...] = ((2,), (1,), (0,), (1, 2), (0, 2), (0, 1), (0, 1, 2))
PARTS = ((1 / 3, 1.0), (0.5, 1.0), (0.0, 2 / 3), (0.0, 0.5))
AXES = {0: "head_feet", 1: "front_back", 2: "left_right"}
PAIRS = (
    ("reference", "template"),
    ("phase_00", "phase_50"),
    ("3DCT_lung_followup", "3DCT_lung_baseline"),
)
ONE_LUNG_MM = 15.0  # beside a lung, where the field of view is cropped to it
CONDITIONS_ON = ("LIDC-IDRI-0001", "LIDC-IDRI-0002")
CHILDREN_ON = ("LIDC-IDRI-0063", "QIN-LSC-0014")  # the size of a body is known where it is not cut off
ABDOMEN = (("LIDC-IDRI-0001", "LIDC-IDRI-0063"), ("QIN-LSC-0028", "QIN-LSC-0014"))
WRONG = (("QIN-LSC-0003", "QIN-LSC-0028"), ("QIN-LSC-0014", "QIN-LSC-0049"), ("LIDC-IDRI-0001", "LIDC-IDRI-0002"))


class Kept:
    """Finished cases and lungs, in a folder where there is one."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.rows = folder, {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / "cases.json").exists():
                self.rows = json.loads((folder / "cases.json").read_text("utf-8"))

    def case(self, key: str, make: Callable[[], Any]) -> Any:
        """The case of this name; made where it is not there."""
        if key not in self.rows:
            self.rows[key] = make()
            if self.folder is not None:
                (self.folder / "cases.json").write_text(json.dumps(self.rows, indent=1), encoding="utf-8")
            print(key, self.rows[key], flush=True)
        return self.rows[key]

    def lungs(self, name: str, volume: Volume) -> Lungs:
        """Those of a scan of the data."""
        file = None if self.folder is None else self.folder / f"{name}.npz"
        if file is not None and file.exists():
            return relabelled(Lungs(np.empty(0, np.uint8), volume.grid, 0.0, 0.0), np.load(file)["labels"])
        lungs = segment_lungs(volume)
        if file is not None:
            np.savez_compressed(file, labels=lungs.labels)
        return lungs


def scans(data: Path, kept: Kept, names: set[str] | None = None) -> tuple[dict[str, Known], list[str]]:
    """All scans with plausible lungs by name, or those of ``names``, and the names of the others."""
    files = [*sorted((data / "native").glob("*_ct.nii.gz")), *sorted((data / "ct15").glob("*_ct.nii.gz"))]
    files += [data / "pairs/known20mm" / f"{name}.nii.gz" for name in ("reference", "template")]
    files += [data / "pairs/popi" / f"phase_{phase}.nii.gz" for phase in ("00", "50")]
    files += [data / "pairs/followup_lung" / f"3DCT_lung_{name}.mha" for name in ("baseline", "followup")]
    found, left_out = {}, []
    for file in files:
        name = file.name.removesuffix(".nii.gz").removesuffix(".mha").removesuffix("_ct").removesuffix("_full")
        if names is not None and name not in names:
            continue
        volume = check_ct(read_volume(file))
        lungs = kept.lungs(name, volume)
        if PLAUSIBLE_ML[0] <= lungs.right_ml + lungs.left_ml <= PLAUSIBLE_ML[1]:
            found[name] = (volume, lungs)
        else:
            left_out.append(name)
    return found, left_out


def ask(reference: Known, template: Known, matrix: FloatArray | None = None) -> GateAnswer:
    """The whole answer on a pair that lies as ``matrix`` says."""
    where = np.eye(4) if matrix is None else matrix
    return check_pair(reference[0], template[0], lungs=(reference[1], template[1]), rigid=where)


def told(answer: GateAnswer) -> dict[str, Any]:
    """Answer and reasons, short."""
    return {
        "answer": answer.answer,
        "rules": [
            f"{one.scan} {one.rule} {'' if one.value is None else round(one.value, 2)}".strip()
            for one in answer.reasons
        ],
    }


# -- right pairs ------------------------------------------------------------------------------
def right(known: dict[str, Known], kept: Kept) -> dict[str, Any]:
    """Each scan against itself with other noise, and the pairs that are there."""
    found = {
        name: kept.case(f"right, {name}", lambda scan=scan: told(ask(scan, (noisy(scan[0], 10.0), scan[1]))))
        for name, scan in known.items()
    }
    for ours, theirs in PAIRS:
        if ours in known and theirs in known:
            name = f"{ours} against {theirs}"
            found[name] = kept.case(f"right, {name}", lambda r=known[ours], t=known[theirs]: _aligned(r, t))
    return {"pairs": found, "fine": sum(one["answer"] == "fine" for one in found.values()), "of": len(found)}


def _aligned(r: Known, t: Known) -> dict[str, Any]:
    """The answer on a real pair."""
    return told(ask(r, t, align_rigid(Scan.of(r[0], r[1].mask), Scan.of(t[0], t[1].mask)).matrix))


# -- simulated conditions ---------------------------------------------------------------------
def conditions(known: dict[str, Known], kept: Kept) -> dict[str, Any]:
    """Every condition must be said, of the scan that has it."""
    found: dict[str, Any] = {}
    for name in (name for name in CONDITIONS_ON if name in known):
        scan = known[name]
        for condition, rule, make in simulated(scan):
            key = f"{name}: {condition}"
            found[key] = kept.case(key, lambda rule=rule, make=make, scan=scan: _condition(make(), rule, scan))
        for side, words in ((RIGHT, "right"), (LEFT, "left")):
            key = f"{name}: a field of view of the {words} lung"
            found[key] = kept.case(key, lambda scan=scan, side=side: _one_lung(scan, side))
        key = f"{name}: a third of the prior is missing"
        found[key] = kept.case(key, lambda scan=scan: _third(scan))
    return {"cases": found, "said": sum(one["said"] for one in found.values()), "of": len(found)}


def _condition(volume: Volume, rule: str, scan: Known) -> dict[str, Any]:
    """What is said of a scan with a condition, and whether ``rule`` says it."""
    try:
        answer = ask((volume, segment_lungs(volume)), scan)
    except InputError as error:
        return {"answer": "refuse", "said": True, "rules": [str(error)]}
    said = any(one.rule == rule and one.scan in ("", "Reference") for one in answer.reasons)
    return {**told(answer), "said": said}


def _one_lung(scan: Known, side: int) -> dict[str, Any]:
    """The scan cropped to one lung: that the field of view holds one lung is said, and no disease."""
    volume, lungs = scan
    margin = [int(ONE_LUNG_MM / h) for h in volume.grid.spacing_mm[::-1]]
    start, stop = bounding_box(lungs.labels == side, margin)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    part = replace(volume, array=volume.array[box], grid=volume.grid.crop(start, stop), unseen=None)
    found = _condition(part, "one_sided", scan)
    disease = any("one_lung" in one or "_percent" in one for one in found["rules"] if one.startswith("Reference"))
    return {**found, "said": found["said"] and not disease}


def _third(scan: Known) -> dict[str, Any]:
    """The prior without its lower third."""
    first = len(scan[0].array) // 3
    part = scan[0].grid.crop((first, 0, 0), scan[0].grid.shape)
    cut = replace(scan[0], array=scan[0].array[first:], grid=part, unseen=None)
    answer = ask(scan, (cut, replace(relabelled(scan[1], scan[1].labels[first:]), grid=part)))
    return {**told(answer), "said": any(one.rule == "coverage" for one in answer.reasons)}


# -- orientation ------------------------------------------------------------------------------
def flipped(scan: Known, axes: tuple[int, ...]) -> Known:
    """The content turned under the same header (LPS axes 0 z, 1 y, 2 x), with the masks that were found upright."""
    volume, lungs = scan
    array, labels = volume.array.copy(), lungs.labels.copy()
    view, _ = volume.grid.lps_view(array)
    marks, _ = volume.grid.lps_view(labels)
    view[:] = np.flip(view, axes).copy()
    turned = np.flip(marks, axes).copy()
    marks[:] = np.where(turned > 0, RIGHT + LEFT - turned, 0) if 2 in axes else turned
    return replace(volume, array=array, unseen=None), relabelled(lungs, labels)


def part_of_scan(scan: Known, low: float, high: float) -> Known:
    """Some of the slices, as a shorter scan."""
    volume, lungs = scan
    first, last = int(low * len(volume.array)), int(high * len(volume.array))
    grid = volume.grid.crop((first, 0, 0), (last, *volume.array.shape[1:]))
    part = replace(volume, array=volume.array[first:last], grid=grid, unseen=None)
    return part, replace(relabelled(lungs, lungs.labels[first:last]), grid=grid)


def doubted(scan: Known) -> tuple[set[str], dict[str, float | None]]:
    """Axes that the anatomy contradicts, and its figures."""
    view = chest_view(*scan)
    assert view is not None
    found = vars(orientation(view))
    rules = {name for name, value in found.items() if value is not None and BY_NAME[name].answer(value) != "fine"}
    return rules, {name: None if value is None else round(value, 2) for name, value in found.items()}


def _orientation_of(scan: Known) -> dict[str, Any]:
    """The axes that are doubted: of the scan as it is, turned, and in part."""
    rules, figures = doubted(scan)
    turned = {str(axes): sorted(doubted(flipped(scan, axes))[0]) for axes in TURNS}
    parts = {f"{a:.0%} to {b:.0%} of its slices": sorted(doubted(part_of_scan(scan, a, b))[0]) for a, b in PARTS}
    return {"upright": {**figures, "doubted": sorted(rules)}, "turned": turned, "parts": parts}


def _found_anew(scan: Known, axes: tuple[int, ...]) -> list[str]:
    """The same where the lungs are segmented in the turned scan."""
    volume = flipped(scan, axes)[0]
    return sorted(doubted((volume, segment_lungs(volume)))[0])


def turned_headers(known: dict[str, Known], kept: Kept) -> dict[str, Any]:
    """No doubt on any scan as it is; every turned axis found on its turned versions."""
    found = {
        name: kept.case(f"turned, {name}", lambda scan=scan: _orientation_of(scan)) for name, scan in known.items()
    }
    hits = {name: [0, 0, 0] for name in AXES.values()}
    for one in found.values():
        for axes in TURNS:
            for axis, rule in AXES.items():
                hits[rule][0] += axis in axes and rule in one["turned"][str(axes)]
                hits[rule][1] += axis in axes
                hits[rule][2] += axis not in axes and rule in one["turned"][str(axes)]
    parts = {f"{name}, {part}": rules for name, one in found.items() for part, rules in one["parts"].items()}
    again = {
        f"{name} {AXES[axes[0]]}": kept.case(
            f"turned, lungs anew, {name} {axes}", lambda name=name, axes=axes: _found_anew(known[name], axes)
        )
        for name in CONDITIONS_ON[:2]
        for axes in TURNS[:3]
        if name in known
    }
    return {
        "upright": {name: one["upright"] for name, one in found.items()},
        "false_doubts_upright": sum(len(one["upright"]["doubted"]) for one in found.values()),
        "turned": {rule: {"found": a, "of": b, "false": c} for rule, (a, b, c) in hits.items()},
        "parts": len(parts),
        "false_doubts_on_parts": {name: rules for name, rules in parts.items() if rules},
        "lungs_found_anew_in_the_turned_scan": again,
    }


# -- wrong pairs and children -----------------------------------------------------------------
def wrong(known: dict[str, Known], kept: Kept) -> dict[str, Any]:
    """Two patients, and what is no CT: refused. All pairs at all voxel sizes: ``rigid_robustness.json``."""
    found = {}
    for ours, theirs in WRONG:
        if ours in known and theirs in known:
            name = f"{ours} against {theirs}"
            found[name] = kept.case(f"wrong, {name}", lambda r=known[ours], t=known[theirs]: _refused_pair(r, t))
    for ours, theirs in ABDOMEN:
        if ours in known and theirs in known:
            name = f"{ours} against the abdomen of {theirs}"
            found[name] = kept.case(name, lambda r=known[ours], t=known[theirs]: _refused_abdomen(r, t))
    name, (volume, _) = next(iter(known.items()))
    for what, array in (("HU + 1024", volume.array + 1024), ("label map", (volume.array > -500).astype(np.int16))):
        try:
            check_ct(replace(volume, array=array))
            found[f"{name}, {what}"] = "accepted"
        except InputError as error:
            found[f"{name}, {what}"] = f"refused: {str(error).split(': ', 1)[-1]}"
    return found


def _refused_abdomen(r: Known, t: Known) -> str:
    """What is said of a chest and of the slices from 50 mm above the lower end of another patient's lungs downwards."""
    volume, lungs = t
    array, grid = volume.grid.lps_view(volume.array)
    marks, _ = volume.grid.lps_view(lungs.labels)
    bottom = int(np.flatnonzero(marks.any(axis=(1, 2)))[0])
    last = bottom + int(50 / grid.spacing_mm[2])
    below = Volume(np.ascontiguousarray(array[:last]), grid.crop((0, 0, 0), (last, *array.shape[1:])))
    height = f"{last * grid.spacing_mm[2]:.0f} mm high, "
    try:
        below = check_ct(below)
        found = segment_lungs(below)
        align_rigid(Scan.of(r[0], r[1].mask), Scan.of(below, found.mask))
    except InputError as error:
        return f"{height}refused: {str(error).split('aligned: ')[-1]}"
    return f"{height}accepted"


def _refused_pair(r: Known, t: Known) -> str:
    try:
        align_rigid(Scan.of(r[0], r[1].mask), Scan.of(t[0], t[1].mask))
    except InputError as error:
        return f"refused: {str(error).split('aligned: ')[-1]}"
    return "accepted"


def _child(scan: Known, size: float) -> dict[str, Any]:
    """An adult's scan scaled to a child's size, alone and in a field of view of 700 mm; lungs by a scaled grid."""
    volume, lungs = scan
    small = replace(volume, grid=as_adult(volume.grid, 1 / size))
    scale = body_scale(small)
    true = (lungs.right_ml + lungs.left_ml) * size**3
    room = max(0, round((700.0 / small.grid.spacing_mm[0] - small.array.shape[2]) / 2 / 4))
    wide = np.pad(small.array[:, ::4, ::4], ((0, 0), (room, room), (room, room)), constant_values=-1000)
    x, y, z = small.grid.spacing_mm
    check_ct(Volume(wide, replace(small.grid, shape=wide.shape, spacing_mm=(4 * x, 4 * y, z))))
    row = {"body_scale": round(scale, 3), "true_ml": round(true, 1)}
    try:
        again = segment_lungs(small)
    except InputError as error:  # a body that is cut off is taken for an adult's; the error names the option to lower
        return {**row, "refused": str(error).partition(": ")[2]}
    return {**row, "ml": round(again.right_ml + again.left_ml, 1)}


def children(known: dict[str, Known], kept: Kept) -> dict[str, Any]:
    """Adults' scans as children, and the size that adults are taken for."""
    found = {
        f"{name} at {size}": kept.case(
            f"child, {name} at {size}", lambda name=name, size=size: _child(known[name], size)
        )
        for name in CHILDREN_ON
        if name in known
        for size in (0.33, 0.45, 0.6)
    }
    return {"cases": found, "adults": {name: body_scale(scan[0]) for name, scan in known.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parts = {
        "right": right,
        "orientation": turned_headers,
        "conditions": conditions,
        "children": children,
        "wrong": wrong,
    }
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--cache", type=Path, help="folder for lungs and finished cases; a stopped run goes on from it")
    chosen = parser.parse_args()
    kept = Kept(chosen.cache)
    two_patients = {name for pair in (*WRONG, *ABDOMEN) for name in pair}  # all that this part needs
    known, left_out = scans(chosen.data, kept, two_patients if chosen.only == "wrong" else None)
    for name, measure in parts.items():
        if chosen.only in (None, name):
            write_results("gate", {name: {**measure(known, kept), "scans": len(known), "left_out": left_out}})


if __name__ == "__main__":
    main()
