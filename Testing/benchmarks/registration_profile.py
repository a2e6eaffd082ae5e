"""Where the registration spends its CPU time, and how far each stage is from what memory and arithmetic allow.

    python Testing/benchmarks/registration_profile.py DATA [--only known20mm,native]

For every stage: CPU seconds without those of the stages inside it, calls, the bytes and floating-point operations that
the method needs there (counted from the sizes, every array once), the time these would take at the speed of a memory
triad and of a matrix product measured on the same threads, and the ratio. Set OMP_NUM_THREADS and NUMBA_NUM_THREADS to
choose the threads; CPU seconds are summed over them, and so is the floor.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from record import write_results

from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.deformable import data_terms, objective
from ChangeMapJointLib.registration.deformable import register as solver
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid
from ChangeMapJointLib.registration.rigid import align as rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan

CASES = {
    "known20mm": ("pairs/known20mm/reference.nii.gz", "pairs/known20mm/template.nii.gz"),
    "native": ("dicom/LIDC-IDRI-0314.zip", "ct15/LIDC-IDRI-0314_ct.nii.gz"),
}
# bytes and operations a voxel near the lung: each array of the formulas in kernels.py once; T as many voxels as R
KERNELS = {
    "warp_rows": (44.0, 170.0),  # T, M_T, M_R, w; T(y), slope, pull of the mask. Spline 48, place 30, trilinear 2 x 45
    "ngf_rows": (24.0, 55.0),  # R, T(y), N_R, w; A and B
    "gradient_rows": (40.0, 110.0),  # R, T(y), A, B, slope, pull of the mask; rows are few
    "gather_planes": (0.5, 3.0),
    "gather_volume": (0.1, 1.0),
}
FUSED = (32.0, 335.0)  # one evaluation if nothing but T(y) were stored: R, T, M_R, M_T, w, N_R; T(y) out and in
HISTORY = 8  # of L-BFGS


class Clock:
    """Exclusive CPU time, calls and needs of named stages that may lie inside one another."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.needs: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.open: list[str] = []
        self.last = time.process_time()
        self.level = ""

    def _charge(self) -> None:
        now = time.process_time()
        if self.open:
            self.spent[self.open[-1]] += now - self.last
        self.last = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Everything inside counts for ``name`` unless a further stage is opened."""
        self._charge()
        self.open.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self._charge()
            self.open.pop()

    def need(self, name: str, many_bytes: float, operations: float) -> None:
        """``name`` needs so much more."""
        self.needs[name][0] += many_bytes
        self.needs[name][1] += operations

    @contextmanager
    def watching(self, owner: Any, attribute: str, name: str | None = None, **hooks: Any) -> Iterator[None]:
        """Count calls of ``owner.attribute``; ``before(clock, name, *arguments)`` may add to the needs."""
        original: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(original)
        def watched(*arguments: Any, **named: Any) -> Any:
            label = (name or attribute) + (f" {self.level}" if hooks.get("by_level") else "")
            if "before" in hooks:
                hooks["before"](self, label, *arguments)
            with self.stage(label):
                return original(*arguments, **named)

        setattr(owner, attribute, watched)
        try:
            yield
        finally:
            setattr(owner, attribute, original)


def triad_gb_s() -> float:
    """Bytes moved by ``a = b + s c`` over 0.6 GB, the best of five."""
    a, b, c = (torch.ones(50_000_000) for _ in range(3))
    best = min(_wall(lambda: torch.add(b, c, alpha=0.5, out=a)) for _ in range(5))
    return 3 * a.numel() * 4 / best / 1e9


def product_gflop_s() -> float:
    """Operations of a matrix product of 1,500 x 1,500, the best of five."""
    a, out = torch.ones(1500, 1500), torch.empty(1500, 1500)
    best = min(_wall(lambda: torch.mm(a, a, out=out)) for _ in range(5))
    return 2 * 1500**3 / best / 1e9


def _wall(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _enter_level(clock: Clock, name: str, minimised: objective.Objective, *_: Any) -> None:
    """Kernels from now on belong to this level; L-BFGS's two loops read and write its history."""
    control: ControlGrid = minimised.control
    clock.level = f"{control.grid.spacing_mm[0]:g} mm"
    iterations, numbers = _[1], 3.0 * np.prod(control.shape)  # at most so many: a level may end early
    clock.need(name, iterations * 4 * HISTORY * numbers * 4, iterations * 8 * HISTORY * numbers)


