"""Lung masks of one scan in many surroundings: cropped, padded, in larger fields, with arms, on tables, covered.

    python Testing/benchmarks/lung_variants.py DATA [--every 3] [--cache FOLDER]

With ``--cache``, a run that was stopped goes on where it was; remove the folder after a change of the code. DATA holds
``native``, ``ct15`` and ``pairs``. The mask of every variant is compared with that of the plain scan. What is added is
drawn: arms of muscle and bone, two tables, a blanket. Results: ``results/lung_variants.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import metadata, write_results

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import bounding_box
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io.provenance import git_commit
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.body import inside_body
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.scan.volume import Volume

Hu = NDArray[np.int16]
LEAST_DICE = 0.98
PADDINGS: dict[str, Callable[[Hu], tuple[Hu, int]]] = {
    **{f"pad {v}": (lambda hu, v=v: (padded(hu, 9, v), 9)) for v in (-3024, -2000, -1024, -1000, 0, 3071)},
    **{f"ring of 1 of {v}": (lambda hu, v=v: (padded(hu, 1, v), 1)) for v in (-1024, -1000, 0)},
    **{f"round, outside {v}": (lambda hu, v=v: (round_field(hu, v), 0)) for v in (-3024, -1000, 0)},
}  # twelve ways: what is added, and by how many voxels on each side of a slice


def padded(hu: Hu, width: int, value: int) -> Hu:
    return np.pad(hu, ((0, 0), (width, width), (width, width)), constant_values=value)


def round_field(hu: Hu, value: int) -> Hu:
    """The circle through the corners' middle: nothing of the chest is cut off in a whole field of view."""
    y, x = np.mgrid[: hu.shape[1], : hu.shape[2]]
    r = np.hypot((y - (hu.shape[1] - 1) / 2) / hu.shape[1], (x - (hu.shape[2] - 1) / 2) / hu.shape[2])
    return np.where(r > 0.5, value, hu).astype(np.int16)


def in_larger_field(hu: Hu, by: tuple[int, int, int, int], seed: int = 0) -> Hu:
    """In air with noise: so many voxels more in front, behind, on the right and on the left."""
    front, back, right, left = by
    large = np.pad(hu, ((0, 0), (front, back), (right, left)))
    noise = np.random.default_rng(seed).normal(-1000, 12, large.shape)
    air = np.maximum(np.rint(noise), -1024).astype(np.int16)
    air[:, front : front + hu.shape[1], right : right + hu.shape[2]] = hu
    return air


def with_arms(hu: Hu, body: NDArray[np.bool_], h: tuple[float, float, float], *, up: bool) -> Hu:
    """Two arms beside the chest, or beside the head in the upper half; they touch the body in places."""
    result, (z0, y0, x0), (z1, y1, x1) = hu.copy(), *bounding_box(body)
    hx, hy, _ = h
    z, y, x = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    heights = z >= (z0 + z1) / 2 if up else z >= 0
    for side, edge in ((-1, x0), (1, x1)):
        middle = (y0 + y1) / 2 + 0.1 * (z - z0)
        centre = edge + side * (45.0 / hx + 0.05 * np.abs(z - (z0 + z1) / 2))
        r = np.hypot((x - centre) * hx, (y - middle) * hy)
        arm = (r < 45.0) & heights & ~body
        result = np.where(arm, np.where(r < 11.0, 700, 45), result)
    return result.astype(np.int16)


def on_table(hu: Hu, body: NDArray[np.bool_], h: tuple[float, float, float], *, curved: bool) -> Hu:
    """A shell of carbon round foam, touching the back: a trough, or a board with metal rails."""
    (_, y0, x0), (_, y1, x1) = bounding_box(body)
    hx, hy, _ = h
    y, x = np.mgrid[: hu.shape[1], : hu.shape[2]]
    across = (x - (x0 + x1) / 2) * hx
    top = (y1 * hy) - (across**2 / 1200.0 if curved else 0.0)
    depth = y * hy - top
    table = (depth > 0) & (depth < 45.0) & (np.abs(across) < 230.0)
    shell = table & ((depth < 3.0) | (depth > 42.0) | (np.abs(across) > 227.0))
    rails = table & (np.abs(np.abs(across) - 150.0) < 8.0) & (np.abs(depth - 20.0) < 8.0) & (not curved)
    drawn = np.select([rails, shell, table], [2500, -150, -930], 0)
    free = ~body & (table & (y * hy > y0 * hy))[None]
    return np.where(free, drawn[None], hu).astype(np.int16)


