"""What the figures of a rigid alignment mean: refuse the pair, warn, or go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ChangeMapJointLib.core.errors import Argument
from ChangeMapJointLib.core.options import require, within

TOO_LITTLE = "too little lung and chest wall to tell whether they show the same chest"
GIVE_MORE = (
    "give more of the chest, or set ",
    Argument("config.rigid.refuse_wall_below", 0),
    " where you know that they do",
)


@dataclass(frozen=True)
class RigidOptions:
    """Settings of :func:`align_rigid`.

    The bars were measured, on voxels of 0.7 to 5 mm: ``Testing/benchmarks/results/rigid_robustness.json``. Agreement is
    that beyond chance, see :mod:`~ChangeMapJointLib.registration.rigid.same_chest`. Walls separate less: some are
    nearly their own mirror image, and pairs that are let pass by them alone are always marked as doubtful.

    Attributes:
        margin_mm: how far round the reference's lungs the scans are compared.
        starts: how many of the best first guesses are followed.
        least_overlap: refuse when less than this fraction of the lungs of *both* scans is seen by the other.
        least_lung_ml: refuse a scan with less lung than this.
        refuse_below: refuse when the vessels' agreement is lower.
        warn_below: warn when the vessels' agreement is lower.
        refuse_wall_below: refuse by the chest wall alone, where there are no vessels to compare.
        warn_overlap_below: warn when the template covers less than this fraction of the reference's lungs.
        warn_turn_deg: warn when the scans are turned by more.
        identity_mm: motions of the lungs smaller than this are taken as none.
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
    """Fractions of the lungs, in [0, 1], that lie in the other scan's field of view after alignment."""

    reference_in_template: float
    template_in_reference: float


def unlike_place(overlap: Overlap, options: RigidOptions) -> str:
    """Why the scans share too little; empty when they share enough."""
    if max(overlap) >= options.least_overlap:
        return ""
    return (
        f"they share {max(overlap):.0%} of the lungs, at least {options.least_overlap:.0%} are needed; "
        "choose scans of the same part of the chest"
    )


def unlike_chests(vessels: float | None, wall: float | None, options: RigidOptions) -> str:
    """Why the scans are not of one chest, from what agrees by how much; empty when nothing speaks against it."""
    if vessels is not None and vessels < options.refuse_below:
        figures = f"lung vessels agree by {vessels:.2f}, at least {options.refuse_below:.2f} is needed"
    elif vessels is None and wall is not None and wall < options.refuse_wall_below:
        figures = f"chest walls agree by {wall:.2f}, at least {options.refuse_wall_below:.2f} is needed"
    elif vessels is None and wall is None and options.refuse_wall_below > 0:
        return TOO_LITTLE
    else:
        return ""
    return f"they do not show the same chest: {figures}"


def doubts(vessels: float | None, overlap: Overlap, turn_deg: float, options: RigidOptions) -> tuple[str, ...]:
    """What the user should look at, one sentence each."""
    found = []
    if vessels is None:
        found.append(
            "Too few lung vessels to compare: look at the aligned scans to see whether they show the same chest."
        )
    elif vessels < options.warn_below:
        found.append(
            f"Lung vessels agree by {vessels:.2f} only (usual from {options.warn_below:.2f}): "
            "check that both scans are of one patient, and look at the aligned scans before using the map."
        )
    if overlap.reference_in_template < options.warn_overlap_below:
        found.append(
            f"The template covers {overlap.reference_in_template:.0%} of the reference's lungs: "
            "nothing can be said about change in the rest."
        )
    if turn_deg > options.warn_turn_deg:
        found.append(f"The scans are turned by {turn_deg:.0f} degrees against each other: check the positioning.")
    return tuple(found)
