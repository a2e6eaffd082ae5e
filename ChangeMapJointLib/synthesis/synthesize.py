"""Synthetic longitudinal pairs as folders: what training, tuning and evaluation read.

One folder a pair, written under a temporary name and renamed when whole, so that a stopped run goes on where it was:

=========================== ==============================================================================
reference.nrrd, template    R and T in HU
deformation.nrrd            the true u in mm on R's grid
lungs_*.nrrd, lesions_*     masks and L_R, L_T (the lesion's id in each voxel), on their own grids
keypoints.csv               true correspondences: anywhere in the lungs, on vessels, and at Foerstner keypoints
lesions.csv                 a row a lesion: kind, centres, diameters, volumes, texture, place, painted or cut
truth.json                  all of it in one file, with seed and options
=========================== ==============================================================================
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.hu import REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.read import is_dicom, read_array, read_volume, split_selector
from ChangeMapJointLib.io.write import write_displacement, write_nrrd
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.keypoints.detect import find_keypoints
from ChangeMapJointLib.registration.keypoints.match import PICTURE_MM
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, scan_pyramid
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.cutting import CutLesion, cut_lesions
from ChangeMapJointLib.synthesis.draw import DrawOptions, draw_pair
from ChangeMapJointLib.synthesis.lidc import consensus_mask, read_lidc
from ChangeMapJointLib.synthesis.nlst import read_centres, sphere_mask
from ChangeMapJointLib.synthesis.pairs import KnownPair, make_pair
from ChangeMapJointLib.synthesis.shapes import LesionShape
from ChangeMapJointLib.synthesis.truth import TrueChange, Truth, read_truth, write_truth

DEFAULT = DrawOptions()
TRIES = 20  # of other lesions where a small lung has no place for those that were drawn
LESION_COLUMNS = (
    "id", "kind", "texture", "place", "side", "inserted", "cut", "diameter_reference_mm", "diameter_template_mm",
    "volume_reference_ml", "volume_template_ml",
)  # fmt: skip


@dataclass(frozen=True)
class SourceScan:
    """A real scan that pairs are made from; lesions that it has are stable ones.

    Attributes:
        name: of the patient or scan.
        volume: the scan.
        lungs: their mask, bool ``[z, y, x]``.
        own_lesions: mask of its lesions; None where nothing is known of any.
        outlined: that mask follows the lesions' borders, and is no sphere round each.
    """

    name: str
    volume: Volume
    lungs: NDArray[np.bool_]
    own_lesions: NDArray[np.bool_] | None = None
    outlined: bool = True

    @classmethod
    def read(cls, path: Path, lesions: Path | None = None) -> SourceScan:
        """A scan in any format that is read, its lungs found, and its own lesions.

        Args:
            path: of the scan; of several DICOM series the one that the XML file of LIDC-IDRI was read from.
            lesions: a mask on its voxels, the XML file of LIDC-IDRI, or a table of centres and diameters (CSV).

        Raises:
            InputError: a file cannot be read, shows no lungs, or the lesions are not those of the scan.
        """
        volume = _read_scan(path, lesions)
        own = None if lesions is None else read_lesions(lesions, volume.grid)
        name = path.name.split(".", maxsplit=1)[0]
        outlined = lesions is None or lesions.suffix.lower() != ".csv"
        return cls(name, volume, segment_lungs(volume).mask, own, outlined)

    def cut_lesions(self) -> list[CutLesion]:
        """Its own lesions, to be inserted elsewhere; none of a sphere, which holds lung as well."""
        if self.own_lesions is None or not self.outlined:
            return []
        return cut_lesions(self.volume.array, self.own_lesions, self.volume.grid)


def _read_scan(path: Path, lesions: Path | None) -> Volume:
    """The scan; where ``lesions`` names the DICOM series that it is of, that one."""
    file, selector = split_selector(path)
    named = lesions is not None and lesions.suffix.lower() == ".xml"
    if lesions is None or not named or selector is not None or not file.exists() or not is_dicom(file):
        return read_volume(path)
    with _naming(lesions):
        uid = read_lidc(lesions).series_uid
        return read_volume(f"{file}#{uid}" if uid else file)


@contextmanager
def _naming(lesions: Path) -> Iterator[None]:
    """Errors say which file of lesions asked for what they are about."""
    try:
        yield
    except InputError as error:
        raise error.at(Argument("lesions", lesions.name)) from error


def read_lesions(path: Path, grid: Grid) -> NDArray[np.bool_]:
    """Lesions on ``grid``, bool ``[z, y, x]``, from any of the files that :meth:`SourceScan.read` takes.

    Raises:
        InputError: the file cannot be read, or is of another scan.
    """
    with _naming(path):
        if path.suffix.lower() == ".xml":
            return consensus_mask(read_lidc(path), grid)
        if path.suffix.lower() == ".csv":
            return sphere_mask(read_centres(path), grid)
    array, found = read_array(path)
    if not np.isfinite(array).all():
        raise InputError("holds values that are no numbers", field=path, expected="a mask", remedy="export it again")
    if not found.same_as(grid):
        raise InputError(f"its voxels ({found.shape}) are not those of the scan ({grid.shape})", field=path)
    return array.astype(bool)


def synthesize(
    sources: Sequence[SourceScan],
    out: Path,
    *,
    pairs: int,
    seed: int = 0,
    options: DrawOptions = DEFAULT,
    shapes: Sequence[LesionShape] = (),
    progress: Progress = silent,
) -> list[Path]:
    """Make ``pairs`` folders in ``out``, taking turns among the sources; those that are there already stay.

    Args:
        sources: at least one.
        out: folder to make or to go on in.
        pairs: how many in all.
        seed: of the first; pair n has ``seed + n``.
        options: what is drawn.
        shapes: of real nodules, for the lesions; without any they are drawn.
        progress: told the fraction done; raise from it to stop.

    Lesions of the sources are also cut out and inserted elsewhere, in any source (``options.cut_share``).

    Returns:
        The folders, in order.

    Raises:
        InputError: no source, a folder that cannot be written, or a lung without place for any lesion.
    """
    if not sources:
        raise InputError("found no scan", field="sources", expected="at least one chest CT to make pairs from")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot be made ({error.strerror})", field="out", value=out, remedy="give another folder"
        ) from error
    folders = []
    donors = sources if options.cut_share else ()
    cut = [(source.name, lesion) for source in donors for lesion in source.cut_lesions()]
    for number in range(pairs):
        source = sources[number % len(sources)]
        folder = out / f"{seed + number:05d}_{source.name}"
        recipe = _recipe(source, seed + number, options, shapes, cut)
        if (folder / "truth.json").exists():
            _same_recipe(folder, recipe)
        else:
            write_pair(
                folder, synthesize_pair(source, seed + number, options, shapes, [lesion for _, lesion in cut]), recipe
            )
        folders.append(folder)
        progress((number + 1) / pairs, folder.name)
    return folders


def _same_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Refuse to go on in a folder whose pairs were made in another way."""
    about = read_truth(folder / "truth.json").about
    if any(about.get(name) != recipe.get(name) for name in (*recipe, "shapes_sha256", "cut_sha256")):
        raise InputError(
            "was made from another scan or with other options", field=folder, remedy=("give another ", Argument("out"))
        )