def under_blanket(hu: Hu, body: NDArray[np.bool_], h: tuple[float, float, float]) -> Hu:
    """A folded sheet of 4 mm over the front, 5 to 45 mm above the skin, that hangs down to the table."""
    (_, y0, x0), (_, y1, x1) = bounding_box(body)
    hx, hy, _ = h
    z, y, x = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    a, b = (x1 - x0) / 2 * hx + 12.0, (y1 - y0) / 2 * hy + 25.0
    u, v = (x - (x0 + x1) / 2) * hx / a, (y - (y0 + y1) / 2) * hy / b
    fold = 0.06 * np.sin(9 * np.arctan2(v, u) + 0.05 * z)
    distance = (np.sqrt(u**2 + v**2) - 1 - fold) * min(a, b)
    return np.where((np.abs(distance) < 2.0) & (v < 0.6) & ~body, -250, hu).astype(np.int16)


def variants(
    volume: Volume, lungs: NDArray[np.bool_], *, all_paddings: bool
) -> Iterator[tuple[str, Volume, tuple[slice, ...]]]:
    """``(name, variant, box)``: where the variant's voxels ``[box]`` are those of the scan, or of its part."""
    hu, grid = np.asarray(volume.array, dtype=np.int16), volume.grid
    h = grid.spacing_mm
    shape = hu.shape

    def at(array: Hu, front: int = 0, right: int = 0) -> tuple[Volume, tuple[slice, ...]]:
        start = (0, -front, -right)
        new = grid.crop(start, np.add(start, array.shape))
        inner = np.s_[:, front : front + shape[1], right : right + shape[2]]
        return replace(volume, array=array, grid=new, unseen=None), inner

    for name, make in PADDINGS.items():
        if all_paddings or name in ("pad 0", "ring of 1 of -1024", "pad -1000"):
            array, width = make(hu)
            if name.startswith("round") and (lungs & (array != hu)).any():
                continue  # would cut the lungs
            yield (name, *at(array, width, width))
    pixels = tuple(int(60 / s) for s in h)
    yield ("larger field", *at(in_larger_field(hu, (pixels[1],) * 2 + (pixels[0],) * 2), pixels[1], pixels[0]))
    yield (
        "shifted in it",
        *at(in_larger_field(hu, (2 * pixels[1], 5, 3 * pixels[0], 0)), 2 * pixels[1], 3 * pixels[0]),
    )
    body = _body(volume)
    wide = int(110 / h[0])
    large = in_larger_field(hu, (pixels[1], pixels[1], wide, wide))
    around = np.pad(body, ((0, 0), (pixels[1], pixels[1]), (wide, wide)))
    for name, array in (
        ("arms down", with_arms(large, around, h, up=False)),
        ("arms up", with_arms(large, around, h, up=True)),
        ("trough", on_table(large, around, h, curved=True)),
        ("board with rails", on_table(large, around, h, curved=False)),
        ("blanket", under_blanket(large, around, h)),
        (
            "trough, arms and blanket",
            under_blanket(on_table(with_arms(large, around, h, up=False), around, h, curved=True), around, h),
        ),
    ):
        yield (name, *at(array, pixels[1], wide))


def cropped(volume: Volume, lungs: NDArray[np.bool_], margin_mm: float) -> tuple[Volume, tuple[slice, ...]]:
    margin = [int(margin_mm / s) for s in volume.grid.spacing_mm[::-1]]
    start, stop = bounding_box(lungs, margin)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return replace(volume, array=volume.array[box], grid=volume.grid.crop(start, stop), unseen=None), box


