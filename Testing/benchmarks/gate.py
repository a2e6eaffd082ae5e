"""The gate: right pairs are fine, simulated conditions are said, turned headers are doubted, wrong pairs refused.

    python Testing/benchmarks/gate.py DATA [--only right|conditions|orientation|wrong|children]

DATA holds ``ct15``, ``native``, ``pairs/known20mm`` and ``pairs/popi``. Conditions are simulated on real CT: fluid of
10 HU in the back of a lung, 40 HU in its base, -1005 HU in its front, a lung filled, a metal sphere with streaks,
noise, contrast agent, another breath, a cropped prior. Scans whose lung masks are implausible (not 2 to 8 l) are
left out and named. Results: ``results/gate.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_results
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
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

Known = tuple[Volume, Lungs]
PLAUSIBLE_ML = (2000.0, 8000.0)
TURNS: tuple[tuple[int, ...], ...] = ((2,), (1,), (0,), (1, 2), (0, 2), (0, 1), (0, 1, 2))
PARTS = ((1 / 3, 1.0), (0.5, 1.0), (0.0, 2 / 3), (0.0, 0.5))
AXES = {0: "head_feet", 1: "front_back", 2: "left_right"}
CONDITIONS_ON = ("LIDC-IDRI-0001", "LIDC-IDRI-0002")
WRONG = (("QIN-LSC-0003", "QIN-LSC-0028"), ("QIN-LSC-0014", "QIN-LSC-0049"), ("LIDC-IDRI-0001", "LIDC-IDRI-0002"))


def scans(data: Path) -> tuple[dict[str, Known], list[str]]:
    """All scans with plausible lungs by name, and the names of the others."""
    files = [*sorted((data / "native").glob("*_ct.nii.gz")), *sorted((data / "ct15").glob("*_ct.nii.gz"))]
    files += [data / "pairs/known20mm" / f"{name}.nii.gz" for name in ("reference", "template")]
    files += [data / "pairs/popi" / f"phase_{phase}.nii.gz" for phase in ("00", "50")]
    found, left_out = {}, []
    for file in files:
        volume = check_ct(read_volume(file))
        lungs = segment_lungs(volume)
        name = file.name.removesuffix(".nii.gz").removesuffix("_ct").removesuffix("_full")
        if PLAUSIBLE_ML[0] <= lungs.right_ml + lungs.left_ml <= PLAUSIBLE_ML[1]:
            found[name] = (volume, lungs)
        else:
            left_out.append(name)
        print(name, round(lungs.right_ml), round(lungs.left_ml), flush=True)
    return found, left_out


def relabelled(lungs: Lungs, labels: NDArray[np.uint8]) -> Lungs:
    """Other labels on the same grid."""
    ml = lungs.grid.voxel_volume_ml
    return Lungs(labels, lungs.grid, float((labels == RIGHT).sum() * ml), float((labels == LEFT).sum() * ml))


def hu(volume: Volume, values: NDArray[np.floating]) -> Volume:
    """The scan with other values, rounded."""
    return replace(volume, array=np.clip(np.rint(values), -1024, 3071).astype(np.int16))


def noisy(volume: Volume, sigma_hu: float, seed: int = 1) -> Volume:
    """White noise on top."""
    return hu(volume, volume.array + np.random.default_rng(seed).normal(0.0, sigma_hu, volume.array.shape))


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
def right(known: dict[str, Known]) -> dict[str, Any]:
    """Each scan against itself with other noise, and the pairs that are there."""
    found = {name: told(ask(scan, (noisy(scan[0], 10.0), scan[1]))) for name, scan in known.items()}
    for ours, theirs in (("reference", "template"), ("phase_00", "phase_50")):
        if ours in known and theirs in known:
            r, t = known[ours], known[theirs]
            aligned = align_rigid(Scan.of(r[0], r[1].mask), Scan.of(t[0], t[1].mask))
            found[f"{ours} against {theirs}"] = told(ask(r, t, aligned.matrix))
    return {"pairs": found, "fine": sum(one["answer"] == "fine" for one in found.values()), "of": len(found)}


# -- simulated conditions ---------------------------------------------------------------------
def part_of(scan: Known, side: int, axis: int, share: float, *, last: bool) -> NDArray[np.bool_]:
    """A share of a lung at one end of an LPS axis (0 z, 1 y), ``last``: head or back; vessels with it."""
    volume, lungs = scan
    labels, _ = volume.grid.lps_view(lungs.labels)
    lung = labels == side
    along = lung.sum(axis=tuple(other for other in range(3) if other != axis)).cumsum()
    place = np.searchsorted(along, along[-1] * (1 - share if last else share))
    rows = np.arange(lung.shape[axis]) >= place if last else np.arange(lung.shape[axis]) < place
    shape = [1, 1, 1]
    shape[axis] = -1
    where = np.zeros(volume.array.shape, dtype=bool)
    view, _ = volume.grid.lps_view(where)
    view[:] = lung & rows.reshape(shape)
    return where


def filled(volume: Volume, where: NDArray[np.bool_], value_hu: float, sigma_hu: float = 15.0) -> Volume:
    """Another density at some voxels."""
    array = volume.array.astype(np.float32)
    array[where] = value_hu + np.random.default_rng(2).normal(0.0, sigma_hu, int(where.sum()))
    return hu(volume, array)


def with_metal(scan: Known, radius_mm: float = 10.0) -> Volume:
    """A metal sphere in the chest wall before the left lung, with streaks in its slices."""
    volume, lungs = scan
    array = volume.array.astype(np.float32)
    view, grid = volume.grid.lps_view(array)
    labels, _ = volume.grid.lps_view(lungs.labels)
    z, _, x = (int(v) for v in np.argwhere(labels == LEFT).mean(axis=0))
    y = max(int(np.flatnonzero((labels == LEFT).any(axis=(0, 2)))[0]) - 4, 2)
    k, j, i = np.ogrid[: view.shape[0], : view.shape[1], : view.shape[2]]
    dz, dy, dx = ((a - b) * h for a, b, h in zip((k, j, i), (z, y, x), grid.spacing_mm[::-1], strict=True))
    near = np.exp(-np.hypot(dy, dx) / 60.0) * (np.abs(dz) < radius_mm)
    view += 300.0 * np.sin(12 * np.arctan2(dy, dx)) * near
    view[dz**2 + dy**2 + dx**2 < radius_mm**2] = 3071
    return hu(volume, array)


def with_contrast(scan: Known, rise_hu: float = 150.0) -> Volume:
    """Denser soft tissue between the lungs."""
    volume, lungs = scan
    labels, _ = volume.grid.lps_view(lungs.labels > 0)
    array = volume.array.astype(np.float32)
    view, _ = volume.grid.lps_view(array)
    before = np.maximum.accumulate(labels, axis=2)
    behind = np.flip(np.maximum.accumulate(np.flip(labels, 2), axis=2), 2)
    heart = before & behind & ~labels & (ndimage.uniform_filter(view, 3) > 0) & (view < 200)
    view[heart] += rise_hu
    return hu(volume, array)


def simulated(scan: Known) -> Iterator[tuple[str, str, Volume]]:
    """Name of the condition, the rule that must say so, and the scan."""
    volume = scan[0]
    for side, name in ((RIGHT, "right"), (LEFT, "left")):
        back = part_of(scan, side, 1, 0.25, last=True)
        yield f"effusion, 25 % of the {name} lung", "fluid_percent", filled(volume, back, 10.0)
        front = part_of(scan, side, 1, 0.15, last=False)
        yield f"pneumothorax, 15 % of the {name} lung", "gas_percent", filled(volume, front, -1005.0, 8.0)
        base = part_of(scan, side, 0, 0.25, last=False)
        yield f"consolidation, 25 % of the {name} lung", "dense_percent", filled(volume, base, 40.0)
        whole = part_of(scan, side, 0, 1.01, last=False)
        yield f"pneumonectomy, {name}", "one_lung", filled(volume, whole, 25.0)
    yield "metal, 4 ml", "metal_ml", with_metal(scan)
    yield "contrast agent in one scan, 150 HU", "blood_hu", with_contrast(scan)
    yield "noise of 120 HU", "noise_hu", noisy(volume, 120.0)


def conditions(known: dict[str, Known]) -> dict[str, Any]:
    """Every condition must be said, of the scan that has it."""
    found: dict[str, Any] = {}
    for name in (name for name in CONDITIONS_ON if name in known):
        scan = known[name]
        for condition, rule, volume in simulated(scan):
            try:
                answer = ask((volume, segment_lungs(volume)), scan)
            except InputError as error:
                found[f"{name}: {condition}"] = {"answer": "refuse", "said": True, "rules": [str(error)]}
                continue
            said = any(one.rule == rule and one.scan in ("", "Reference") for one in answer.reasons)
            found[f"{name}: {condition}"] = {**told(answer), "said": said}
            print(name, condition, found[f"{name}: {condition}"], flush=True)
        half = len(scan[0].array) // 3
        part = scan[0].grid.crop((half, 0, 0), scan[0].grid.shape)
        cut = replace(scan[0], array=scan[0].array[half:], grid=part)
        answer = ask(scan, (cut, replace(relabelled(scan[1], scan[1].labels[half:]), grid=part)))
        said = any(one.rule == "coverage" for one in answer.reasons)
        found[f"{name}: a third of the prior is missing"] = {**told(answer), "said": said}
    return {"cases": found, "said": sum(one["said"] for one in found.values()), "of": len(found)}


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
    return replace(volume, array=array), relabelled(lungs, labels)


def part_of_scan(scan: Known, low: float, high: float) -> Known:
    """Some of the slices, as a shorter scan."""
    volume, lungs = scan
    first, last = int(low * len(volume.array)), int(high * len(volume.array))
    grid = volume.grid.crop((first, 0, 0), (last, *volume.array.shape[1:]))
    part = replace(volume, array=volume.array[first:last], grid=grid)
    return part, replace(relabelled(lungs, lungs.labels[first:last]), grid=grid)


def doubted(scan: Known) -> tuple[set[str], dict[str, float | None]]:
    """Axes that the anatomy contradicts, and its figures."""
    view = chest_view(*scan)
    assert view is not None
    found = vars(orientation(view))
    rules = {name for name, value in found.items() if value is not None and BY_NAME[name].answer(value) != "fine"}
    return rules, {name: None if value is None else round(value, 2) for name, value in found.items()}


def turned_headers(known: dict[str, Known]) -> dict[str, Any]:
    """No doubt on any scan as it is; every turned axis found on its turned versions."""
    upright, hits, parts = {}, {name: [0, 0, 0] for name in AXES.values()}, {}
    for name, scan in known.items():
        rules, figures = doubted(scan)
        upright[name] = {**figures, "doubted": sorted(rules)}
        for axes in TURNS:
            rules, _ = doubted(flipped(scan, axes))
            for axis, rule in AXES.items():
                hits[rule][0] += axis in axes and rule in rules
                hits[rule][1] += axis in axes
                hits[rule][2] += axis not in axes and rule in rules
        for low, high in PARTS:
            rules, _ = doubted(part_of_scan(scan, low, high))
            parts[f"{name}, {low:.0%} to {high:.0%} of its slices"] = sorted(rules)
        print(name, upright[name], flush=True)
    again = {}
    for name in CONDITIONS_ON[:2]:
        for axes in TURNS[:3]:
            volume = flipped(known[name], axes)[0]
            rules, _ = doubted((volume, segment_lungs(volume)))
            again[f"{name} {AXES[axes[0]]}"] = sorted(rules)
    return {
        "upright": upright,
        "false_doubts_upright": sum(len(one["doubted"]) for one in upright.values()),
        "turned": {rule: {"found": a, "of": b, "false": c} for rule, (a, b, c) in hits.items()},
        "parts": len(parts),
        "false_doubts_on_parts": {name: rules for name, rules in parts.items() if rules},
        "lungs_found_anew_in_the_turned_scan": again,
    }


# -- wrong pairs and children -----------------------------------------------------------------
def wrong(known: dict[str, Known]) -> dict[str, Any]:
    """Two patients, and what is no CT: refused. All pairs at all voxel sizes: ``rigid_robustness.json``."""
    found = {}
    for ours, theirs in WRONG:
        if ours not in known or theirs not in known:
            continue
        r, t = known[ours], known[theirs]
        try:
            align_rigid(Scan.of(r[0], r[1].mask), Scan.of(t[0], t[1].mask))
            found[f"{ours} against {theirs}"] = "accepted"
        except InputError as error:
            found[f"{ours} against {theirs}"] = f"refused: {str(error).split('aligned: ')[-1]}"
    name, (volume, _) = next(iter(known.items()))
    for what, array in (("HU + 1024", volume.array + 1024), ("label map", (volume.array > -500).astype(np.int16))):
        try:
            check_ct(replace(volume, array=array))
            found[f"{name}, {what}"] = "accepted"
        except InputError as error:
            found[f"{name}, {what}"] = f"refused: {str(error).split(': ', 1)[-1]}"
    return found


def children(known: dict[str, Known]) -> dict[str, Any]:
    """An adult's scan scaled to a child's size, alone and in a field of view of 700 mm; lungs by a scaled grid."""
    found = {}
    for name in (name for name in CONDITIONS_ON if name in known):
        volume, lungs = known[name]
        for size in (0.33, 0.45, 0.6):
            small = replace(volume, grid=as_adult(volume.grid, 1 / size))
            scale = body_scale(small)
            again = segment_lungs(replace(small, grid=as_adult(small.grid, scale)))
            ml = (again.right_ml + again.left_ml) * scale**3
            true = (lungs.right_ml + lungs.left_ml) * size**3
            room = max(0, round((700.0 / small.grid.spacing_mm[0] - small.array.shape[2]) / 2 / 4))
            wide = np.pad(small.array[:, ::4, ::4], ((0, 0), (room, room), (room, room)), constant_values=-1000)
            grid = replace(
                small.grid,
                shape=wide.shape,
                spacing_mm=(*(4 * h for h in small.grid.spacing_mm[:2]), small.grid.spacing_mm[2]),
            )
            check_ct(Volume(wide, grid))
            found[f"{name} at {size}"] = {"body_scale": round(scale, 3), "ml": round(ml, 1), "true_ml": round(true, 1)}
            print(name, size, found[f"{name} at {size}"], flush=True)
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
    chosen = parser.parse_args()
    known, left_out = scans(chosen.data)
    for name, measure in parts.items():
        if chosen.only in (None, name):
            write_results("gate", {name: {**measure(known), "scans": len(known), "left_out": left_out}})


if __name__ == "__main__":
    main()
