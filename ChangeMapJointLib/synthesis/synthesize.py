"""Synthetic pairs with known motion and change, written as folders for training, tuning and evaluation.

Each pair is one folder, written under a temporary name and renamed when complete, so that a stopped run can resume:

=========================== ==============================================================================
reference.nrrd, template    R and T in HU
deformation.nrrd            the true u in mm on R's grid
lungs_*.nrrd, lesions_*     masks and L_R, L_T (the lesion's id in each voxel), on their own grids
keypoints.csv               true correspondences: anywhere in the lungs, on vessels, and at Foerstner keypoints
lesions.csv                 one row for each lesion: kind, centres, diameters, volumes, texture, place, painted or cut
truth.json                  the whole truth in one file, with seed and options
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
from ChangeMapJointLib.registration.keypoints.match import KEYPOINT_VOXEL_MM
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
TRIES = 20  # draws of lesions, for small lungs in which some do not fit
LESION_COLUMNS = (
    "id", "kind", "texture", "place", "side", "inserted", "cut", "diameter_reference_mm", "diameter_template_mm",
    "volume_reference_ml", "volume_template_ml",
)  # fmt: skip


@dataclass(frozen=True)
class SourceScan:
    """A real scan to make pairs from; its own lesions become stable ones.

    Attributes:
        name: of the patient or scan.
        volume: the scan.
        lungs: their mask, bool ``[z, y, x]``.
        own_lesions: mask of its lesions, bool ``[z, y, x]``; None where no lesions are known.
        outlined: True where that mask follows the borders of the lesions, False where it holds spheres.
    """

    name: str
    volume: Volume
    lungs: NDArray[np.bool_]
    own_lesions: NDArray[np.bool_] | None = None
    outlined: bool = True

    @classmethod
    def read(cls, path: Path, lesions: Path | None = None) -> SourceScan:
        """Read a scan in any supported format with its lesions, and segment its lungs.

        Args:
            path: of the scan. A folder of several DICOM series needs ``lesions`` as XML, which names the series.
            lesions: a mask on the scan's grid, an XML file of LIDC-IDRI, or a table of centres and diameters (CSV).

        Raises:
            InputError: a file cannot be read, the scan shows no lungs, or the lesions belong to another scan.
        """
        volume = _read_scan(path, lesions)
        own_lesions = None if lesions is None else read_lesions(lesions, volume.grid)
        name = path.name.split(".", maxsplit=1)[0]
        outlined = lesions is None or lesions.suffix.lower() != ".csv"
        return cls(name, volume, segment_lungs(volume).mask, own_lesions, outlined)

    def cut_lesions(self) -> list[CutLesion]:
        """Cut out its own lesions, to be inserted elsewhere; none from spheres, which also hold normal lung."""
        if self.own_lesions is None or not self.outlined:
            return []
        return cut_lesions(self.volume.array, self.own_lesions, self.volume.grid)


def _read_scan(path: Path, lesions: Path | None) -> Volume:
    """Read the scan; if ``lesions`` is an XML file that names a DICOM series, read that series."""
    file, selector = split_selector(path)
    is_xml = lesions is not None and lesions.suffix.lower() == ".xml"
    if lesions is None or not is_xml or selector is not None or not file.exists() or not is_dicom(file):
        return read_volume(path)
    with _naming(lesions):
        uid = read_lidc(lesions).series_uid
        return read_volume(f"{file}#{uid}" if uid else file)


@contextmanager
def _naming(lesions: Path) -> Iterator[None]:
    """Add the name of the lesions file to errors raised inside."""
    try:
        yield
    except InputError as error:
        raise error.at(Argument("lesions", lesions.name)) from error


def read_lesions(path: Path, grid: Grid) -> NDArray[np.bool_]:
    """Read lesions as a mask on ``grid``, bool ``[z, y, x]``, from any file that :meth:`SourceScan.read` takes.

    Raises:
        InputError: the file cannot be read, or belongs to another scan.
    """
    with _naming(path):
        if path.suffix.lower() == ".xml":
            return consensus_mask(read_lidc(path), grid)
        if path.suffix.lower() == ".csv":
            return sphere_mask(read_centres(path), grid)
    array, mask_grid = read_array(path)
    if not np.isfinite(array).all():
        raise InputError("holds NaN or infinite values", field=path, expected="a mask", remedy="export it again")
    if not mask_grid.same_as(grid):
        raise InputError(f"its grid ({mask_grid.shape}) is not the grid of the scan ({grid.shape})", field=path)
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
    """Make ``pairs`` pair folders in ``out``, from each source in turn; existing ones are kept.

    With ``options.cut_share``, lesions of the sources are also cut out and inserted at other places in any source.

    Args:
        sources: at least one.
        out: folder to create, or to resume in.
        pairs: total number of pairs.
        seed: of the first pair; pair n has ``seed + n``.
        options: distributions of the pairs' properties.
        shapes: of real nodules, used for the lesions; without any, shapes are random.
        progress: called with the fraction done; raise from it to stop.

    Returns:
        The folders, in order.

    Raises:
        InputError: no source, a folder that cannot be written, or lungs in which no lesions fit.
    """
    if not sources:
        raise InputError("found no scan", field="sources", expected="at least one chest CT to make pairs from")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot be created ({error.strerror})", field="out", value=out, remedy="give another folder"
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
    """Refuse to resume in a folder whose pair was made from another recipe."""
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
    recipe = {"source": source.name, "source_sha256": sha256.hexdigest(), "seed": seed, "draw": to_mapping(options)}
    if shapes:
        recipe["shapes_sha256"] = hashlib.sha256(repr(shapes).encode()).hexdigest()
    if cut:
        tissue = b"".join(repr(lesion.shape).encode() + lesion.inside.hu.tobytes() for _, lesion in cut)
        recipe["cut_from"] = sorted({name for name, _ in cut})
        recipe["cut_sha256"] = hashlib.sha256(tissue).hexdigest()
    return recipe


def synthesize_pair(
    source: SourceScan,
    seed: int,
    options: DrawOptions,
    shapes: Sequence[LesionShape] = (),
    cut: Sequence[CutLesion] = (),
) -> KnownPair:
    """Make pair number ``seed``; if its lesions do not fit, other ones are drawn.

    Args:
        source: the scan.
        seed: number of the pair.
        options: distributions of the pair's properties.
        shapes: of real nodules; see :func:`synthesize`.
        cut: lesions to insert; see :func:`synthesize`.

    Raises:
        InputError: the lesions of no draw fit.
    """
    for attempt in range(TRIES):
        try:
            drawn = draw_pair(seed + 1_000_003 * attempt, options, shapes, cut)
            return make_pair(source.volume, source.lungs, seed=seed, options=drawn, own_lesions=source.own_lesions)
        except (InputError, RuntimeError) as error:  # lesions do not fit, or the motion cannot be inverted
            last = error
    raise InputError(f"the lesions of {TRIES} draws do not fit into its lungs ({last})", field=Path(source.name))


def write_pair(folder: Path, pair: KnownPair, recipe: dict[str, Any]) -> None:
    """Write one pair and its recipe; ``folder`` appears when it is complete.

    Raises:
        InputError: the folder cannot be written.
    """
    for old in folder.parent.glob(f".{folder.name}.*.partial"):  # left by a killed run
        shutil.rmtree(old, ignore_errors=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        part.mkdir()
        _write_files(part, pair, recipe)
        if folder.exists():  # without truth.json it is incomplete
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
    """Find Foerstner keypoints of the reference, ``[n, 3]`` in mm, LPS."""
    scan = Scan.of(pair.reference, pair.lungs_reference)
    (view,) = scan_pyramid(
        scan, margin_mm=MARGIN_MM, working_mm=KEYPOINT_VOXEL_MM, levels=1, window_hu=REGISTRATION_WINDOW_HU
    )
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
