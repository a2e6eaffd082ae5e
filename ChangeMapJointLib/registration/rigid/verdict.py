"""Whether to refuse a pair, warn or continue, by the figures of its rigid alignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ChangeMapJointLib.core.errors import Argument
from ChangeMapJointLib.core.options import require, within

TOO_LITTLE = "they share too little lung and chest wall to tell whether they show the same chest"
TOO_LITTLE_REMEDY = (
    "use scans that show more of the chest, or set ",
    Argument("config.rigid.refuse_wall_below", 0),
    " if you know that they do",
)


@dataclass(frozen=True)
class RigidOptions:
    """Options of :func:`~ChangeMapJointLib.registration.rigid.align.align_rigid`.

    The limits were measured on voxels of 0.7 to 5 mm (``Testing/benchmarks/results/rigid_robustness.json``). Agreement
    means agreement beyond chance, see :mod:`~ChangeMapJointLib.registration.rigid.same_chest`. The chest wall separates
    patients less well, since some are nearly their own mirror image; pairs accepted by the chest wall alone always get
    a warning.

    Attributes:
        margin_mm: distance from the reference's lungs within which the scans are compared.
        starts: number of the best initial poses that are refined.
        least_overlap: refuse the pair when less than this fraction of the lungs of *each* scan lies in the other's
            field of view.
        least_lung_ml: refuse a scan with less lung than this.
        refuse_below: refuse the pair when the agreement of lung vessels is lower.
        warn_below: warn when the agreement of lung vessels is lower.
        refuse_wall_below: refuse the pair when there are too few vessels to compare and the agreement of the chest
            wall is lower; 0 accepts such pairs.
        warn_overlap_below: warn when the template covers less than this fraction of the reference's lungs.
        warn_turn_deg: warn when the scans are rotated against each other by more than this.
        identity_mm: an alignment that moves the lungs by less than this is replaced by the identity.
    """

    margin_mm: float = 20.0
    starts: int = 6
    least_overlap: float = 0.2
    least_lung_ml: float = 100.0
    refuse_below: float = 0.45
    warn_below: float = 0.55
    refuse_wall_below: float = 0.65
    warn_overlap_below: float = 0.9
    warn_turn_deg: float = 15.0
    identity_mm: float = 0.02

    def __post_init__(self) -> None:
        shares = {n: (within(getattr(self, n), 0.0, 1.0), "0 to 1") for n in ("least_overlap", "warn_overlap_below")}
        require(
            self,
            **shares,
            margin_mm=(within(self.margin_mm, 0.0, 100.0), "0 to 100"),
            starts=(within(self.starts, 1, 100), "1 to 100"),
            least_lung_ml=(within(self.least_lung_ml, 0.0, 5000.0), "0 to 5000"),
            identity_mm=(within(self.identity_mm, 0.0, 1.0), "0 to 1"),
        )


class Overlap(NamedTuple):
    """Fractions of each scan's lungs, in [0, 1], that lie in the other scan's field of view after alignment."""

    reference_in_template: float
    template_in_reference: float


def overlap_problem(overlap: Overlap, options: RigidOptions) -> str:
    """Why the scans share too little of the lungs; empty when they share enough."""
    if max(overlap) >= options.least_overlap:
        return ""
    return (
        f"they share {max(overlap):.0%} of the lungs, at least {options.least_overlap:.0%} are needed; "
        "choose scans of the same part of the chest"
    )


def chest_problem(vessels: float | None, wall: float | None, options: RigidOptions) -> str:
    """Why the scans cannot show the same chest, by their agreement; empty when nothing speaks against it."""
    if vessels is not None and vessels < options.refuse_below:
        figures = f"the agreement of lung vessels is {vessels:.2f}, at least {options.refuse_below:.2f} is needed"
    elif vessels is None and wall is not None and wall < options.refuse_wall_below:
        figures = f"the agreement of the chest walls is {wall:.2f}, at least {options.refuse_wall_below:.2f} is needed"
    elif vessels is None and wall is None and options.refuse_wall_below > 0:
        return TOO_LITTLE
    else:
        return ""
    return f"they do not show the same chest: {figures}"


# how the warnings of an alignment begin, and the gate's rules that they belong to
FEW_VESSELS, UNLIKE_VESSELS = "There are too few lung vessels", "The agreement of lung vessels"
PART_COVERED, ROTATED = "The prior scan covers", "The scans are rotated"
_RULES = {FEW_VESSELS: "vessels", UNLIKE_VESSELS: "vessels", PART_COVERED: "coverage", ROTATED: "turned"}


def rule_of_warning(sentence: str) -> str:
    """Return the name of the gate's rule that a sentence of :func:`alignment_warnings` belongs to.

    Raises:
        ValueError: the sentence is not one of them.
    """
    for start, rule in _RULES.items():
        if sentence.startswith(start):
            return rule
    raise ValueError(f"rule_of_warning() 'sentence' is no warning of an alignment: {sentence}")


def alignment_warnings(
    vessels: float | None, overlap: Overlap, turn_deg: float, options: RigidOptions
) -> tuple[str, ...]:
    """What the user should check, one sentence each."""
    warnings = []
    if vessels is None:
        warnings.append(f"{FEW_VESSELS} to compare: check in the aligned scans that they show the same chest.")
    elif vessels < options.warn_below:
        warnings.append(
            f"{UNLIKE_VESSELS} is only {vessels:.2f} (usually {options.warn_below:.2f} or more): check "
            "that both scans are of the same patient, and look at the aligned scans before you use the map."
        )
    if overlap.reference_in_template < options.warn_overlap_below:
        warnings.append(
            f"{PART_COVERED} {overlap.reference_in_template:.0%} of the current scan's lungs: "
            "change in the rest cannot be assessed."
        )
    if turn_deg > options.warn_turn_deg:
        warnings.append(f"{ROTATED} by {turn_deg:.0f} degrees against each other: check the patient's position.")
    return tuple(warnings)
