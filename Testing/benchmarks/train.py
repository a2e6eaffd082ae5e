"""Trains the network, from DATA to weights with their card; goes on where it was stopped.

    python Testing/benchmarks/train.py DATA [--work FOLDER] [--device cuda] [--longer 10] [--start FILE]
    python Testing/benchmarks/calibrate.py DATA --work FOLDER
    python Testing/benchmarks/joint.py DATA --work FOLDER --weights FOLDER/dense/network.safetensors
    python Testing/benchmarks/train.py DATA --work FOLDER --publish

DATA holds ``ct15``. Pairs are made from five patients (:data:`SETS`); the two patients of ``joint.py`` are never shown.
First the coarse blocks learn on a small grid, then the last one on crops of a fine grid. Then it learns on what Eq. (1)
leaves over: twice with lesions cut from CT among the painted ones, on pairs that breathe ever more deeply; on more
small changes; and in the end on small changes among stable lesions, shown T as dense as R. ``--start`` takes the coarse
blocks from weights that there are, ``--refined`` all of them before the last training, as ``checkpoints/small_changes``
are. On two cores of a CPU with bfloat16 a step takes 3 s, and an epoch has 70, 30 or 90; ``--longer 10`` trains ten
times as many epochs, for a GPU. The last command writes ``Resources/Models/default.safetensors`` with a card that holds
what ``joint.py`` measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from joint import SETS as VALIDATED
from record import RESULTS

from ChangeMapJointLib.cli.console import line_listener
from ChangeMapJointLib.cli.train import WEIGHTS, TrainingRequest, run_training, training_options
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.joint.checkpoint import read_checkpoint, write_checkpoint
from ChangeMapJointLib.synthesis.draw import SMOOTH_PAIRS
from ChangeMapJointLib.synthesis.synthesize import SourceScan, synthesize

# trainings on what Eq. (1) leaves over, one after the other: folder, configuration, pairs
REFINED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("refined", "refined", ("pairs_c",)),
    ("deeper", "refined", ("pairs_d",)),
    ("small", "refined", ("pairs_e",)),
    ("dense", "density", ("pairs_f", "pairs_g")),
)
LAST = REFINED[-1][0]
CONFIGURATIONS = ("coarse", "default", *(config for _, config, _ in REFINED))
MODELS = Path(__file__).resolve().parents[2] / "Resources" / "Models"
# all with smooth motion and independent slices, as the weights that ship were trained
DRAWN = replace(
    SMOOTH_PAIRS,
    lesions=(4, 9),
    diaphragm_mm=(4.0, 36.0),
    in_plane_mm=(1.5, 1.5),
    slice_mm=(1.5, 5.0),
    cut_share=0.0,
    eroded_share=0.0,
)
LATER = replace(SMOOTH_PAIRS, lesions=(4, 9), diaphragm_mm=(12.0, 40.0), in_plane_mm=(1.5, 1.5), slice_mm=(1.5, 5.0))
DEEP = replace(LATER, diaphragm_mm=(24.0, 46.0))
SMALL = replace(LATER, kinds=(0.15, 0.3, 0.25, 0.1, 0.2), growth=(1.1, 1.6), diaphragm_mm=(16.0, 46.0))
# small changes among stable lesions, the two scans' kernels and slices always others
QUIET = replace(SMALL, kinds=(0.1, 0.25, 0.2, 0.1, 0.35), diaphragm_mm=(4.0, 46.0), kernels_apart=0.4, slices_apart=1.5)
ANNOTATED = ("LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0314")  # whose own lesions are known
OTHERS = ("TCGA-34-2605", "LungDx-A0001_kernelB")
# scans, pairs, first seed, draws
SETS = {
    "pairs_a": (ANNOTATED, 42, 1000, DRAWN),
    "pairs_b": (OTHERS, 28, 2000, DRAWN),
    "pairs_c": (ANNOTATED + OTHERS, 30, 7000, LATER),
    "pairs_d": (ANNOTATED + OTHERS, 30, 8000, DEEP),
    "pairs_e": (ANNOTATED + OTHERS, 30, 9000, SMALL),
    "pairs_f": (ANNOTATED + OTHERS, 60, 10000, QUIET),
    "pairs_g": (ANNOTATED + OTHERS, 30, 11000, SMALL),
}
ATTRIBUTION = (
    "LIDC-IDRI-0001, -0002, -0314 (training), -1011 (validation): LIDC-IDRI, CC BY 3.0, "
    "doi 10.7937/K9/TCIA.2015.LO9QL9SX",
    "TCGA-34-2605 (training): TCGA-LUSC, CC BY 3.0, doi 10.7937/K9/TCIA.2016.TYGKKFMQ",
    "LungDx-A0001 (training): Lung-PET-CT-Dx, CC BY 4.0, doi 10.7937/TCIA.2020.NNC2-0461",
    "4DLung-113 (validation): 4D-Lung, CC BY 3.0, doi 10.7937/K9/TCIA.2016.ELN8YGLE",
)
SEEDS = ", ".join(f"{first} to {first + count - 1}" for count, first, *_ in VALIDATED.values())
VALIDATION = (f"LIDC-IDRI-1011, seeds {SEEDS} of joint.py", "4DLung-113_40pct, likewise")
SAID_ONCE = ("validation", "limits", "attribution")
LIMITS = (
    "Trained on synthetic change and motion on five patients only, without any real follow-up.",
    "Sees voxels of about 1.6 mm: lesions below 5 mm and faint ground glass may be missed by CM_learn.",
    "Validated on two patients, with synthetic change and motion again: real follow-ups will be harder.",
    "Not independent of the validation: match_density and the trainings after the first on what Eq. (1) leaves over "
    "were decided after a look at the false positives of its 40 pairs, match_resolution after a look at those of its "
    "null pairs, and that these weights ship after a comparison with others on both; 4 mm for the rim of the maps on "
    "14 of them, iterations of instance optimisation on four. The temperature of CM_learn is the training patients' "
    "choice, by a rule made after a look at five of the pairs.",
    "match_resolution was set after training: the network has not learned from scans that are equally blurred.",
    "match_density is the law by which the generator makes a lung denser as it gets smaller; on the one real pair of "
    "breathing at hand it explained nothing (What was tried, in the documentation).",
    "Learned from painted lesions (seeds 1000 to 1041 and 2000 to 2027 of train.py), last from painted ones and ones "
    "cut from the CTs of three training patients (seeds 7000 to 7029, 8000 to 8029, 9000 to 9029, 10000 to 10059, "
    "11000 to 11029); validated on painted ones, and on 12 pairs with lesions cut from the CTs of the two validation "
    "patients. Not on outlines of real nodules.",
    "At 4 false positives a scan CM_comb finds 54 of 95 changes below 5.8 mm and CM_seq 53; the 95 % interval of the "
    "difference over all changes is -0.03 to 0.10. At 1 the gain is that of LIDC-IDRI-1011 alone (4DLung-113: 0.86 "
    "against 0.86, 10 pairs). Null pairs: 12 against 24 and 58 against 132, but with the rim that the maps leave out "
    "15 against 8 and 68 against 65.",
    "CM_learn alone finds less than CM_seq (0.56 and 0.63 against 0.62 and 0.74), with more false positives on null "
    "pairs: it is for the product. How blurred a scan is goes by the size of its voxels alone, not by its kernel, and "
    "slices that overlap are taken for thin.",
    "Research use, not a medical device.",
)


def main() -> None:
    """Train, or publish what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/joint"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--longer", type=int, default=1)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--refined", type=Path)
    parser.add_argument("--publish", action="store_true")
    asked = parser.parse_args()
    if asked.start and asked.refined:
        parser.error("--start: gives the coarse blocks only, --refined all of them")
    if asked.publish:
        print(publish(asked.work))
        return
    weights, trainings = asked.refined, REFINED[-1:]
    if not weights:
        weights, trainings = fine_network(asked), REFINED
    for folder, config, names in trainings:
        pairs = [make_pairs(asked.data / "ct15", asked.work, name) for name in names]
        weights = trained(config, pairs, asked, weights, folder=folder)
    print(weights)


