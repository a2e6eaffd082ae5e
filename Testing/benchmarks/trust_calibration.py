"""Is the predicted error the true one? Fits both calibrations of the trust map and tests them on other patients.

    python Testing/benchmarks/trust_calibration.py DATA [--scratch FOLDER]

DATA holds ``ct15``, ``native`` and ``motion``. Pairs are made from real CTs with known motion, smooth or as real
patients breathed, and synthetic lesions; each is registered as the product does it and in ways that are spoilt on
purpose, with and without keypoints: too few iterations, the coarse level alone, no coarse level, a start 18 mm off,
wrong keypoints that agree among themselves, rigid alignment alone, and that 6 mm off. The coefficients are fitted on
four pairs of three patients; every figure is of five pairs of four others, whose real motions nothing was chosen on.

The product's own registrations have few large errors. Half of the fit's weight is theirs, and errors above 2 mm count
more, so that the spoilt registrations do not decide what the others are worth. ``half_error_mm`` is chosen so that of
the errors above 3 mm all but :data:`MISSED` are doubted in every way of the fitted deformable registrations.

Truth is y of the tissue inside the lungs. At the surface, where the lungs slide, the deformation on a grid holds the
wall's motion as well, and its values between voxels are neither.
Writes ``results/trust_calibration.json`` and ``.png``; a stopped run goes on.
"""

from __future__ import annotations

import argparse
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import real_motion_pairs
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from record import RESULTS, commit, write_results

from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.deformable.objective import Keypoints
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register_deformable
from ChangeMapJointLib.registration.keypoints.match import Matches, find_correspondences
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.registration.trust import (
    Calibration,
    evidence_terms,
    gather_evidence,
    inside_template,
    predicted_error,
)
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair

# synthetic: scan, seed, mm at the diaphragm, share of sliding, noise in HU, voxel size of the template
SYNTHETIC = {
    "0314_38mm": ("0314", 101, 38.0, 0.0, 40.0, 1.75),
    "0002_20mm": ("0002", 107, 20.0, 0.5, 20.0, 1.75),
    "0001_38mm": ("0001", 102, 38.0, 1.0, 40.0, 1.75),
}
# patients 0314, 0002 and 1011 with motions that ship; then four other patients with motions that nothing was chosen on
FITTED = ("0314_38mm", "0002_20mm", "0314_m1", "1011_m3")
TESTED = ("0001_38mm", "0001_m4", "0014_m8", "0028_m10", "0063_m2")
LESIONS = (
    LesionPlan("new", 12.0, 0.0),
    LesionPlan("resolved", 0.0, 12.0),
    LesionPlan("grown", 16.0, 10.0),
    LesionPlan("shrunk", 9.0, 15.0),
    LesionPlan("stable", 12.0, 12.0),
)
DEFAULT = RegistrationOptions()
BACKWARD = RunConfig().backward
COARSE = replace(DEFAULT, iterations=(15,), working_mm=6.0, control_mm=48.0)
PULLED = replace(DEFAULT, weights=replace(DEFAULT.weights, keypoints=0.5))
SHIFTED_MM, SHIFTED_WITHIN_MM = 15.0, 45.0


@dataclass(frozen=True)
class Way:
    """One way to register; without options by the rigid alignment alone.

    Attributes:
        options: of the registration.
        offset_mm: of the start.
        keypoints: they pull, as in the product.
        shifted: all those of a region have the same wrong partner, and pull hard.
    """

    options: RegistrationOptions | None = DEFAULT
    offset_mm: tuple[float, float, float] = (0, 0, 0)
    keypoints: bool = False
    shifted: bool = False


WAYS = {
    "default": Way(keypoints=True),
    "few iterations": Way(replace(DEFAULT, iterations=(8, 5, 4))),
    "few iterations, keypoints": Way(replace(DEFAULT, iterations=(4, 3, 2)), keypoints=True),
    "coarse level alone": Way(COARSE),
    "coarse level alone, keypoints": Way(COARSE, keypoints=True),
    "no coarse level": Way(replace(DEFAULT, iterations=(15, 10), working_mm=1.75)),
    "start 18 mm off": Way(replace(DEFAULT, iterations=(15, 10), working_mm=2.0), (0, 0, 18)),
    "wrong keypoints": Way(PULLED, keypoints=True, shifted=True),
    "rigid alone": Way(None),
    "rigid 6 mm off": Way(None, (6, 0, 0)),
}
WAYS_OF_REAL_MOTION = ("default", "coarse level alone, keypoints", "wrong keypoints", "rigid alone")
VOXELS, SEED = 20_000, 0
MISSED, ENOUGH = 0.05, 20
LARGE_MM, LARGE_WEIGHT = 2.0, 5.0
NEAR_LESION_MM = 9.0
Table = dict[str, NDArray[Any]]
Calibrations = dict[str, Calibration]