def _evaluate_kernels(kernels: ModuleType, clock: Clock, name: str, data: data_terms.CompiledData, *_: Any) -> None:
    near = _listed(data)
    for kernel, (many_bytes, operations) in KERNELS.items():
        if hasattr(kernels, kernel):
            clock.need(f"{kernel} {clock.level}", near * many_bytes, near * operations)
    clock.need(f"fused evaluation {clock.level}", near * FUSED[0], near * FUSED[1])


@functools.cache
def _listed(data: data_terms.CompiledData) -> float:
    """Voxels with a weight and their neighbours."""
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(3, 1)
    return float(ndimage.binary_dilation(data.weight > 0, cross).sum())


def _pyramid(clock: Clock, name: str, scan: Scan, *_: Any) -> None:
    z, y, x = (float(np.ptp(i)) + 1 for i in np.nonzero(scan.mask))
    voxels = x * y * z  # the margin is left out: this is what must be read
    clock.need(name, voxels * 3 + 8 * voxels / 4, voxels * 2 * 2 * 3 * 7)  # 7 taps along three axes, image and mask


def profile(reference: Path, template: Path) -> dict[str, Any]:
    """One registration with its preparation, stage by stage, after a first one that compiles the kernels."""
    from ChangeMapJointLib.registration.deformable import kernels

    clock = Clock()
    with clock.stage("read"):
        pair = [read_volume(path) for path in (reference, template)]
    with clock.stage("lungs"):
        lungs = [segment_lungs(volume).mask for volume in pair]
    with clock.stage("rigid"):
        matrix = rigid.align_rigid(*map(Scan.of, pair, lungs)).matrix
    for volume, path in zip(pair, (reference, template), strict=True):
        clock.need("read", path.stat().st_size + 2.0 * volume.array.size, 0.0)
        clock.need("lungs", 4.0 * volume.array.size, volume.array.size)  # the scan in; mask and labels out
        clock.need("rigid", 2.0 * volume.array.size, 0.0)
    quick = solver.RegistrationOptions(iterations=(1, 1, 1))
    solver.register(ScanPair.of(*pair, *lungs, rigid=matrix), options=quick)

    def regularisers(clock: Clock, name: str, term: objective.Objective, *_: Any) -> None:
        points = float(np.prod(term.control.shape))
        clock.need(name, points * 3 * 4 * 2, points * 600)  # coefficients in, gradient out

    def edges(clock: Clock, name: str, image: torch.Tensor, *_: Any) -> None:
        clock.need(name, 4.0 * image.numel(), 6.0 * image.numel())

    def partners(clock: Clock, name: str, r: Any, *_: Any) -> None:
        voxels = float(r.image.numel())  # R, T and their masks in, the weight out; warp, and two volumes smoothed
        clock.need(name, 20.0 * voxels, (170 + 2 * 3 * 2 * 9) * voxels)

    def cover(clock: Clock, name: str, coefficients: torch.Tensor, control: Any, start: Any, whole: Any, fine: Any):  # type: ignore[no-untyped-def]
        mm3 = float(np.prod([n * h for n, h in zip(whole.size, whole.spacing_mm, strict=True)]))
        voxels = mm3 / float(np.prod(fine.spacing_mm))
        clock.need(name, 12 * voxels, 3 * 12 * voxels)

    def fold(clock: Clock, name: str, u: Any, inside: Any, grid: Any) -> None:
        share = float(inside.mean())
        clock.need(name, 12.0 * u.vectors_mm[..., 0].size * share, 40.0 * u.vectors_mm[..., 0].size * share)

    evaluate = functools.partial(_evaluate_kernels, kernels)
    watched: list[tuple[Any, str, dict[str, Any]]] = [
        (solver, "scan_pyramid", {"name": "pyramid", "before": _pyramid}),
        (solver, "edge_parameter", {"name": "edge parameters", "before": edges}),
        (solver, "partner_weight", {"name": "partners", "before": partners}),
        (solver, "minimise", {"name": "L-BFGS", "before": _enter_level}),
        (solver, "cover_reference", {"name": "cover_reference", "before": cover}),
        (solver, "folding_percent", {"name": "folding", "before": fold}),
        (solver, "refine", {"name": "refine"}),
        (objective.Objective, "evaluate", {"name": "regularisers", "before": regularisers}),
        (data_terms.CompiledData, "__init__", {"name": "data terms: set up"}),
        (data_terms.CompiledData, "evaluate", {"name": "data terms: around the kernels", "before": evaluate}),
        *((kernels, name, {"by_level": True}) for name in KERNELS if hasattr(kernels, name)),
    ]
    with _all_of(clock, watched), clock.stage("register: the rest"):
        found = solver.register(ScanPair.of(*pair, *lungs, rigid=matrix))
    return {
        "evaluations": {f"{level.spacing_mm[0]:g} mm": level.evaluations for level in found.levels},
        "stages": clock,
    }


