"""``changemap cases``: tables of pairs and truth from a public data set."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError


class Dataset(str, Enum):
    """The data sets, or formats, that are read."""

    long_ct = "nlst-new-lesion-longct"
    luna25 = "luna25"
    learn2reg = "learn2reg"
    dirlab_4dct = "dirlab-4dct"
    dirlab_copd = "dirlab-copd"
    autopet = "autopet-longitudinal"
    longiseg = "longiseg"


def run_cases(dataset: Dataset, folder: Path, out: Path) -> list[str]:
    """Read the data set and write its tables.

    Returns:
        Lines that say what was written.

    Raises:
        InputError: the folder does not hold the data set as downloaded, or the tables cannot be written.
    """
    from ChangeMapJointLib.evaluation.public.dirlab import read_dirlab_4dct, read_dirlab_copd
    from ChangeMapJointLib.evaluation.public.learn2reg import read_learn2reg
    from ChangeMapJointLib.evaluation.public.long_ct import read_long_ct
    from ChangeMapJointLib.evaluation.public.longitudinal import read_autopet, read_longiseg
    from ChangeMapJointLib.evaluation.public.luna25 import read_luna25
    from ChangeMapJointLib.evaluation.public.pairs import CASES, PAIRS, write_pair_tables

    if not folder.is_dir():
        raise InputError("no such folder", field=folder, expected="the data set as downloaded")
    readers = {
        Dataset.long_ct: read_long_ct,
        Dataset.luna25: read_luna25,
        Dataset.learn2reg: read_learn2reg,
        Dataset.dirlab_4dct: read_dirlab_4dct,
        Dataset.dirlab_copd: read_dirlab_copd,
        Dataset.autopet: read_autopet,
        Dataset.longiseg: read_longiseg,
    }
    pairs = readers[dataset](folder)
    write_pair_tables(pairs, out)
    points = sum(0 if pair.points is None else len(pair.points[0]) for pair in pairs)
    lesions = sum(len(pair.lesions or ()) for pair in pairs)
    known = [f"{points} corresponding points"] * bool(points) + [f"{lesions} lesions"] * bool(lesions)
    known += ["label maps of the lesions"] * any(pair.labels is not None for pair in pairs)
    return [
        f"{len(pairs)} pairs of {len({pair.patient for pair in pairs})} patients with {', '.join(known)}",
        f"Pairs: {out / PAIRS} (for changemap cohort)",
        f"Truth: {out / CASES} (for changemap evaluate)",
    ]
