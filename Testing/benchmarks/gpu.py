"""The registration on a GPU: is it right, is it fast, and how much of the memory's bandwidth does the fused step use?

    python Testing/benchmarks/gpu.py DATA [--device cuda] [--cases 256x256x128,512x512x300] [--repeat 5]

The pair of 20 mm is resampled to the sizes wanted (x, y, z) and registered on the CPU and on the device: at its own
voxels up to 256x256x128, at the default working size above. Times are medians after a warm-up, with the device
synchronised. Writes ``results/gpu.json``. Without a GPU it says so and ends with code 2; ``--device cpu`` with small
``--cases`` runs the whole script, with the closed form in torch in the place of the GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from record import median, write_results

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.deformable import register as solver
from ChangeMapJointLib.registration.deformable.closed_form import ClosedFormData, FusedData, fused_available
from ChangeMapJointLib.registration.keypoints.match import find_correspondences
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

BARS_S = {"256x256x128": 1.0, "512x512x300": 4.0}
AGREE_MM = 0.02
OWN_VOXELS = 256 * 256 * 128  # up to here the finest level has the scan's voxels
NOMINAL_GB_S = {"H200": 4800.0, "H100 PCIe": 2000.0, "H100": 3350.0, "A100": 2039.0, "L4": 300.0, "T4": 320.0}
# bytes a listed voxel moves in FusedData's three launches: list, displacement, T, T(y) | list, R, T(y), w, factors |
# list, displacement, T, M_T, R, M_R, w, T(y), factors, pull
LISTED_BYTES = (4 + 12 + 4 + 4) + (4 + 4 + 4 + 4 + 8) + (4 + 12 + 4 * 6 + 8 + 12)
BOX_BYTES = 12 + 12  # a voxel of the box: displacement out, pull in

Pair = tuple[list[Volume], list[np.ndarray]]


def sized(pair: Pair, size: tuple[int, int, int]) -> Pair:
    """Both scans and lungs with ``size`` voxels (x, y, z) in the same box."""
    volumes, masks = [], []
    for volume, lungs in zip(*pair, strict=True):
        grid = volume.grid
        spacing = [h * n / m for h, n, m in zip(grid.spacing_mm, grid.size, size, strict=True)]
        target = Grid(size[::-1], (spacing[0], spacing[1], spacing[2]), grid.origin_mm, grid.direction)
        hu = np.rint(resample(volume.array, grid, target, outside=-1024.0)).astype(np.int16)
        volumes.append(Volume(hu, target))
        masks.append(resample(lungs, grid, target) >= 0.5)
    return volumes, masks


def options_for(volume: Volume) -> solver.RegistrationOptions:
    """At the scan's own voxels while they are few."""
    own = volume.array.size <= OWN_VOXELS
    return solver.RegistrationOptions(working_mm=min(volume.grid.spacing_mm)) if own else solver.RegistrationOptions()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device, repeat: int) -> tuple[Any, float]:
    """The last result and the median of the seconds, after one call that is not counted."""
    result, seconds = call(), []
    for _ in range(repeat):
        synchronise(device)
        start = time.perf_counter()
        result = call()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


@contextmanager
def stages(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds within the solver's stages, the device synchronised round each of them."""
    spent: dict[str, float] = {}

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(solver, name)

        def call(*arguments: Any, **named: Any) -> Any:
            synchronise(device)
            start = time.perf_counter()
            result = original(*arguments, **named)
            synchronise(device)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            return result

        return call

    names = ("scan_pyramid", "edge_parameter", "change_weight", "minimise", "cover_reference", "folding_percent")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(solver, name, watched(name)))
        yield spent


