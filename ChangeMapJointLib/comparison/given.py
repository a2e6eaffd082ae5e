"""A deformation of another program that is given to a comparison, instead of our registration or as its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.given_check import look_for_a_better_reading
from ChangeMapJointLib.comparison.swallowed import Swallowed, sentence
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.deformation_files import check_finite, read_with_files
from ChangeMapJointLib.io.mappings import Dense, Mapping, sampled
from ChangeMapJointLib.io.provenance import sha256_of
from ChangeMapJointLib.registration.quality import Quality, Verdict
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.pair import ScanPair

if TYPE_CHECKING:
    import SimpleITK as sitk

# displacements are sampled at this voxel size, as those of our own registration are by default, unless their own grid
# can be kept: it covers the scan, is no coarser than twice as much and not too large
SAMPLED_MM, MOST_VECTORS = 1.5, 40_000_000
LEAST_COVERED, FULLY_COVERED = 0.9, 0.999  # shares of the lungs that the field must cover: below, an error or a note
LEAST_SHARED = 0.5  # of the lungs that the rigid alignment finds in the prior
MOST_POINTS = 50_000
ARGUMENT = Argument("deformation")


@dataclass(frozen=True)
class FieldSource:
    """Where a part of a given deformation comes from; ``sha256`` of its file, None in memory."""

    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class GivenReport:
    """What a result says about a given deformation.

    Attributes:
        sources: the files in the order in which points pass through them.
        refined: whether our registration continued from it.
        keypoint_error_mm: mean distance that the given deformation leaves between keypoint matches, which are found
            without it; None without matches.
        folding_percent: percentage of the reference's lung voxels where it folds.
        notes: sentences on how it was read.
        warning: a sentence that names the reading under which it fits the lungs far better; empty where there is none.
        swallowed: places where it deforms change away, as far as its volume change tells.
    """

    sources: tuple[FieldSource, ...]
    refined: bool
    keypoint_error_mm: float | None
    folding_percent: float
    notes: tuple[str, ...] = ()
    warning: str = ""
    swallowed: tuple[Swallowed, ...] = ()

    def without_names(self) -> GivenReport:
        """Return the same with a part of its hash in place of each file's name, which may be a patient's."""
        hashed = (replace(one, name=f"file {one.sha256[:12]}") if one.sha256 else one for one in self.sources)
        return replace(self, sources=tuple(hashed))

    @property
    def names(self) -> str:
        """The names of the sources in one phrase."""
        return ", ".join(source.name for source in self.sources)

    @property
    def sentence(self) -> str:
        """Where the deformation comes from, in one sentence."""
        if self.refined:
            return f"The registration started from the given deformation {self.names}."
        return f"The deformation was given ({self.names}) and used as it is."

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the given deformation, one sentence each."""
        return tuple(filter(None, (self.warning, sentence(self.swallowed, refined=self.refined))))

    def on_verdict(self, quality: Quality) -> Quality:
        """Return the verdict on the registration with the doubts about a deformation that was used as it is.

        One that fits far better when it is read differently must not be used.
        """
        if self.refined or not self.doubts:
            return quality
        verdict: Verdict = "do not use" if self.warning else "look closely"
        if quality.verdict == "do not use":
            verdict = quality.verdict
        reasons = self.doubts if quality.verdict == "good" else (*self.doubts, *quality.reasons)
        return replace(quality, verdict=verdict, reasons=reasons)


def how_computed(given: GivenReport) -> str:
    """Return how registration and map were computed, for the report; the map is that of method ``sequential``."""
    _, _, rest = METHODS["sequential"].description.partition(". ")
    the_map, _, _ = rest.partition(" The pipeline is")
    more = ", and variational registration that lets go of change continued from it" if given.refined else ""
    return (
        f"The deformation of another program was given ({given.names}){more}. The map is the difference of the "
        f"reference and the template warped by it. {the_map}"
    )


@dataclass(frozen=True, eq=False)
class Given:
    """A deformation as it was read, before it is compared with the scans.

    Attributes:
        mapping: of points of the current scan to the prior.
        sources: the files it was read from, also those that another one names.
        files: number of files that were given; 1 for a deformation in memory.
    """

    mapping: Mapping
    sources: tuple[FieldSource, ...]
    files: int = 1


@dataclass(frozen=True, eq=False)
class PlacedDeformation:
    """A given deformation on a grid that covers the reference; see :class:`GivenReport` for the others."""

    field: DisplacementField
    sources: tuple[FieldSource, ...]
    notes: tuple[str, ...]
    warning: str


AnyDeformation = Union[
    Path,
    str,
    Sequence[Path | str],
    Deformation,
    DisplacementField,
    NDArray[np.generic],
    "sitk.Transform",
    "sitk.Image",
    Given,
]


def read_given(deformation: AnyDeformation, reference: Grid) -> Given:
    """Read a deformation from files or from memory.

    Args:
        deformation: see :func:`~ChangeMapJointLib.comparison.compare.compare`.
        reference: the current scan's grid, on which an array lies.

    Raises:
        InputError: of another type, or a file is missing, damaged or of an unknown kind.
    """
    if isinstance(deformation, Given):
        return deformation
    if isinstance(deformation, (str, Path)):
        deformation = [deformation]
    if isinstance(deformation, (list, tuple)):
        paths = [Path(path) for path in deformation if isinstance(path, (str, Path))]
        if not paths or len(paths) != len(deformation):
            raise InputError("found something else than paths", field=ARGUMENT.name, expected="one or more files")
        mapping, files = read_with_files(paths)
        return Given(mapping, tuple(FieldSource(path.name, sha256_of(path)) for path in files), len(paths))
    try:
        return _from_memory(deformation, reference)
    except InputError as error:
        raise error.at(ARGUMENT) from error


