"""Label maps of lesions over time: the longitudinal CTs of autoPET/CT IV, and data sets in the format of LongiSeg.

autoPET/CT IV, task 2 (doi 10.57754/FDAT.75kj1-64747): ``inputsTr/PID_BL_img_00.nii.gz``, ``PID_BL_mask_00.nii.gz``,
``PID_FU_img_00.nii.gz`` and ``PID.csv``, and ``targetsTr/PID_FU_mask_00.nii.gz``; 00, 01, ... are body regions. The
masks hold ``lesion_id`` in both scans. The table has, among others, the columns lesion_id, img_id_bl, img_id_fu,
topology_class (UNCHANGED, MERGING, DISAPPEARING, NEWLYAPPEARING) and merged_into, the lesion of the follow-up.

LongiSeg (github.com/MIC-DKFZ/LongiSeg, ``documentation``): ``patientsTr.json`` lists the scans of every patient in
their order, ``imagesTr/SCAN_0000.nii.gz`` and ``labelsTr/SCAN.nii.gz``; in tracking data sets every lesion has its own
label, the same in all scans, and ``trackingTr.json`` gives ``merged_lesions`` for a lesion of the earlier scan.

Lesions that merged get one number in both scans, since only their sum can be compared.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.public.learn2reg import read_only_document
from ChangeMapJointLib.evaluation.public.pairs import PublicPair, Relabelled
from ChangeMapJointLib.io.sources import reason_of

ENDING = ".nii.gz"


def read_autopet(folder: Path) -> list[PublicPair]:
    """The pairs of base line and follow-up that a row of a patient's table names.

    Raises:
        InputError: there is none, or a table or mask is missing or damaged.
    """
    pairs = []
    for table in sorted((folder / "inputsTr").glob("*.csv")):
        rows = _rows(table)
        patient = table.stem
        for before, after in sorted(
            {(r["img_id_bl"], r["img_id_fu"]) for r in rows if r["img_id_bl"] and r["img_id_fu"]}
        ):
            here = [r for r in rows if (r["img_id_bl"], r["img_id_fu"]) == (before, after)]
            scans = [
                _one(folder, f"{patient}_{visit}_img_{int(float(n)):02d}{ENDING}")
                for visit, n in (("FU", after), ("BL", before))
            ]
            masks = [
                _one(folder, f"{patient}_{visit}_mask_{int(float(n)):02d}{ENDING}")
                for visit, n in (("FU", after), ("BL", before))
            ]
            merged = [
                (int(float(r["lesion_id"])), [int(float(r["merged_into"]))])
                for r in here
                if r["topology_class"].upper().startswith("MERG") and r["merged_into"]
            ]
            merged += [(became[0], became) for _, became in merged]  # the same number in both scans
            unclear = [r["lesion_id"] for r in here if r.get("linking_unclear", "").lower() in ("true", "1")]
            notes = (f"The reader was not sure which lesion is which: {', '.join(unclear)}.",) if unclear else ()
            name = f"{patient}_{int(float(before)):02d}_{int(float(after)):02d}"
            pairs.append(_pair(name, patient, scans, masks, merged, notes))
    if not pairs:
        raise InputError("holds no pair", field=folder, expected="inputsTr and targetsTr as downloaded")
    return pairs


def read_longiseg(folder: Path) -> list[PublicPair]:
    """The pairs of scans that follow each other.

    Raises:
        InputError: ``patientsTr.json`` is missing or damaged, a scan or its labels are missing, or there is no pair.
    """
    patients = read_only_document(folder, "patientsTr.json")
    tracking = read_only_document(folder, "trackingTr.json") if (folder / "trackingTr.json").exists() else {}
    pairs = []
    for patient, scans in patients.items():
        if not (isinstance(scans, list) and all(isinstance(scan, str) for scan in scans)):
            raise InputError(f"patient {patient!r} has no list of scans", field=folder / "patientsTr.json")
        for before, after in pairwise(scans):
            images = [_existing(folder / "imagesTr" / f"{scan}_0000{ENDING}") for scan in (after, before)]
            labels = [_existing(folder / "labelsTr" / f"{scan}{ENDING}") for scan in (after, before)]
            merged = list(_merged(tracking.get(patient, ()), before, after, folder))
            pairs.append(_pair(f"{before}_{after}", patient, images, labels, merged, ()))
    if not pairs:
        raise InputError("holds no patient with two scans", field=folder / "patientsTr.json")
    return pairs


def _pair(
    name: str,
    patient: str,
    scans: list[Path],
    masks: list[Path],
    merged: list[tuple[int, list[int]]],
    notes: tuple[str, ...],
) -> PublicPair:
    """A pair with current scan and mask first; merged lesions get one number."""
    now, before = _common_numbers(merged)
    labels = (Relabelled(masks[0], now) if now else masks[0], Relabelled(masks[1], before) if before else masks[1])
    if now or before:
        notes = (*notes, "Lesions that merged count as one.")
    return PublicPair(name, patient, scans[0], scans[1], labels=labels, notes=notes)


def _common_numbers(merged: Iterable[tuple[int, list[int]]]) -> tuple[dict[int, int], dict[int, int]]:
    """New numbers of the labels in the current scan and in the prior; those that stay are left out.

    Args:
        merged: a lesion of the prior, and the lesions of the current scan that it became.

    Examples:
        >>> _common_numbers([(3, [2]), (2, [2]), (5, [7])])
        ({7: 5}, {3: 2})
    """
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent.setdefault(number, number) != number:
            number = parent[number]
        return number

    for lesion, became in merged:
        for other in became:
            if other > 0:
                a, b = sorted((root(lesion), root(other)))
                parent[b] = a
    prior = {lesion: root(lesion) for lesion, became in merged if any(became) and root(lesion) != lesion}
    current = {o: root(o) for _, became in merged for o in became if o > 0 and root(o) != o}
    return current, prior


def _merged(entries: Any, before: str, after: str, folder: Path) -> Iterable[tuple[int, list[int]]]:
    """``merged_lesions`` of ``trackingTr.json`` between two scans."""
    for lesions in entries if isinstance(entries, list) else [entries] if entries else []:
        try:
            for number, entry in lesions.items():
                if (entry["img_bl"], entry["img_fu"]) == (before, after):
                    yield int(number), [int(n) for n in entry.get("merged_lesions", [number])]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"cannot be used ({error})", field=folder / "trackingTr.json", expected="img_bl, img_fu, merged_lesions"
            ) from error


def _rows(path: Path) -> list[Mapping[str, str]]:
    needed = ("lesion_id", "img_id_bl", "img_id_fu", "topology_class", "merged_into")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"found no column {missing[0]}", field=path, expected=", ".join(needed))
            rows: list[Mapping[str, str]] = [
                {k: re.sub(r"^(nan|none)$", "", (v or "").strip(), flags=re.I) for k, v in r.items() if k}
                for r in reader
            ]
            for row in rows:
                for name in ("lesion_id", "img_id_bl", "img_id_fu", "merged_into"):
                    float(row[name] or 0)
            return rows
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot be read ({reason_of(error)})", field=path, expected="the table of a patient's lesions"
        ) from error


def _one(folder: Path, name: str) -> Path:
    """The file of that name in ``inputsTr`` or ``targetsTr``."""
    for path in (folder / "inputsTr" / name, folder / "targetsTr" / name):
        if path.exists():
            return path
    raise InputError("no such file", field=folder / "inputsTr" / name, expected="a file that the patient's table names")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError("no such file", field=path, expected="a file that patientsTr.json names")
    return path