def fine_network(asked: argparse.Namespace) -> Path:
    """All blocks, before any sees what Eq. (1) leaves over."""
    pairs = [make_pairs(asked.data / "ct15", asked.work, name) for name in ("pairs_a", "pairs_b")]
    return trained("default", pairs, asked, asked.start or trained("coarse", pairs, asked, None))


def make_pairs(scans: Path, work: Path, name: str) -> Path:
    """The pairs of one set."""
    patients, count, seed, options = SETS[name]
    if len(list((work / name).glob("*/truth.json"))) < count:
        synthesize(sources(scans, patients), work / name, pairs=count, seed=seed, options=options)
    return work / name


def sources(scans: Path, patients: Sequence[str]) -> list[SourceScan]:
    """Their scans, with their own lesions where those are known."""
    return [
        SourceScan.read(scans / f"{one}_ct.nii.gz", scans / f"{one}_lesion.nii.gz" if one in ANNOTATED else None)
        for one in patients
    ]


def trained(
    config: str, roots: Sequence[Path], asked: argparse.Namespace, start: Path | None, *, folder: str | None = None
) -> Path:
    """Train by a configuration, ``asked.longer`` times as long, in ``folder`` or one of the configuration's name."""
    options = training_options(config)
    longer = {name: getattr(options, name) for name in ("epochs", "decay_epochs", "steady_from")}
    options = replace(options, **{name: n and n * asked.longer for name, n in longer.items()})
    path = asked.work / f"{config}.json"
    path.write_text(json.dumps(to_mapping(options), indent=2))
    out = asked.work / (folder or config)
    request = TrainingRequest(
        tuple(roots), out, str(path), start=start, cache=asked.work / "cache", device=asked.device
    )
    return run_training(request, line_listener())


