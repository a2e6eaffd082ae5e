"""All results of one case against its truth. Every volume is read once, scored and let go."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.evaluation.cases import Case
from ChangeMapJointLib.evaluation.detection import ChangeRegion
from ChangeMapJointLib.evaluation.field_score import FieldScore, score_field
from ChangeMapJointLib.evaluation.known import KnownCase, Mask, read_known, read_labels
from ChangeMapJointLib.evaluation.lesion_table import TrueLesion
from ChangeMapJointLib.evaluation.list_score import ListScore, score_list
from ChangeMapJointLib.evaluation.map_score import MapScore, score_map
from ChangeMapJointLib.evaluation.outcome import MethodOutcome, open_outcome, read_map


@dataclass(frozen=True)
class MethodScore:
    """What was measured of one method on one case, beside its maps.

    Attributes:
        field: of its deformation; None where it gives none.
        findings: of its list; None where it gives none, or the lesions are not known.
        seconds: time that it took; None where unknown.
        peak_mb: largest memory; None where unknown.
        threshold: of its list; None where unknown.
        verdict: what it said of its own registration.
    """

    field: FieldScore | None = None
    findings: ListScore | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    threshold: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class CaseScore:
    """The scores of one case.

    Attributes:
        name: of the case.
        patient: of the case.
        days: between the scans.
        changes: the true changes, in the order in which the scores of maps list them.
        stable: lesions that did not change.
        lesions_known: whether all changes are known; if not, maps and lists are not scored.
        maps: score of every map, by its name.
        methods: everything else, by method.
        notes: what could not be used, one sentence each.
    """

    name: str
    patient: str
    days: float | None
    changes: tuple[TrueLesion, ...]
    stable: tuple[TrueLesion, ...]
    lesions_known: bool
    maps: dict[str, MapScore] = field(default_factory=dict)
    methods: dict[str, MethodScore] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def null(self) -> bool:
        """Whether it is known that nothing changed."""
        return self.lesions_known and not self.changes


def score_case(case: Case) -> CaseScore:
    """Read and score a case.

    Raises:
        InputError: a file cannot be read or does not fit the case; it names the file.
    """
    known = read_known(case)
    maps: dict[str, MapScore] = {}
    methods: dict[str, MethodScore] = {}
    regions: list[tuple[Grid, list[ChangeRegion]]] = []
    for files in case.methods:
        outcome = open_outcome(files)
        if outcome.method in methods or maps.keys() & outcome.maps.keys():
            raise InputError(
                f"two results of case {case.name!r} are called {outcome.method!r}",
                field=files.run or "method",
                remedy="give each a name of its own in the column method",
            )
        if known.lesions_known:
            maps |= {name: _score_map(path, known, regions) for name, path in outcome.maps.items()}
        methods[outcome.method] = _score_method(outcome, known)
    notes = known.notes
    if not known.lesions_known:
        notes = (*notes, "It is not known what changed, so that neither maps nor lists are scored.")
    return CaseScore(
        case.name,
        case.patient,
        case.days,
        tuple(known_lesion.lesion for known_lesion in known.changes),
        tuple(k.lesion for k in known.lesions if not k.lesion.is_change),
        known.lesions_known,
        maps,
        methods,
        notes,
    )


def _score_map(path: Path, known: KnownCase, made: list[tuple[Grid, list[ChangeRegion]]]) -> MapScore:
    """Score one map on its own grid; the regions of the changes on each grid are made once."""
    change_map, grid = read_map(path)
    regions = next((found for other, found in made if other.same_as(grid)), None)
    if regions is None:
        try:
            regions = [change.region(grid) for change in known.changes]
        except InputError as error:
            raise error.at(path) from error
        made.append((grid, regions))
    return score_map(change_map, grid, regions)


def _score_method(outcome: MethodOutcome, known: KnownCase) -> MethodScore:
    mapping = outcome.read_mapping()
    scored = None
    if mapping is not None:
        trust = read_map(outcome.trust) if outcome.trust is not None else None
        scored = score_field(mapping, known, _lungs(outcome, known), trust)
    listed = outcome.findings
    return MethodScore(
        scored,
        score_list(listed, known.lesions) if listed is not None and known.lesions_known else None,
        outcome.seconds,
        outcome.peak_mb,
        outcome.threshold,
        outcome.verdict,
    )


def _lungs(outcome: MethodOutcome, known: KnownCase) -> tuple[Mask, Mask] | None:
    """The lungs of both scans: the truth's, else the run's own."""
    if known.lungs_reference is not None and known.lungs_template is not None:
        return known.lungs_reference, known.lungs_template
    if outcome.lungs is None:
        return None
    masks = [Mask(labels > 0, grid) for labels, grid in map(read_labels, outcome.lungs)]
    return masks[0], masks[1]