def _body(volume: Volume) -> NDArray[np.bool_]:
    """The body on the scan's own grid, which need not be exact."""
    hu = volume.array.astype(np.float32)
    return inside_body(hu, np.zeros(hu.shape, dtype=bool), -400.0, float(volume.grid.spacing_mm[0]))


def measure(path: Path, *, all_paddings: bool) -> dict[str, Any]:
    """Volumes of the plain scan, and Dice of every variant's mask with its mask."""
    volume = check_ct(read_volume(path))
    array, grid = volume.grid.lps_view(volume.array)
    volume = replace(volume, array=np.ascontiguousarray(array), grid=grid, unseen=None)
    plain = segment_lungs(check_ct(volume))
    result: dict[str, Any] = {
        "right_l": round(plain.right_ml / 1000, 3),
        "left_l": round(plain.left_ml / 1000, 3),
        "notes": list(plain.notes),
        "dice": {},
        "volume_ratio": {},
    }
    todo = [*variants(volume, plain.mask, all_paddings=all_paddings)]
    part, box = cropped(volume, plain.mask, 20.0)
    for name, scan, inner in [*todo, ("cropped to 20 mm", part, box)]:
        expected = plain.mask[box] if name.startswith("cropped") else plain.mask
        try:
            found = segment_lungs(check_ct(scan)).mask
        except InputError as error:
            result["dice"][name] = str(error).replace(str(path), path.name)  # no folder of one machine
            continue
        inside = found if name.startswith("cropped") else found[inner]
        total = float(found.sum()) / max(float(expected.sum()), 1.0)
        result["dice"][name] = round(2 * float((inside & expected).sum()) / float(found.sum() + expected.sum()), 4)
        result["volume_ratio"][name] = round(total, 4)
    return result


def finished(path: Path, cache: Path | None, *, all_paddings: bool) -> dict[str, Any]:
    """What :func:`measure` returns; from the cache where it is there."""
    kept = None if cache is None else cache / f"{path.parent.name}_{path.name}.json"
    if kept is not None and kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return row
    row = {**measure(path, all_paddings=all_paddings), "commit": git_commit()}
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(row), encoding="utf-8")
    return row


def scans(data: Path) -> list[Path]:
    """Every CT at hand, the ones with their whole field of view first."""
    followup = [data / f"pairs/followup_lung/3DCT_lung_{name}.mha" for name in ("baseline", "followup")]
    known = [data / f"pairs/known20mm/{name}.nii.gz" for name in ("reference", "template")]
    files = [*sorted((data / "native").glob("*_ct.nii.gz")), *sorted((data / "ct15").glob("*_ct.nii.gz"))]
    return [path for path in (*files, *known, *followup) if path.exists()]


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """What holds for all scans of ``results``."""
    values = [(v if isinstance(v, float) else 0.0, s, n) for s, r in results.items() for n, v in r["dice"].items()]
    ratios = [v for r in results.values() for n, v in r["volume_ratio"].items() if n in PADDINGS]
    return {
        "variants": len(values),
        "scans": len(results),
        "dice_least": min(values)[0],
        "below_0.98": [f"{s}, {n}: {v}" for v, s, n in sorted(values) if v < LEAST_DICE],
        "paddings": len(ratios),
        "volume_ratio_of_paddings": [min(ratios), max(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, help="folder for finished scans; a stopped run goes on from it")
    parser.add_argument("--workers", type=int, default=2, help="scans at the same time")
    parser.add_argument("--every", type=int, default=1, help="take every so many scans only")
    arguments = parser.parse_args()
    paths, started = scans(arguments.data)[:: arguments.every], metadata()
    results: dict[str, Any] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = {
            pool.submit(
                finished, p, arguments.cache, all_paddings=k % 4 == 0
            ): f"{p.parent.name}/{p.name.split('.')[0]}"
            for k, p in enumerate(paths)
        }
        for job in as_completed(jobs):
            results[jobs[job]] = job.result()
            print(jobs[job], results[jobs[job]], flush=True)
            write_results("lung_variants", {**results, "summary": summary(results)}, started)
    print(summary(results))


if __name__ == "__main__":
    main()
