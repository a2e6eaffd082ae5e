"""The pairs on which the judge of the findings is fitted and tested: real CT, synthetic lesions, registered.

    python Testing/benchmarks/judge_pairs.py DATA SCRATCH

DATA holds ``ct15`` and ``native``. A pair that is in SCRATCH already is kept, so that a stopped run goes on. Every pair
has about 12 lesions of 3 to 16 mm (solid, part-solid, ground glass; free, at a vessel, at the pleura), or only stable
ones and other kernels and slices (null). Each is registered as the product does it; pairs to fit on also in a way that
is spoilt on purpose, since no synthetic motion is as hard to follow as that of a real follow-up. The later pairs to
test on have both lungs and move as real patients breathed (``real_motion_pairs.py``). With ``--faint``, pairs of the
patients to fit on with what is hardest to see are made as well: pale ground glass, part-solid lesions, small changes.
"""

from __future__ import annotations

import argparse
import pickle
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_motion_pairs import motion_of

from ChangeMapJointLib.comparison.assess import check_registration
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.methods import MethodOutput
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import bounding_box
from ChangeMapJointLib.core.progress import silent
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register_deformable
from ChangeMapJointLib.registration.keypoints.match import Matches, find_correspondences
from ChangeMapJointLib.registration.rigid.any_size import align_any_size
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.draw import DrawOptions, draw_pair, sizes_mm
from ChangeMapJointLib.synthesis.lesions import Texture
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, make_pair
from ChangeMapJointLib.synthesis.sites import Place

FITTED = (
    "ct15/LIDC-IDRI-0001_ct",
    "native/QIN-LSC-0003_full_ct",
    "ct15/LIDC-IDRI-0314_ct",
    "native/QIN-LSC-0014_full_ct",
    "ct15/4DLung-113_40pct_ct",
    "native/QIN-LSC-0028_full_ct",
    "ct15/TCGA-34-2605_ct",
    "ct15/LungDx-A0001_kernelB_ct",
)
TESTED = (
    "native/QIN-LSC-0049_full_ct",
    "ct15/LIDC-IDRI-1011_ct",
    "native/QIN-LUNG-01-0007_full_ct",
    "ct15/LIDC-IDRI-0002_ct",
    "native/LIDC-IDRI-0063_full_ct",
)
KINDS = ("new", "grown", "shrunk", "resolved", "stable")
SHARES = (0.22, 0.26, 0.18, 0.18, 0.16)
TEXTURES: tuple[Texture, ...] = ("solid", "part-solid", "ground-glass")
PLACES: tuple[Place, ...] = ("free", "vessel", "pleura")
NULL_PAIRS = 4  # of each group, one a patient
MARGIN_MM = 15.0  # of tissue around the lung that is kept
SMALLEST_MM, LARGEST_MM, SMALLEST_GLASS_MM = 3.0, 16.0, 5.0
FAINT_MM: dict[Texture, tuple[float, float]] = {
    "ground-glass": (8.0, 20.0),
    "part-solid": (6.0, 14.0),
    "solid": (3.0, 7.0),
}
FAINT_GLASS_HU = (100.0, 340.0)  # above lung of about -850
DRAWN = DrawOptions(
    in_plane_mm=(1.3, 1.7),
    slice_mm=(1.3, 3.0),
    diaphragm_mm=(4.0, 28.0),
    lesions=(0, 0),
    real_share=0.0,  # that needs both lungs; the pairs of `Case.real` have their own
    equal_slices_share=0.0,
    double_slices_share=0.0,
)
# coarser than the product: the pairs are many
COARSER = RegistrationOptions(iterations=(40, 25, 10), working_mm=2.25, tolerance=3e-3)
NULL = replace(DRAWN, kernels_apart=0.4, slices_apart=1.3)