def main() -> None:
    """Fit, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path("build/trust"))
    arguments = parser.parse_args()
    arguments.scratch = arguments.scratch / commit()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    fitted, tested = ([evidence_of(name, arguments) for name in names] for names in (FITTED, TESTED))
    weighted(fitted)
    train = joined([table for pair in fitted for table in pair.values()])
    alone, keyed = fit(train, ()), fit(train, ("keypoints",))
    given = {"alone": Calibration(*alone), "with_keypoints": Calibration(*keyed)}
    half_mm = chosen_half_error(fitted, given)
    print("ALONE", alone, "\nWITH_KEYPOINTS", keyed, "\nhalf_error_mm", half_mm)
    results: dict[str, Any] = {"calibration": {"alone": alone, "with_keypoints": keyed, "half_error_mm": half_mm}}
    for name, keys in (("with keypoints", True), ("without keypoints", False)):
        every = joined([table for pair in tested for table in pair.values()])
        figures = judged(every, given, keys, half_mm)
        figures["by_way"] = {
            way: judged(joined([pair[way] for pair in tested if way in pair]), given, keys, half_mm) for way in WAYS
        }
        figures["default_by_pair"] = {
            pair_name: judged(pair["default"], given, keys, half_mm)
            for pair_name, pair in zip(TESTED, tested, strict=True)
        }
        results[name] = figures
        print(name, {k: v for k, v in figures.items() if not isinstance(v, dict)})
        for way, one in figures["by_way"].items():
            print("   ", way, one)
        for pair_name, one in figures["default_by_pair"].items():
            print("   ", pair_name, one)
    write_results("trust_calibration", results)
    every = joined([table for pair in tested for table in pair.values()])
    draw(RESULTS / "trust_calibration.png", every["error"], predicted(every, given, keys=True), half_mm)


# -- evidence -----------------------------------------------------------------------------------
def evidence_of(name: str, arguments: argparse.Namespace) -> dict[str, Table]:
    """A table of voxels by way of registering; kept in a folder of this commit, so that a killed run goes on."""
    made: dict[str, Table] = {}
    pair: KnownPair | None = None
    for way in WAYS if name in SYNTHETIC else WAYS_OF_REAL_MOTION:
        kept = arguments.scratch / f"{name}_{way}.pkl"
        if not kept.exists():
            if pair is None:
                pair, lungs, rigid, matches = prepared(name, arguments.data)
            table = measured(pair, lungs, rigid, matches, way)
            kept.write_bytes(pickle.dumps(table))
        made[way] = pickle.loads(kept.read_bytes())
    print(name, {way: round(float(table["error"].mean()), 2) for way, table in made.items()}, flush=True)
    return made


def prepared(name: str, data: Path) -> tuple[KnownPair, Any, Any, Matches]:
    """The pair with what the product finds out before it registers."""
    pair = synthetic(name, data) if name in SYNTHETIC else real_motion_pairs.known(data, name)
    lungs = [segment_lungs(volume).mask for volume in (pair.reference, pair.template)]
    rigid = align_rigid(*map(Scan.of, (pair.reference, pair.template), lungs)).matrix
    return pair, lungs, rigid, find_correspondences(ScanPair.of(pair.reference, pair.template, *lungs, rigid=rigid))


def synthetic(name: str, data: Path) -> KnownPair:
    """A pair that moves smoothly."""
    scan_name, seed, motion, sliding, noise, voxel = SYNTHETIC[name]
    scan = read_volume(data / "ct15" / f"LIDC-IDRI-{scan_name}_ct.nii.gz")
    options = PairOptions(
        motion=MotionOptions(diaphragm_mm=motion, ventral_mm=motion / 4, bump_mm=6.0),
        sliding=sliding,
        lesions=LESIONS,
        reference_spacing_mm=(1.75,) * 3,
        template_spacing_mm=(1.75, 1.75, voxel),
        reference_noise_hu=noise,
        template_noise_hu=noise,
    )
    return make_pair(scan, segment_lungs(scan).mask, seed=seed, options=options)


def measured(pair: KnownPair, lungs: Any, rigid: Any, matches: Matches, way: str) -> Table:
    """Evidence and true error at voxels of the lungs."""
    r, t = pair.reference, pair.template
    keypoints = shifted(matches.keypoints) if WAYS[way].shifted else matches.keypoints
    forward, backward = fields(pair, lungs, rigid, keypoints, way)
    evidence = gather_evidence(ScanPair.of(r, t, *lungs), forward, backward, keypoints=keypoints)
    grid = evidence.grid
    inside = (resample(lungs[0], r.grid, grid) > 0.5) & (resample(pair.lungs_reference, r.grid, grid) > 0.5)
    chosen = np.argwhere(inside & inside_template(evidence.field, t.grid))
    chosen = chosen[np.random.default_rng(SEED).permutation(len(chosen))[:VOXELS]]
    at = tuple(chosen.T)
    points = grid.to_physical(chosen[:, ::-1].astype(float))
    error = np.linalg.norm(pair.motion(points) - (points + evidence.field.vectors_mm[at]), axis=1)
    apart = [np.linalg.norm(points - c.centre_reference_mm, axis=1) for c in pair.changes]
    return {
        "error": error,
        "inverse": evidence.inverse_mm[at],
        "misfit": evidence.misfit[at],
        "border": evidence.border[at],
        "keypoints": evidence.keypoint_mm[at],
        "share": evidence.keypoint_share[at],
        "lesion": np.min(apart, axis=0) < NEAR_LESION_MM,
    }


def fields(
    pair: KnownPair, lungs: Any, rigid: Any, keypoints: Keypoints, way: str
) -> tuple[DisplacementField, DisplacementField]:
    """Forward and backward deformation; the spoilt ones are spoilt in both directions."""
    r, t, how = pair.reference, pair.template, WAYS[way]
    start, back = rigid.copy(), np.linalg.inv(rigid)
    start[:3, 3] += how.offset_mm
    if how.options is None:
        fine = [volume.grid.with_spacing((3.0, 3.0, 3.0)) for volume in (r, t)]
        matrices = (start, np.linalg.inv(start))
        forward, backward = (DisplacementField.from_affine(m, g) for m, g in zip(matrices, fine, strict=True))
        return forward, backward
    back[:3, 3] += how.offset_mm
    used = keypoints if how.keypoints else None
    there = None if used is None else used.swapped()
    coarser = BACKWARD
    if way != "default" and not how.shifted:
        coarser = replace(
            how.options, working_mm=max(how.options.working_mm, 3.0), iterations=how.options.iterations[:2]
        )
    if how.shifted:
        coarser = replace(BACKWARD, weights=how.options.weights)
    forward = register_deformable(ScanPair.of(r, t, *lungs, rigid=start), keypoints=used, options=how.options).field
    return forward, register_deformable(
        ScanPair.of(t, r, *lungs[::-1], rigid=back), keypoints=there, options=coarser
    ).field


def shifted(keypoints: Keypoints) -> Keypoints:
    """All partners near a keypoint in the middle of the list, wrong by the same 15 mm."""
    near = np.linalg.norm(keypoints.reference_mm - np.median(keypoints.reference_mm[::2], axis=0), axis=1)
    centre = keypoints.reference_mm[np.argsort(near)[len(near) // 2]]
    wrong = np.linalg.norm(keypoints.reference_mm - centre, axis=1) < SHIFTED_WITHIN_MM
    partners = keypoints.template_mm + wrong[:, None] * (np.array([0.6, -0.8, 0.0]) * SHIFTED_MM)
    return Keypoints(keypoints.reference_mm, partners, np.ones_like(keypoints.weight))


# -- fit and figures ----------------------------------------------------------------------------
def weighted(fitted: list[dict[str, Table]]) -> None:
    """Add the weight of every voxel: half of all belongs to the registrations as the product does them."""
    spoilt = sum(len(pair) - 1 for pair in fitted)
    for pair in fitted:
        for way, table in pair.items():
            table["weight"] = np.where(table["error"] > LARGE_MM, LARGE_WEIGHT, 1.0)
            table["weight"] *= (1 / len(fitted) if way == "default" else 1 / spoilt) / table["weight"].sum()


def chosen_half_error(fitted: list[dict[str, Table]], given: Calibrations) -> float:
    """The predicted error below which :data:`MISSED` of the errors above 3 mm lie, in the way where it is least."""
    found = []
    for way, how in WAYS.items():
        table = joined([pair[way] for pair in fitted if way in pair])
        large = table["error"] > 3.0
        if how.options is not None and large.sum() >= ENOUGH:
            found.append(float(np.quantile(predicted(table, given, keys=True)[large], MISSED)))
    return round(min(found), 2)


def as_evidence(table: Table, *, keys: bool = True) -> Any:
    """The table's columns by the names that :class:`Evidence` has for them; without keypoints if so wanted."""
    share = table["share"] if keys else np.zeros_like(table["share"])
    return SimpleNamespace(
        inverse_mm=table["inverse"],
        misfit=table["misfit"],
        border=table["border"],
        keypoint_mm=table["keypoints"],
        keypoint_share=share,
    )