def publish(work: Path) -> Path:
    """The weights with everything that there is to say of them."""
    found = read_checkpoint(work / LAST / WEIGHTS)
    measured = json.loads((RESULTS / "joint.json").read_text())["synthetic change and motion on real CT"]
    if (measured["weights_sha256"], measured["network_options"]) != (found.sha256, to_mapping(found.network.options)):
        raise SystemExit("results/joint.json is of other weights or options of the network; run joint.py first")
    told: dict[str, Any] = {k: v for k, v in found.card.items() if k not in SAID_ONCE}
    told["start"] = without_validation(told["start"])
    card = {**told, "done": done(told, CONFIGURATIONS), "attribution": ATTRIBUTION}
    card |= {"validation": measured, "limits": LIMITS}
    card["split"] = {**told["split"], "validation": list(VALIDATION)}
    path = MODELS / "default.safetensors"
    write_checkpoint(path, found.network, card)
    return path


def done(card: dict[str, Any], configurations: Sequence[str]) -> str:
    """What was trained one after the other, the last by the last configuration."""
    *earlier, last = configurations
    told = f"{last}.json: {card['epochs']} of {card['training']['epochs']} epochs"
    start = card.get("start")
    if not start:
        return told
    return f"{start.get('done') or done(start, earlier)}; then {told}"


def without_validation(start: dict[str, Any]) -> dict[str, Any]:
    """The card of what a training started from, and of what that started from: what the weights learned, and how."""
    kept = {name: value for name, value in start.items() if name not in SAID_ONCE}
    if isinstance(kept.get("split"), dict):
        kept["split"] = {"training": kept["split"]["training"]}
    if isinstance(kept.get("start"), dict):
        kept["start"] = without_validation(kept["start"])
    return kept


if __name__ == "__main__":
    main()