def difference_mm(one: solver.Registration, other: solver.Registration, lungs: np.ndarray, grid: Grid) -> np.ndarray:
    """Distance of two results at every voxel of the lungs."""
    z, y, x = np.nonzero(lungs)
    some = slice(None, None, max(len(x) // 500_000, 1))
    points = grid.to_physical(np.stack([x, y, z], axis=1)[some])
    return np.linalg.norm(one.field.at(points) - other.field.at(points), axis=1)


def registrations(pair: Pair, device: torch.device, repeat: int, bar_s: float | None) -> dict[str, Any]:
    """Time on the device and on the CPU, and how far apart the results are."""
    volumes, lungs = pair
    options = options_for(volumes[0])
    cpu = torch.device("cpu")
    keypoints = find_correspondences(ScanPair.of(*volumes, *lungs)).keypoints

    def on(where: torch.device) -> Callable[[], solver.Registration]:
        return lambda: solver.register_deformable(
            ScanPair.of(*volumes, *lungs), keypoints=keypoints, options=options, device=where
        )

    expected, cpu_s = timed(on(cpu), cpu, 1)
    terms = mock.patch.object(solver, "fastest_terms", return_value=ClosedFormData)
    with terms if device.type == "cpu" else nullcontext():
        found, device_s = timed(on(device), device, repeat)
        with stages(device) as spent:
            on(device)()
    apart = difference_mm(found, expected, lungs[0], volumes[0].grid)
    figures: dict[str, Any] = {
        "cpu_s": median([cpu_s]),
        "device_s": median([device_s]),
        "stages_s": {name: round(seconds, 4) for name, seconds in spent.items()},
        "finest_spacing_mm": [round(h, 3) for h in found.levels[-1].spacing_mm],
        "evaluations": [level.evaluations for level in found.levels],
        "apart_mean_mm": round(float(apart.mean()), 5),
        "apart_p95_mm": round(float(np.percentile(apart, 95)), 5),
        "apart_max_mm": round(float(apart.max()), 5),
        "agrees": bool(np.percentile(apart, 95) <= AGREE_MM),
    }
    if bar_s is not None:
        figures |= {"bar_s": bar_s, "fast_enough": device_s <= bar_s}
    return figures


def fused_step(pair: Pair, device: torch.device, repeat: int) -> dict[str, Any]:
    """One evaluation of the data terms at the finest level: milliseconds, and bytes over time."""
    volumes, lungs = pair
    options = options_for(volumes[0])
    finest = [
        solver.scan_pyramid(
            Scan.of(volume, mask),
            margin_mm=options.margin_mm,
            working_mm=min(options.working_mm, *volume.grid.spacing_mm),
            levels=1,
            window_hu=options.window_hu,
            device=device,
        )[0]
        for volume, mask in zip(volumes, lungs, strict=True)
    ]
    control = solver.control_grid(finest[0].grid, options.control_mm)
    kind = FusedData if fused_available(device) else ClosedFormData
    weight = (finest[0].mask > 0.5).to(finest[0].image)
    data = kind(*finest, control, np.eye(4), edges=(30.0, 30.0), weight=weight)
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(*control.shape, 3, generator=generator).to(device)
    listed, box = len(data.voxels), weight.numel()
    _, whole_s = timed(lambda: data.evaluate(c, 1.0, 0.1), device, 10 * repeat)
    _, kernels_s = timed(lambda: data._pull(1.0, 0.1), device, 10 * repeat)
    moved, all_moved = LISTED_BYTES * listed, LISTED_BYTES * listed + BOX_BYTES * box
    nominal = next((speed for name, speed in NOMINAL_GB_S.items() if name in name_of(device)), None)
    figures: dict[str, Any] = {
        "terms": kind.__name__,
        "box_voxels": box,
        "listed_voxels": listed,
        "kernels_ms": round(1e3 * kernels_s, 4),
        "evaluation_ms": round(1e3 * whole_s, 4),
        "kernels_gb_s": round(moved / kernels_s / 1e9, 1),
        "evaluation_gb_s": round(all_moved / whole_s / 1e9, 1),
        "triad_gb_s": round(triad_gb_s(device, repeat), 1),
        "nominal_gb_s": nominal,
    }
    if nominal:
        figures["share_of_nominal"] = round(figures["kernels_gb_s"] / nominal, 3)
    return figures


def triad_gb_s(device: torch.device, repeat: int) -> float:
    """Bytes moved by ``a = b + s c``."""
    a, b, c = (torch.ones(200_000_000 if device.type == "cuda" else 20_000_000, device=device) for _ in range(3))
    _, seconds = timed(lambda: torch.add(b, c, alpha=0.5, out=a), device, repeat)
    return 3 * a.numel() * 4 / seconds / 1e9


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main() -> None:
    """Measure the chosen sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cases", default=",".join(BARS_S), help="sizes XxYxZ")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("No GPU: torch finds no CUDA device here, so there is nothing to measure.", file=sys.stderr)
        raise SystemExit(2)
    folder = arguments.data / "pairs" / "known20mm"
    volumes = [read_volume(folder / f"{side}.nii.gz") for side in ("reference", "template")]
    given = (volumes, [segment_lungs(volume).mask for volume in volumes])
    results: dict[str, Any] = {}
    for name in arguments.cases.split(","):
        x, y, z = (int(n) for n in name.split("x"))
        pair = sized(given, (x, y, z))
        results[name] = {
            "device": name_of(device),
            "triton": fused_available(device),
            "registration": registrations(pair, device, arguments.repeat, BARS_S.get(name)),
            "step": fused_step(pair, device, arguments.repeat),
        }
        print(name, json.dumps(results[name]))
    if device.type == "cuda":
        print(write_results("gpu", results))


if __name__ == "__main__":
    main()