def fit(table: Table, extra: tuple[str, ...]) -> list[float]:
    """Least absolute deviations of the logarithm of the error, by weighted least squares."""
    used = table["share"] > 0.5 if extra else np.ones(len(table["error"]), bool)
    part = {name: values[used] for name, values in table.items()}
    terms = evidence_terms(as_evidence(part)).T
    x, y = terms if extra else terms[:, :-1], np.log(np.clip(part["error"], 0.15, 20.0))
    w = np.ones(len(y))
    counts = np.sqrt(part["weight"])
    for _ in range(30):
        row = w * counts
        solution = np.linalg.lstsq(x * row[:, None], y * row, rcond=None)[0]
        w = 1 / np.sqrt(np.maximum(np.abs(x @ solution - y), 0.2))
    return [round(float(v), 3) for v in solution]


def predicted(table: Table, given: Calibrations, *, keys: bool) -> NDArray[np.floating]:
    """The predicted error in mm; without keypoints as if there were none."""
    return predicted_error(as_evidence(table, keys=keys), **given)


def judged(table: Table, given: Calibrations, keys: bool, half_mm: float) -> dict[str, Any]:
    """Shares of large and small errors that are doubted (trust below 0.5: above ``half_mm``), and reliability."""
    error, expected = table["error"], predicted(table, given, keys=keys)
    doubted = expected > half_mm
    large, small, lesion = error > 3.0, error < 1.0, table["lesion"] & (error < 1.0)

    def share(where: NDArray[np.bool_]) -> float | None:
        return round(float(doubted[where].mean()), 4) if where.sum() >= ENOUGH else None

    return {
        "voxels": len(error),
        "doubted_of_those_above_3mm": share(large),
        "doubted_of_those_below_1mm": share(small),
        "doubted_near_lesions_below_1mm": share(lesion),
        "reliability_predicted_median_p90": reliability(error, expected),
    }