def _recipe(
    source: SourceScan,
    seed: int,
    options: DrawOptions,
    shapes: Sequence[LesionShape],
    cut: Sequence[tuple[str, CutLesion]],
) -> dict[str, Any]:
    scan = source.volume.array
    sha256 = hashlib.sha256(np.ascontiguousarray(scan).tobytes())
    if source.own_lesions is not None:
        sha256.update(source.own_lesions.tobytes())
    told = {"source": source.name, "source_sha256": sha256.hexdigest(), "seed": seed, "draw": to_mapping(options)}
    if shapes:
        told["shapes_sha256"] = hashlib.sha256(repr(shapes).encode()).hexdigest()
    if cut:
        tissue = b"".join(repr(lesion.shape).encode() + lesion.inside.hu.tobytes() for _, lesion in cut)
        told["cut_from"] = sorted({name for name, _ in cut})
        told["cut_sha256"] = hashlib.sha256(tissue).hexdigest()
    return told


def synthesize_pair(
    source: SourceScan,
    seed: int,
    options: DrawOptions,
    shapes: Sequence[LesionShape] = (),
    cut: Sequence[CutLesion] = (),
) -> KnownPair:
    """Pair number ``seed``; other lesions are drawn where those of the first draw find no place.

    Raises:
        InputError: no draw found one.
    """
    for attempt in range(TRIES):
        try:
            drawn = draw_pair(seed + 1_000_003 * attempt, options, shapes, cut)
            return make_pair(source.volume, source.lungs, seed=seed, options=drawn, own_lesions=source.own_lesions)
        except (InputError, RuntimeError) as error:  # no place, or a motion that cannot be inverted
            last = error
    raise InputError(f"{TRIES} draws of lesions found no place in its lungs ({last})", field=Path(source.name))