@dataclass(frozen=True)
class Case:
    """One pair.

    Attributes:
        scan: file in DATA, without suffix.
        number: which pair of that scan.
        null: without change.
        fitted: of a patient to fit on.
        faint: with pale ground glass and small changes.
    """

    scan: str
    number: int
    null: bool
    fitted: bool
    faint: bool = False

    @property
    def patient(self) -> str:
        """Name of the patient."""
        return Path(self.scan).name.removesuffix("_ct").removesuffix("_full").removesuffix("_40pct")

    @property
    def real(self) -> bool:
        """Whether it moves as a real patient breathed; the motions are those that nothing is fitted on."""
        return not self.fitted and self.number > 0

    @property
    def name(self) -> str:
        """Name of its file in SCRATCH."""
        return f"{self.patient}_{self.number}{'_null' if self.null else '_faint' if self.faint else ''}"

    @property
    def seed(self) -> int:
        """Of all that is drawn."""
        scans = (*FITTED, *TESTED)
        return 1000 * scans.index(self.scan) + 2 * self.number + int(self.null) + 500 * self.faint


def cases(pairs: int = 3) -> list[Case]:
    """All pairs, so ordered that every patient has one with change before any has two."""
    result = []
    for number in range(pairs):
        for scans, fitted in ((FITTED, True), (TESTED, False))[:: -1 if number else 1]:
            result += [Case(scan, number, null=False, fitted=fitted) for scan in scans]
        if number == 0:
            result += [Case(scan, number, null=True, fitted=False) for scan in TESTED[:NULL_PAIRS]]
            result += [Case(scan, number, null=True, fitted=True) for scan in FITTED[:NULL_PAIRS]]
    return result


def faint_cases(pairs: int) -> list[Case]:
    """Pairs with faint change, of the patients to fit on."""
    return [Case(scan, n, null=False, fitted=True, faint=True) for n in range(pairs) for scan in FITTED]