def reliability(error: NDArray[np.floating], expected: NDArray[np.floating]) -> list[tuple[float, float, float]]:
    """Predicted error, median and 90th percentile of the true one, in bins of the prediction."""
    edges = np.array([0.0, 0.3, 0.45, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 1e9])
    bins = np.digitize(expected, edges)
    found = []
    for b in range(1, len(edges)):
        here = bins == b
        if here.sum() >= 100:
            values = (np.median(expected[here]), np.median(error[here]), np.percentile(error[here], 90))
            found.append(tuple(round(float(v), 2) for v in values))
    return found  # type: ignore[return-value]


def joined(tables: list[Table]) -> Table:
    """One table of all voxels."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


# -- picture ------------------------------------------------------------------------------------
def draw(path: Path, error: NDArray[np.floating], expected: NDArray[np.floating], half_mm: float) -> None:
    """Predicted against true error on logarithmic axes: the median, and a bar from the 10th to the 90th percentile."""
    size, margin, low, high = 900, 110, 0.1, 40.0
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(20)

    def place(x: float, y: float) -> tuple[float, float]:
        span = size - 2 * margin
        u, v = (np.log(np.clip(w, low, high) / low) / np.log(high / low) for w in (x, y))
        return margin + u * span, size - margin - v * span

    for tick in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
        (x, bottom), (left, y) = place(tick, low), place(low, tick)
        pen.line([(x, bottom), place(tick, high)], "#e4e4e4")
        pen.line([(left, y), place(high, tick)], "#e4e4e4")
        pen.text((x, bottom + 10), f"{tick:g}", "black", font, "ma")
        pen.text((left - 10, y), f"{tick:g}", "black", font, "rm")
    pen.line([place(low, low), place(high, high)], "#888888", 2)
    for threshold, text in ((half_mm, "trust 0.5"),):
        pen.line([place(threshold, low), place(threshold, high)], "#c04040", 2)
        pen.text((place(threshold, high)[0] + 8, place(threshold, high)[1] + 6), text, "#c04040", font)
    for step in np.geomspace(0.2, 25.0, 15):
        here = (expected > step / 1.2) & (expected <= step * 1.2)
        if here.sum() < 100:
            continue
        lower, middle, upper = np.percentile(error[here], [10, 50, 90])
        pen.line([place(step, lower), place(step, upper)], "#2060a0", 3)
        x, y = place(step, middle)
        pen.ellipse([x - 7, y - 7, x + 7, y + 7], "#2060a0")
    pen.text((size / 2, size - 40), "predicted error, mm", "black", font, "mm")
    pen.text((margin, 30), "true error, mm: median, 10th to 90th percentile", "black", font)
    pen.text((margin, 58), "pairs of patients that were not used for the fit", "#606060", font)
    image.save(path)


if __name__ == "__main__":
    main()