def write_pair(folder: Path, pair: KnownPair, recipe: dict[str, Any]) -> None:
    """Write one pair and how it was made; ``folder`` appears when it is whole.

    Raises:
        InputError: it cannot be written.
    """
    for old in folder.parent.glob(f".{folder.name}.*.partial"):  # of a run that was killed
        shutil.rmtree(old, ignore_errors=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        part.mkdir()
        _write_files(part, pair, recipe)
        if folder.exists():  # without its truth.json it is none of ours that is whole
            shutil.rmtree(folder)
        part.replace(folder)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror or error})", field=folder, remedy=("give another ", Argument("out"))
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_files(part: Path, pair: KnownPair, recipe: dict[str, Any]) -> None:
    sides = (
        ("reference", pair.reference, pair.lungs_reference, pair.lesions_reference),
        ("template", pair.template, pair.lungs_template, pair.lesions_template),
    )
    for name, volume, lungs, lesions in sides:
        write_nrrd(part / f"{name}.nrrd", volume.array, volume.grid)
        write_nrrd(part / f"lungs_{name}.nrrd", lungs, volume.grid)
        write_nrrd(part / f"lesions_{name}.nrrd", lesions, volume.grid)
    field = pair.field()
    write_displacement(part / "deformation.nrrd", field)
    keypoints = foerstner_keypoints(pair)
    rows = [
        *(
            (*r, *t, "vessel" if v else "lung")
            for r, t, v in zip(pair.points.reference_mm, pair.points.template_mm, pair.points.on_vessel, strict=True)
        ),
        *((*r, *t, "foerstner") for r, t in zip(keypoints, field.apply(keypoints), strict=True)),
    ]
    _write_rows(part / "keypoints.csv", ("rx", "ry", "rz", "tx", "ty", "tz", "where"), rows)
    lesions_rows = [_lesion_row(change) for change in pair.changes]
    _write_rows(part / "lesions.csv", (*LESION_COLUMNS, "rx", "ry", "rz", "tx", "ty", "tz"), lesions_rows)
    about = {
        "about": "Synthetic change and motion on a real CT.",
        **recipe,
        "reference_grid": asdict(pair.reference.grid),
        "template_grid": asdict(pair.template.grid),
    }
    write_truth(part / "truth.json", Truth(pair.changes, pair.motion, pair.points, about))


def foerstner_keypoints(pair: KnownPair) -> FloatArray:
    """Foerstner keypoints of the reference, ``[n, 3]`` mm LPS."""
    scan = Scan.of(pair.reference, pair.lungs_reference)
    (view,) = scan_pyramid(scan, margin_mm=MARGIN_MM, working_mm=PICTURE_MM, levels=1, window_hu=REGISTRATION_WINDOW_HU)
    return find_keypoints(view.image.numpy(), view.mask.numpy() > 0.5, view.grid)


def _lesion_row(change: TrueChange) -> tuple[object, ...]:
    return (
        *(getattr(change, name) for name in LESION_COLUMNS),
        *change.centre_reference_mm,
        *change.centre_template_mm,
    )


def _write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([f"{v:.3f}" if isinstance(v, float) else v for v in row] for row in rows)