def _from_memory(deformation: object, reference: Grid) -> Given:
    if isinstance(deformation, Deformation):
        deformation = deformation.field
    if isinstance(deformation, np.ndarray):
        if deformation.shape != (*reference.shape, 3):
            expected = f"{(*reference.shape, 3)}: [z, y, x, 3] on the current scan's grid"
            raise InputError(f"found shape {deformation.shape}", expected=expected)
        if deformation.dtype.kind not in "fiu":
            raise InputError(f"found {deformation.dtype} values", expected="displacements in mm")
        deformation = DisplacementField(np.ascontiguousarray(deformation, dtype=np.float32), reference)
    if isinstance(deformation, DisplacementField):
        check_finite(deformation.vectors_mm)
        return Given(Dense(deformation), (FieldSource("in memory"),))
    import SimpleITK as sitk

    from ChangeMapJointLib.io.itk_transforms import field_of, mapping_of

    if isinstance(deformation, sitk.Transform):
        return Given(mapping_of(deformation), (FieldSource("SimpleITK transform"),))
    if isinstance(deformation, sitk.Image):
        field = field_of(deformation)
        check_finite(field.vectors_mm)
        return Given(Dense(field), (FieldSource("SimpleITK image"),))
    expected = "files, a Deformation, a SimpleITK transform or vector image, or an array [z, y, x, 3] in mm"
    raise InputError(f"found {type(deformation).__name__}", expected=expected)


def place_given(given: Given, pair: ScanPair, rigid: RigidAlignment) -> PlacedDeformation:
    """Sample a given deformation on a grid that covers the reference, and check that it fits the two scans.

    Args:
        given: from :func:`read_given`.
        pair: both scans with their lungs.
        rigid: our own rigid alignment, which tells how much of the lungs the prior shows.

    Raises:
        InputError: it does not cover the current scan's lungs, takes most of them out of the prior, or is not finite.
    """
    points = lung_points(pair)
    covered = float(given.mapping.covers(points).mean())
    subject = ARGUMENT.name
    if covered < LEAST_COVERED:
        raise InputError(
            f"covers {covered:.0%} of the current scan's lungs",
            field=subject,
            expected=f"at least {LEAST_COVERED:.0%}",
            remedy="give a deformation of the whole current scan (fixed image), and check that it belongs to it",
        )
    warning = look_for_a_better_reading(given.mapping, pair, files=given.files)
    shared = float(pair.template.grid.contains(given.mapping.apply(points)).mean())
    if shared < LEAST_SHARED * rigid.overlap.reference_in_template:
        raise InputError(
            f"takes {1 - shared:.0%} of the current scan's lungs out of the prior's field of view",
            field=subject,
            expected="a mapping of points of the current scan (fixed) to the prior (moving), in mm, LPS",
            remedy=warning or "check its direction, units and files",
        )
    notes = []
    if covered < FULLY_COVERED:
        notes.append(
            f"The given deformation covers {covered:.1%} of the current scan's lungs; beyond it the displacement at "
            "its border was repeated."
        )
    field, note = _on_grid(given.mapping, pair.reference.grid)
    check_finite(field.vectors_mm)
    return PlacedDeformation(field, given.sources, (*notes, *note), warning)


def lung_points(pair: ScanPair) -> FloatArray:
    """Points ``[n, 3]`` (x, y, z in mm, LPS) spread over the reference's lungs."""
    voxels = np.flatnonzero(pair.reference.mask)
    voxels = voxels[:: max(1, len(voxels) // MOST_POINTS)]
    index = np.stack(np.unravel_index(voxels, pair.reference.mask.shape), -1)[:, ::-1]
    return pair.reference.grid.to_physical(index.astype(float))


def _on_grid(mapping: Mapping, reference: Grid) -> tuple[DisplacementField, tuple[str, ...]]:
    """The mapping on its own grid where that can be kept, else sampled over the reference; and notes."""
    if isinstance(mapping, Dense):
        own = mapping.field.grid
        corners = reference.corners()
        index = np.indices(corners.shape)[::-1].reshape(3, -1).T.astype(float)
        covers = bool(own.contains(corners.to_physical(index)).all())
        if covers and max(own.spacing_mm) <= 2 * SAMPLED_MM and np.prod(own.shape, dtype=float) <= MOST_VECTORS:
            return mapping.field, ()
        if own.same_as(reference) and np.prod(own.shape, dtype=float) <= MOST_VECTORS:
            return mapping.field, ()
    x, y, z = (max(h, SAMPLED_MM) for h in reference.spacing_mm)
    grid = reference if (x, y, z) == reference.spacing_mm else reference.with_spacing((x, y, z))
    mm = " x ".join(f"{h:.3g}" for h in grid.spacing_mm)
    return sampled(mapping, grid), (f"The given deformation was sampled at {mm} mm over the current scan.",)