@contextmanager
def _all_of(clock: Clock, watched: list[tuple[Any, str, dict[str, Any]]]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, attribute, options in watched:
            stack.enter_context(clock.watching(owner, attribute, **options))
        yield


def table(clock: Clock, gb_s: float, gflop_s: float, threads: int) -> dict[str, dict[str, float]]:
    """Figures of every stage, and of one whole evaluation a level if its kernels were one."""
    rows: dict[str, dict[str, float]] = {}
    for name in [*clock.spent, *(n for n in clock.needs if n.startswith("fused"))]:
        level = name.removeprefix("fused evaluation ")
        inside = [k for k in clock.spent if k.endswith(f" {level}") and k.split()[0] in KERNELS]
        spent = sum(clock.spent[k] for k in inside) if name.startswith("fused") else clock.spent[name]
        many_bytes, operations = clock.needs.get(name, (0.0, 0.0))
        floor = threads * max(many_bytes / gb_s, operations / gflop_s) / 1e9
        rows[name] = {
            "cpu_s": round(spent, 4),
            "calls": clock.calls.get(name) or clock.calls.get(inside[0] if inside else "", 0),
            "gigabytes": round(many_bytes / 1e9, 4),
            "gigaflop": round(operations / 1e9, 4),
            "floor_s": round(floor, 5),
            "times_the_floor": round(spent / floor, 1) if floor else 0.0,
        }
    return dict(sorted(rows.items(), key=lambda row: -row[1]["cpu_s"]))


def main() -> None:
    """Profile the chosen pairs and write ``results/registration_profile.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default=",".join(CASES))
    arguments = parser.parse_args()
    if not data_terms.compiled_available():
        raise SystemExit("Numba is not installed: there are no kernels to profile.")
    threads = torch.get_num_threads()
    results: dict[str, Any] = {}
    for name in arguments.only.split(","):
        gb_s, gflop_s = (statistics.median(measure() for _ in range(3)) for measure in (triad_gb_s, product_gflop_s))
        found = profile(*(arguments.data / part for part in CASES[name]))
        rows = table(found["stages"], gb_s, gflop_s, threads)
        results[name] = {
            "threads": threads,
            "triad_gb_s": round(gb_s, 1),
            "matrix_product_gflop_s": round(gflop_s, 1),
            "evaluations": found["evaluations"],
            "stages": rows,
        }
        print(f"{name}: {threads} thread(s), triad {gb_s:.1f} GB/s, matrix product {gflop_s:.0f} GFLOP/s")
        print(f"{'stage':34}{'CPU s':>9}{'calls':>7}{'GB':>9}{'GFLOP':>9}{'floor s':>10}{'ratio':>8}")
        for stage, row in rows.items():
            print(
                f"{stage:34}{row['cpu_s']:9.3f}{row['calls']:7.0f}{row['gigabytes']:9.3f}{row['gigaflop']:9.2f}"
                f"{row['floor_s']:10.4f}{row['times_the_floor']:8.1f}"
            )
    print(write_results("registration_profile", results))


if __name__ == "__main__":
    main()
