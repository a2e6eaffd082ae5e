"""The pairs of ``rigid_robustness.py``: what belongs together and what does not, on voxels of all sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from rigid_chests import (
    FRAME_SHIFT_MM,
    Chest,
    at_spacing,
    below_the_lungs,
    breathed,
    flipped,
    in_other_frame,
    moved,
    noisy,
    one_lung_filled,
    part,
    read_chest,
    rigid,
    thick,
)

from ChangeMapJointLib.core.grid import FloatArray, Vector3, apply_affine

Truth = tuple[FloatArray, FloatArray]
Made = tuple[Chest, Chest, Truth | None]
Voxels = Vector3 | None  # None: the scan's own
CHOSEN, JUDGED = "chosen on", "judged on"
CUBES = (0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0)  # mm
THIN_PLANE, OWN = (0.7, 0.7, 5.0), None
MADE: tuple[tuple[Voxels, Voxels], ...] = (
    *(((h, h, h), (h, h, h)) for h in (2.0, 5.0, 1.0, 3.0, 2.5, 1.5, 0.7)),
    ((1.5, 1.5, 5.0), (1.5, 1.5, 1.5)),
    (THIN_PLANE, THIN_PLANE),
    ((1.75, 1.75, 1.75), (5.0, 5.0, 5.0)),
    ((0.98, 0.98, 2.5), (0.98, 0.98, 2.5)),
    ((1.5, 1.5, 3.0), (1.5, 1.5, 3.0)),
    ((1.0, 1.0, 1.0), THIN_PLANE),
)  # of scans of 1.5 mm: reference, template
ACQUIRED: tuple[tuple[Voxels, Voxels], ...] = (
    (OWN, OWN),
    ((5.0, 5.0, 5.0), (5.0, 5.0, 5.0)),
    ((2.5, 2.5, 2.5), (2.5, 2.5, 2.5)),
    (OWN, (1.75, 1.75, 5.0)),
    ((3.0, 3.0, 3.0), (3.0, 3.0, 3.0)),
    ((2.0, 2.0, 5.0), (2.0, 2.0, 5.0)),
)  # of scans of 1.3 to 2 mm with slices of 2.5 to 3 mm
ROUNDS = 2
LUNG_LITRES = (1.5, 8.0)


class Unsuitable(Exception):
    """A scan cannot be made into this pair."""


@dataclass(frozen=True)
class Pair:
    """Two scans to compare.

    Attributes:
        split: :data:`CHOSEN` or :data:`JUDGED`.
        group: what was done to one of them.
        name: which they are.
        alike: of one patient, the right way round.
        turn: pairs of low numbers are measured first.
        make: reference, template, and where it is known the template points of ``reference.points_mm()``.
    """

    split: str
    group: str
    name: str
    alike: bool
    turn: int
    make: Callable[[], Made]

    @property
    def key(self) -> str:
        """The name under which its figures are kept."""
        return f"{self.group} | {self.name}"


# -- scans ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Data:
    """Where the scans are; they are read when a pair needs them."""

    folder: Path
    cache: Path | None

    def chosen_on(self) -> list[Path]:
        return sorted((self.folder / "ct15").glob("*_ct.nii.gz"))

    def judged_on(self) -> list[Path]:
        """Native scans with lungs that can be right."""
        found = []
        for path in sorted((self.folder / "native").glob("*_full_ct.nii.gz")):
            chest = _read(path, self.cache)
            litres = float(chest.lungs.sum()) * chest.volume.grid.voxel_volume_ml / 1000.0
            if LUNG_LITRES[0] <= litres <= LUNG_LITRES[1]:
                found.append(path)
            else:
                print(f"left out: {path.name}, {litres:.1f} l of lung", flush=True)
        return found

    def scan(self, *parts: str) -> Chest:
        return _read(self.folder.joinpath(*parts), self.cache)

    def followup(self, name: str) -> Chest:
        folder = self.folder / "pairs" / "followup_lung"
        return read_chest(folder / f"3DCT_lung_{name}.mha", mask=folder / f"3DCT_lung_{name}_mask.mha")


@lru_cache(maxsize=10)
def _read(path: Path, cache: Path | None) -> Chest:
    return read_chest(path, cache)


@lru_cache(maxsize=3)
def _breathed(path: Path, cache: Path | None, seed: int) -> tuple[Chest, Truth]:
    return breathed(_read(path, cache), seed, 20.0)


def on_voxels(chest: Chest, spacing_mm: Voxels, *, low_pass: bool = True) -> Chest:
    """The chest on other voxels; None leaves it on its own."""
    return chest if spacing_mm is None else at_spacing(chest, spacing_mm, low_pass=low_pass)


def label(*sides: Voxels) -> str:
    """Voxels of reference and template in words."""
    words = ["own voxels" if side is None else " x ".join(f"{h:g}" for h in side) + " mm" for side in sides]
    return " against ".join(dict.fromkeys(words))


# -- pairs ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Sides:
    """What both scans of a made pair are made of: files, and voxels for reference and template."""

    data: Data
    path: Path
    other: Path
    voxels: tuple[Voxels, Voxels]
    low_pass: bool

    def same(self, seed: int) -> Made:
        """The patient breathed 20 mm, and with noise."""
        chest, truth = _breathed(self.path, self.data.cache, seed)
        template = on_voxels(_read(self.path, self.data.cache), self.voxels[1])
        return on_voxels(chest, self.voxels[0]), noisy(template, 30.0, seed), truth

    def another_patient(self) -> Made:
        return self._on_voxels(_read(self.path, self.data.cache), _read(self.other, self.data.cache))

    def flipped(self, *axes: int) -> Made:
        chest = _read(self.path, self.data.cache)
        return self._on_voxels(chest, flipped(chest, *axes))

    def other_half(self) -> Made:
        chest = _read(self.path, self.data.cache)
        return self._on_voxels(part(chest, 0.55, 1.0), part(chest, 0.0, 0.45))

    def _on_voxels(self, a: Chest, b: Chest) -> Made:
        ours, theirs = self.voxels
        return on_voxels(a, ours, low_pass=self.low_pass), on_voxels(b, theirs, low_pass=self.low_pass), None


def over_spacings(
    data: Data, split: str, paths: list[Path], voxels: tuple[tuple[Voxels, Voxels], ...]
) -> Iterator[Pair]:
    """At all voxel sizes: one patient breathed and noisy, another patient, mirrored, and one of turned, upside down
    and other half, which take turns. As many rounds as :data:`ROUNDS`, each with other patients; wrong pairs of the
    second round are interpolated without a low-pass, as many tools do."""
    for k, both in enumerate(voxels):
        for turn in range(ROUNDS):
            i = (k + 3 * turn) % len(paths)
            other = paths[(i + 1 + k % (len(paths) - 1)) % len(paths)]
            sides = Sides(data, paths[i], other, both, turn == 0)
            turns: tuple[tuple[str, Callable[[], Made]], ...] = (
                ("turned 180 degrees", partial(sides.flipped, 1, 2)),
                ("upside down", partial(sides.flipped, 0)),
                ("upper half against lower half", sides.other_half),
            )
            wrong = (
                ("another patient", sides.another_patient),
                ("mirrored", partial(sides.flipped, 2)),
                turns[(k + turn) % 3],
            )
            name = short(paths[i])
            yield Pair(split, f"{label(*both)}: breathed 20 mm, noise", name, True, turn, partial(sides.same, i))
            for words, make in wrong:
                second = f"{name} and {short(other)}" if words == "another patient" else name
                yield Pair(split, f"{label(*both)}: {words}", second, False, turn, make)


def short(path: Path) -> str:
    return path.name.split("_full")[0].split("_ct")[0]


def given_pairs(data: Data) -> Iterator[Pair]:
    """Pairs that were not made here, on their own voxels and on others."""

    def same(group: str, name: str, make: Callable[[], Made], turn: int = 0) -> Pair:
        return Pair(JUDGED if group.startswith("native") else CHOSEN, group, name, True, turn, make)

    for both in ((OWN, OWN), ((5.0, 5.0, 5.0), OWN), ((3.0, 3.0, 3.0), (3.0, 3.0, 3.0)), (OWN, (1.75, 1.75, 5.0))):
        yield same("known20mm", label(*both), partial(_known, data, both))
    for both in ((OWN, OWN), ((3.0, 3.0, 3.0), (5.0, 5.0, 5.0)), ((5.0, 5.0, 5.0), (5.0, 5.0, 5.0))):
        yield same("real follow-up of a right lung", label(*both), partial(_followup, data, both))
    for a, b in (("00", "50"), ("00", "30"), ("30", "50")):
        yield same("POPI", f"{a} and {b}", partial(_popi, data, a, b), 0 if b == "50" else 1)
    natives = (("LungDx-A0001_kernelB", (OWN, (5.0, 5.0, 5.0))), ("LIDC-IDRI-0314", (OWN, (3.0, 3.0, 3.0))))
    for name, voxels in natives:
        for theirs in voxels:
            words = f"{name}, {label(theirs)}"
            yield same("native DICOM against its 1.5 mm version", words, partial(_native, data, name, theirs), 1)
    yield from given_strangers(data)


def given_strangers(data: Data) -> Iterator[Pair]:
    """The scans of pairs that were not made here, mirrored and with others."""
    known, popi = data.scan, partial(data.scan, "pairs", "popi")
    first, second = (
        partial(known, "native", "QIN-LSC-0014_full_ct.nii.gz"),
        partial(known, "native", "QIN-LSC-0028_full_ct.nii.gz"),
    )
    template = partial(known, "pairs", "known20mm", "template.nii.gz")
    phase, end = partial(popi, "phase_00.nii.gz"), partial(popi, "phase_50.nii.gz")
    lung, prior = partial(data.followup, "followup"), partial(data.followup, "baseline")
    rows: tuple[tuple[str, Callable[[], Chest], Callable[[], Chest], int], ...] = (
        ("POPI 00 and QIN-LSC-0014", phase, first, 0),
        ("QIN-LSC-0028 and POPI 50", second, end, 0),
        ("POPI 00 and known20mm", phase, template, 1),
        ("follow-up and QIN-LSC-0028", lung, second, 0),
        ("QIN-LSC-0014 and baseline", first, prior, 1),
        ("known20mm and QIN-LSC-0028", template, second, 0),
        ("QIN-LSC-0014 and known20mm", first, template, 1),
    )
    for name, a, b, turn in rows:
        yield Pair(CHOSEN, "own voxels: another patient", name, False, turn, partial(_both, a, b, ()))
    for name, a, b in (("POPI 00 and 50", phase, end), ("follow-up and baseline", lung, prior)):
        yield Pair(CHOSEN, "own voxels: mirrored", name, False, 0, partial(_both, a, b, (2,)))
        yield Pair(CHOSEN, "own voxels: turned 180 degrees", name, False, 1, partial(_both, a, b, (1, 2)))
    yield Pair(CHOSEN, "chest against abdomen", "known20mm and LIDC-IDRI-0314", False, 1, partial(_abdomen, data))


def _both(a: Callable[[], Chest], b: Callable[[], Chest], axes: tuple[int, ...]) -> Made:
    return a(), flipped(b(), *axes) if axes else b(), None


def _known(data: Data, voxels: tuple[Voxels, Voxels]) -> Made:
    rows = np.loadtxt(data.folder / "pairs" / "known20mm" / "points.csv", delimiter=",", skiprows=1)
    rows = rows[rows[:, 6] == 0]
    r, t = (data.scan("pairs", "known20mm", f"{role}.nii.gz") for role in ("reference", "template"))
    return on_voxels(r, voxels[0]), on_voxels(t, voxels[1]), (rows[:, :3], rows[:, 3:6])


def _followup(data: Data, voxels: tuple[Voxels, Voxels]) -> Made:
    marks = np.genfromtxt(data.folder / "pairs" / "followup_lung" / "landmarks.csv", delimiter=",", names=True)
    marks = marks[marks["good"] == 1]
    prior, current = (np.stack([marks[f"{role}_{axis}"] for axis in "xyz"], 1) for role in ("base", "follow"))
    r, t = data.followup("followup"), data.followup("baseline")
    return on_voxels(r, voxels[0]), on_voxels(t, voxels[1]), (current, prior)


def _popi(data: Data, a: str, b: str) -> Made:
    marks = [
        np.loadtxt(data.folder / "pairs" / "popi" / f"phase_{p}_landmarks.csv", delimiter=",", skiprows=1)
        for p in (a, b)
    ]
    r, t = (data.scan("pairs", "popi", f"phase_{p}.nii.gz") for p in (a, b))
    return r, t, (marks[0], marks[1])


def _native(data: Data, name: str, theirs: Voxels) -> Made:
    native, made = data.scan("dicom", f"{name}.zip"), data.scan("ct15", f"{name}_ct.nii.gz")
    points = native.points_mm()
    return native, on_voxels(made, theirs), (points, points)


def _abdomen(data: Data) -> Made:
    abdomen = below_the_lungs(data.scan("dicom", "LIDC-IDRI-0314.zip"))
    if abdomen is None:
        raise Unsuitable("LIDC-IDRI-0314 shows too little gas below the lungs to stand in for them")
    return data.scan("pairs", "known20mm", "template.nii.gz"), abdomen, None


def follow_ups(data: Data, path: Path, seed: int) -> Iterator[Pair]:
    """What one scan can be compared with in a follow-up, on its own voxels."""
    for group in (
        "moved (8, -5, 12) mm, 5 degrees",
        "turned 20 degrees, other frame",
        "noise 80 HU",
        "breathed 40 mm",
        "breathed, noise, 5 mm slices, other frame",
        "breathed, upper half",
        "breathed, lower half",
        "breathed, upper against lower 65 %",
        "breathed, left lung filled",
    ):
        yield Pair(
            CHOSEN,
            group,
            short(path),
            True,
            seed if group.startswith("breathed") else seed + 2,
            partial(_follow_up, data, path, seed, group),
        )


def _follow_up(data: Data, path: Path, seed: int, group: str) -> Made:
    chest = _read(path, data.cache)
    points = chest.points_mm()
    centre = points.mean(axis=0)
    if group.startswith("moved"):
        small = rigid(centre, (3.0, -2.0, 3.4), np.array([8.0, -5.0, 12.0]))
        return chest, moved(chest, small), (points, apply_affine(small, points))
    if group.startswith("turned"):
        angles = 20.0 * (np.arange(3) == seed % 3)
        turn = rigid(centre, (angles[0], angles[1], angles[2]), FRAME_SHIFT_MM)
        return chest, moved(chest, turn, pad_vox=30), (points, apply_affine(turn, points))
    if group.startswith("noise"):
        return chest, noisy(chest, 80.0, seed), (points, points)
    if group == "breathed 40 mm":
        far, truth = breathed(chest, seed, 40.0)
        return far, chest, truth
    other, truth = _breathed(path, data.cache, seed)
    if "noise" in group:
        return other, in_other_frame(thick(noisy(chest, 40.0, seed))), (truth[0], truth[1] + FRAME_SHIFT_MM)
    if "65" in group:
        return part(other, 0.35, 1.0), in_other_frame(part(chest, 0.0, 0.65)), None
    if "half" in group:
        limits = (0.5, 1.0) if "upper" in group else (0.0, 0.5)
        return other, in_other_frame(part(chest, *limits)), None
    return other, one_lung_filled(chest, seed), None


def all_pairs(data: Data) -> list[Pair]:
    """Every pair, in the order in which they are worth measuring; both sets alternate."""
    chosen, judged = data.chosen_on(), data.judged_on()
    pairs = [*over_spacings(data, CHOSEN, chosen, MADE), *given_pairs(data)]
    for seed, path in enumerate(chosen):
        pairs += follow_ups(data, path, seed)
    pairs += over_spacings(data, JUDGED, judged, ACQUIRED)
    places: dict[tuple[int, str], int] = {}
    order = []
    for pair in pairs:
        places[pair.turn, pair.split] = places.get((pair.turn, pair.split), 0) + 1
        order.append((pair.turn, places[pair.turn, pair.split]))
    return [pair for _, pair in sorted(zip(order, pairs, strict=True), key=lambda both: both[0])]
