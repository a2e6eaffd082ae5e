"""How often the kind of a nodule is told right: texture and contact with the pleura, for lesions that were segmented.

    python Testing/benchmarks/nodule_kinds.py SCRATCH [--independent PAIR ...]

SCRATCH holds the pairs of ``judge_pairs.py``. The one fitted number of ``nodule_type.py`` was chosen on the patients to
fit on, so what counts are those to test on. PAIR is a folder of ``independent_pairs.py``, on which nothing was chosen.
Writes ``results/nodule_kinds.json``.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import judge_pairs
import numpy as np
from numpy.typing import NDArray
from record import write_results

from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.lesions.measure import segment_lesion
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.scan.volume import Volume

LARGE_MM = 6.0  # below, part-solid and solid cannot be told apart by any reader


class Shown(NamedTuple):
    """One lesion in one scan, as it is in truth and as it is told."""

    group: str
    texture: str
    pleura: bool
    diameter_mm: float
    told: str
    told_pleura: bool


def told(volume: Volume, lungs: NDArray[np.generic], lesion: NDArray[np.bool_]) -> tuple[str, bool]:
    """Texture and contact with the pleura; 'not segmented' where no nodule is found at the lesion."""
    found = segment_lesion(volume, lungs, volume.grid.to_physical(np.argwhere(lesion)[:, ::-1]))
    if found is None:
        return "not segmented", False
    return found.measure.texture or "unknown", found.measure.juxtapleural


def judge_pairs_of(scratch: Path) -> Iterator[Shown]:
    """The lesions of the pairs of ``judge_pairs.py``."""
    sys.modules["__main__"].Case = judge_pairs.Case  # type: ignore[attr-defined]  # as it was pickled
    for path in sorted(scratch.glob("*.pkl")):
        kept = pickle.loads(path.read_bytes())
        group = "chosen on" if kept["case"].fitted else "judged"
        for side, volume, lungs, labels in zip(
            ("reference", "template"), kept["volumes"], kept["lungs"], kept["lesions"], strict=True
        ):
            for change in kept["changes"]:
                mask = np.asarray(labels) == change.id
                if mask.any():
                    diameter = getattr(change, f"diameter_{side}_mm")
                    truth = change.texture, change.place == "pleura", diameter
                    yield Shown(group, *truth, *told(volume, lungs.labels, mask))


def independent(folder: Path) -> Iterator[Shown]:
    """The lesions of a pair of ``independent_pairs.py``."""
    truth = json.loads((folder / "truth.json").read_text("utf-8"))
    for side in ("reference", "template"):
        volume = read_volume(folder / f"{side}.nrrd")
        labels, _ = read_array(folder / f"lesions_{side}.nrrd")
        lungs = segment_lungs(volume).labels
        for lesion in truth["lesions"]:
            mask = labels == lesion["id"]
            if mask.any():
                known = lesion["density"], lesion["site"] == "pleura", lesion[f"diameter_{side}_mm"]
                yield Shown("independent", *known, *told(volume, lungs, mask))


def summary(shown: list[Shown]) -> dict[str, object]:
    """Counts of what was told, by group, size and true texture."""
    result: dict[str, object] = {}
    for group in sorted({s.group for s in shown}):
        for size, large in ((f"{LARGE_MM:.0f} mm and more", True), (f"below {LARGE_MM:.0f} mm", False)):
            part = [s for s in shown if s.group == group and (s.diameter_mm >= LARGE_MM) == large]
            textures = {t: Counter(s.told for s in part if s.texture == t) for t in sorted({s.texture for s in part})}
            segmented = [s for s in part if s.told != "not segmented"]
            result[f"{group}, {size}"] = {
                "texture": {t: dict(counts.most_common()) for t, counts in textures.items()},
                "at the pleura, told": f"{sum(s.told_pleura for s in segmented if s.pleura)} of "
                f"{sum(s.pleura for s in segmented)}",
                "elsewhere, told at the pleura": f"{sum(s.told_pleura for s in segmented if not s.pleura)} of "
                f"{sum(not s.pleura for s in segmented)}",
            }
    return result


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--independent", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    shown = list(judge_pairs_of(arguments.scratch))
    for folder in arguments.independent:
        shown += independent(folder)
    result = summary(shown)
    write_results("nodule_kinds", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