def faint_plans(rng: np.random.Generator, count: int) -> tuple[LesionPlan, ...]:
    """Lesions that are hard to see: more than half of them ground glass."""
    drawn = []
    for _ in range(count):
        kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
        texture = TEXTURES[int(rng.choice(3, p=(0.25, 0.2, 0.55)))]
        large = float(np.exp(rng.uniform(*np.log(FAINT_MM[texture]))))
        now, before = sizes_mm(kind, large, large / float(rng.uniform(1.2, 1.6)))  # type: ignore[arg-type]
        place = PLACES[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
        drawn.append(LesionPlan(kind, round(now, 2), round(before, 2), texture, place))  # type: ignore[arg-type]
    return tuple(drawn)


def plans(rng: np.random.Generator, count: int, *, null: bool) -> tuple[LesionPlan, ...]:
    """Lesions of all sizes alike on a logarithmic scale."""
    drawn = []
    for _ in range(count):
        kind = "stable" if null else KINDS[int(rng.choice(len(KINDS), p=SHARES))]
        texture = TEXTURES[int(rng.choice(3, p=(0.5, 0.2, 0.3)))]
        smallest = SMALLEST_GLASS_MM if texture != "solid" else SMALLEST_MM
        large = float(np.exp(rng.uniform(np.log(smallest), np.log(LARGEST_MM))))
        small = large / float(rng.uniform(1.2, 1.8))
        now, before = sizes_mm(kind, large, small)
        place = PLACES[int(rng.choice(3, p=(0.4, 0.25, 0.35)))]
        spiculated = bool(texture == "solid" and large > 6 and rng.random() < 0.2)
        drawn.append(LesionPlan(kind, round(now, 2), round(before, 2), texture, place, None, spiculated))  # type: ignore[arg-type]
    return tuple(drawn)


def make(data: Path, scratch: Path, case: Case) -> KnownPair:
    """Draw one pair of one lung; small pleural lesions move into the lung where they do not fit."""
    volume = read_volume(data / f"{case.scan}.nii.gz")
    kept = scratch / f"{case.patient}_lungs.npy"
    if not kept.exists():
        np.save(kept, segment_lungs(volume).labels)
    labels = np.load(kept)
    side = 1 + (case.seed // 2) % 2
    lungs = labels == (side if (labels == side).any() else 3 - side)
    if case.real:
        lungs = labels > 0
    start, stop = bounding_box(lungs, np.ceil(MARGIN_MM / np.array(volume.grid.spacing_mm)[::-1]).astype(int))
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    volume = Volume(volume.array[box], volume.grid.crop(start, stop), volume.source, volume.acquisition)
    for attempt, (count, pleural_mm) in enumerate(((12, 0.0), (12, 8.0), (9, 12.0), (6, 99.0))):
        options = draw_pair(case.seed, NULL if case.null else DRAWN)
        if case.real:
            real = motion_of(data, 2 * (1 + TESTED.index(case.scan)), backward=options.motion.diaphragm_mm < 0)
            motion = replace(options.motion, bumps=0, minimum_det=0.25, real=real, real_mm=8.0)
            options = replace(options, motion=motion, sliding=0.8)
        rng = np.random.default_rng([case.seed, attempt, 9])
        drawn = faint_plans(rng, count - 2) if case.faint else plans(rng, count, null=case.null)
        if case.faint:
            options = replace(options, ground_glass_hu=FAINT_GLASS_HU)
        drawn = tuple(
            replace(plan, place="free") if plan.place == "pleura" and plan.largest_mm < pleural_mm else plan
            for plan in drawn
        )
        try:
            return make_pair(volume, lungs[box], seed=case.seed, options=replace(options, lesions=drawn, points=30))
        except (InputError, RuntimeError) as error:
            last = error
    raise RuntimeError(f"{case.name}: {last}")


def registered(pair: ScanPair, config: RunConfig, matches: Matches, rng: np.random.Generator | None) -> dict[str, Any]:
    """Register as the product does it, or spoilt at random; with the check and its trust map."""
    fallback = DeviceFallback(torch.device("cpu"))
    options, keypoints = config.registration, matches.keypoints
    if rng is not None:
        options, keypoints = spoilt(options, rng), None
    found = register_deformable(pair, keypoints=keypoints, options=options)
    check = check_registration(pair, MethodOutput(found, matches), config, fallback, silent)
    pair.clear_cache()
    return {"registration": found, "matches": matches, "trust": check.trust}


def spoilt(options: RegistrationOptions, rng: np.random.Generator) -> RegistrationOptions:
    """Too few iterations, and too stiff, to a random degree."""
    stiffer = float(np.exp(rng.uniform(np.log(3.0), np.log(60.0))))
    few = tuple(max(round(n * float(rng.uniform(0.1, 0.4))), 1) for n in options.iterations)
    weights = replace(options.weights, curvature=options.weights.curvature * stiffer)
    return replace(options, iterations=few, weights=weights)


def write(data: Path, scratch: Path, case: Case) -> None:
    """Make, register and keep one pair."""
    start = time.monotonic()
    known = make(data, scratch, case)
    config = RunConfig(registration=COARSER)
    volumes = known.reference, known.template
    lungs = [segment_lungs(volume, options=config.lungs) for volume in volumes]
    scans = [Scan(volume, found) for volume, found in zip(volumes, lungs, strict=True)]
    pair = ScanPair(*scans, align_any_size(*scans, options=config.rigid, progress=silent).matrix)
    made = time.monotonic()
    matches = find_correspondences(pair, keypoints=config.keypoints, options=config.matching)
    runs = {"default": registered(pair, config, matches, None)}
    if case.fitted:
        runs["spoilt"] = registered(pair, config, matches, np.random.default_rng([case.seed, 5]))
    kept = {
        "case": case,
        "volumes": volumes,
        "lungs": lungs,
        "rigid": pair.rigid,
        "runs": runs,
        "changes": known.changes,
        "lesions": (known.lesions_reference, known.lesions_template),
    }
    part = scratch / f"{case.name}.part"
    with part.open("wb") as stream:
        pickle.dump(kept, stream, protocol=5)
    part.rename(scratch / f"{case.name}.pkl")
    times = f"{made - start:.0f} + {time.monotonic() - made:.0f} s"
    print(case.name, len(known.changes), known.reference.grid.shape, times, flush=True)


def main() -> None:
    """Make the pairs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--pairs", type=int, default=3, help="with change, of each scan")
    parser.add_argument("--faint", type=int, default=0, help="with faint change, of each scan to fit on")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    for case in cases(arguments.pairs) + faint_cases(arguments.faint):
        if not (arguments.scratch / f"{case.name}.pkl").exists():
            try:
                write(arguments.data, arguments.scratch, case)
            except (InputError, RuntimeError) as error:
                print(case.name, "left out:", error, flush=True)


if __name__ == "__main__":
    main()
