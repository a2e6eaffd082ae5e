"""The gate: may these two scans be compared? Three answers, each with its reasons and what to do.

Every rule is one row of :data:`RULES`: what is measured, where the answer turns, what is said, and the remedy. The
measuring is done in :mod:`~ChangeMapJointLib.gate.checks` and the modules that it asks; ``docs/gate.md`` shows the
same rows with what their bars were measured on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.hu import AIR_OR_LUNG_HU

Answer = Literal["fine", "look", "refuse"]
ORDER: tuple[Answer, ...] = ("fine", "look", "refuse")
FINE = "Both are CT of a chest, and nothing speaks against comparing them."


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        name: fixed, for programs.
        checks: what the row belongs to; rows are in the order in which they are checked.
        quantity: what is measured, with its unit.
        sentence: what is said; fields in braces are filled in.
        remedy: what to do.
        look: the answer is ``look`` beyond it; None: never.
        refuse: the answer is ``refuse`` beyond it; None: never.
        rises: a larger value is worse.
    """

    name: str
    checks: str
    quantity: str
    sentence: str
    remedy: str
    look: float | None = None
    refuse: float | None = None
    rises: bool = True

    def answer(self, value: float) -> Answer:
        """What a measured value means."""
        for answer, bar in (("refuse", self.refuse), ("look", self.look)):
            if bar is not None and (value > bar if self.rises else value < bar):
                return answer  # type: ignore[return-value]
        return "fine"


@dataclass(frozen=True)
class GateReason:
    """Why the answer is not ``fine``.

    Attributes:
        rule: name of the row.
        answer: ``look`` or ``refuse``.
        sentence: what was found.
        remedy: what to do; empty where the sentence says it.
        value: what was measured, in the row's unit; None where it is no number.
        scan: ``Reference`` or ``Template`` where it is about one of them, else empty.
    """

    rule: str
    answer: Answer
    sentence: str
    remedy: str = ""
    value: float | None = None
    scan: str = ""

    @property
    def text(self) -> str:
        """All of it as one or two sentences."""
        about = f"{self.scan}: " if self.scan else ""
        return f"{about}{self.sentence} {self.remedy}".strip()


@dataclass(frozen=True)
class GateAnswer:
    """May the two scans be compared?

    Attributes:
        answer: ``fine``; ``look``: compared, and a reader must know the reasons; ``refuse``: not compared.
        reasons: empty when fine.
    """

    answer: Answer = "fine"
    reasons: tuple[GateReason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[GateReason | None]) -> GateAnswer:
        """The answer is that of the worst reason; reasons in the order of the table, none of them twice."""
        rank = {rule.name: number for number, rule in enumerate(RULES)}
        found = sorted(dict.fromkeys(one for one in reasons if one is not None), key=lambda one: rank[one.rule])
        worst = max((ORDER.index(one.answer) for one in found), default=0)
        return cls(ORDER[worst], tuple(found))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The reasons in words."""
        return tuple(reason.text for reason in self.reasons)

    @property
    def text(self) -> str:
        """The whole answer as one paragraph."""
        return f"Inputs: {self.answer}. {' '.join(self.sentences) or FINE}"

    def raise_if_refused(self, names: str) -> None:
        """Refuse the pair, where that is the answer.

        Args:
            names: how to call the two scans.

        Raises:
            InputError: the reasons to refuse, in one line.
        """
        said = [reason.text for reason in self.reasons if reason.answer == "refuse"]
        if said:
            raise InputError(f"{names} cannot be compared: {' '.join(said)}")


ALL_FINE = GateAnswer()
CHEST, PATIENT, ORDER_OF_DATES = "both are CT of a chest", "one patient", "order of the dates"
ORIENTATION, COVERAGE, ACQUISITION = "orientation", "coverage", "how they were acquired"
BREATHING, CONDITIONS = "breathing", "what a chest may hold"
HEADER = "correct the orientation in the file's header, or give the DICOM series itself"
LATERALITY = "Right and left in the findings may be exchanged until it is settled."

RULES: tuple[Rule, ...] = (
    Rule(
        "voxels",
        CHEST,
        "voxels along the shortest axis",
        "{size} voxels, expected at least {least} along each axis (a chest CT)",
        "give the whole scan",
        refuse=10,
        rises=False,
    ),
    Rule(
        "extent_mm",
        CHEST,
        "mm along the shortest edge",
        "covers {extent} mm, expected at least {least} mm along each axis",
        "give the whole scan",
        refuse=50,
        rises=False,
    ),
    Rule(
        "modality",
        CHEST,
        "1 where the header names another modality than CT",
        "The header says that this is {modality}, expected CT.",
        "Give the CT.",
        refuse=0,
    ),
    Rule(
        "finite",
        CHEST,
        "voxels that are NaN or infinite",
        "voxels that are NaN or infinite, expected finite HU",
        "repair or export it again",
        refuse=0,
    ),
    Rule(
        "air_percent",
        CHEST,
        f"% of the voxels between {AIR_OR_LUNG_HU[0]:g} and {AIR_OR_LUNG_HU[1]:g} HU",
        "only {percent} of the voxels are air or lung",
        "give a CT in HU",
        refuse=0.5,
        rises=False,
    ),
    Rule(
        "soft_percent",
        CHEST,
        "% of the voxels between -200 and 200 HU, in the box round all that is no air",
        "only {percent} of the voxels are soft tissue",
        "give a CT in HU",
        refuse=5,
        rises=False,
    ),
    Rule(
        "bright_percent",
        CHEST,
        "% of the voxels above 4000 HU",
        "{percent} of the voxels lie above 4000 HU",
        "give a CT in HU",
        refuse=1,
    ),
    Rule(
        "soft_peak_high_hu",
        CHEST,
        "HU of the commonest soft tissue",
        "The commonest soft tissue has {hu} HU, which is unusual: the scale may be off.",
        "",
        look=130,
        refuse=250,
    ),
    Rule(
        "soft_peak_low_hu",
        CHEST,
        "HU of the commonest soft tissue",
        "The commonest soft tissue has {hu} HU, which is unusual: the scale may be off.",
        "",
        look=-150,
        refuse=-250,
        rises=False,
    ),
    Rule(
        "patient",
        PATIENT,
        "1 where name and number in the headers differ",
        "WARNING: the two scans name different patients; make sure that they are of one person.",
        "",
        look=0,
    ),
    Rule(
        "same_images",
        PATIENT,
        "1 where grids and voxels are equal",
        "WARNING: reference and template are the same images.",
        "Choose two scans.",
        look=0,
    ),
    Rule(
        "vessels",
        PATIENT,
        "agreement of lung vessels after rigid alignment, -1 to 1 (RigidOptions)",
        "{said}",
        "",
        look=0.55,
        refuse=0.45,
        rises=False,
    ),
    Rule(
        "date_order",
        ORDER_OF_DATES,
        "days from reference to template",
        "WARNING: the template (prior) of {old} is newer than the reference (current) of {new}; "
        "new and resolved, growing and shrinking are the wrong way round unless they are exchanged.",
        "",
        look=0,
    ),
    Rule(
        "same_day",
        ORDER_OF_DATES,
        "1 where both dates are equal",
        "Both scans are of the same day, {date}.",
        "",
        look=0,
    ),
    Rule(
        "head_feet",
        ORIENTATION,
        "how far the lungs' apices lie at the head, as the header has it; negative: at the feet",
        "The chest seems upside down: the lungs' domes lie where the header has the feet.",
        f"Look at the scan, and {HEADER}. {LATERALITY}",
        look=-0.15,
        rises=False,
    ),
    Rule(
        "front_back",
        ORIENTATION,
        "how far spine and ribs lie at the back of the lungs, -1 to 1, as the header has it",
        "Front and back seem exchanged: the spine lies where the header has the chest's front.",
        f"Look at the scan, and {HEADER}. {LATERALITY}",
        look=-0.2,
        rises=False,
    ),
    Rule(
        "left_right",
        ORIENTATION,
        "how far heart and domes lie as usual, -3 to 3: heart left, right dome higher, as the header has it",
        "Right and left seem exchanged: the heart lies on the side that the header calls right "
        "(a mirrored scan, or situs inversus).",
        f"Look at the scan, and {HEADER}. {LATERALITY}",
        look=-0.5,
        rises=False,
    ),
    Rule(
        "overlap",
        COVERAGE,
        "% of the lungs of either scan that the other saw, the larger of both (RigidOptions.least_overlap)",
        "they share {percent} % of the lungs",
        "choose scans of the same part of the chest",
        refuse=20,
        rises=False,
    ),
    Rule(
        "coverage",
        COVERAGE,
        "% of an upper or lower half of a lung that the other scan saw",
        "Only {parts} of the {whose} were seen by the {other}.",
        "Nothing can be said about change in the rest.",
        look=90,
        rises=False,
    ),
    Rule(
        "turned",
        COVERAGE,
        "degrees between the scans (RigidOptions.warn_turn_deg)",
        "{said}",
        "",
        look=15,
    ),
    Rule(
        "reading",
        ACQUISITION,
        "sentences of the reader: slices missing or uneven, a tilt taken out, ...",
        "{said}",
        "",
        look=0,
    ),
    Rule(
        "voxel_mm",
        ACQUISITION,
        "mm of the longest voxel edge",
        "Voxels of {mm} mm along one axis: nodules smaller than that may be missed.",
        "",
        look=3,
        refuse=10,
    ),
    Rule(
        "pixel_mm",
        ACQUISITION,
        "mm of the second longest voxel edge",
        "Voxels of {mm} mm along two axes: vessels, by which patients are told apart, do not show.",
        "give a finer series",
        refuse=6,
    ),
    Rule(
        "gaps",
        ACQUISITION,
        "distance of the slices over their thickness",
        "Slices of {thickness} mm every {distance} mm: what lies between them is not seen.",
        "",
        look=1.5,
    ),
    Rule(
        "thickness",
        ACQUISITION,
        "slice thickness of the thicker over that of the thinner scan",
        "Different slice thickness, {new} and {old} mm: small nodules look fainter in the thicker one.",
        "",
        look=1.5,
    ),
    Rule(
        "kernel",
        ACQUISITION,
        "1 where the headers name different kernels",
        "Different reconstruction kernels, {new} and {old}: fine texture may differ.",
        "",
        look=0,
    ),
    Rule(
        "kv",
        ACQUISITION,
        "kV between the two",
        "Different tube voltages, {new} and {old} kV: contrast agent, bone and calcium differ in HU.",
        "Trust no change of their density.",
        look=10,
    ),
    Rule(
        "contrast",
        ACQUISITION,
        "1 where one header alone states contrast agent",
        "Only the {which} is stated to have contrast agent: vessels and enhancing tissue may differ.",
        "",
        look=0,
    ),
    Rule(
        "blood_hu",
        ACQUISITION,
        "HU between the hearts and great vessels of the two",
        "Heart and great vessels have {new} and {old} HU: with and without contrast agent, or in another phase. "
        "Vessels and enhancing tissue may differ.",
        "",
        look=60,
    ),
    Rule(
        "noise_hu",
        ACQUISITION,
        "HU, standard deviation in soft tissue at the scale of a voxel",
        "The scan is noisy, {hu} HU: small nodules may be missed, and specks taken for change.",
        "Use a smoother reconstruction where there is one.",
        look=60,
    ),
    Rule(
        "noise_ratio",
        ACQUISITION,
        "noise of the noisier over that of the smoother scan, where one has more than 25 HU",
        "One scan is much noisier, {new} and {old} HU: another dose or kernel; fine texture may differ.",
        "",
        look=3,
    ),
    Rule(
        "breathing",
        BREATHING,
        "volume of the fuller over that of the emptier lungs, as far as both scans show them",
        "The lungs have {new} and {old} l where both scans show them: in another state of breathing, or parts are "
        "filled or collapsed. Density differs everywhere.",
        "Look at the registration before using the map.",
        look=1.6,
    ),
    Rule(
        "one_lung",
        CONDITIONS,
        "% of the larger lung that the smaller one has",
        "The {side} lung is missing or a remnant, {small} l against {large} l: pneumonectomy, collapse or a large "
        "effusion.",
        "What is not lung is not compared.",
        look=35,
        rises=False,
    ),
    Rule(
        "fluid_percent",
        CONDITIONS,
        "% of the lungs' volume that is fluid (below 30 HU), behind a lung or taken in by its mask",
        "{ml} ml at the density of fluid lie behind or in the {side} lung: possibly an effusion.",
        "It is compared only as far as the lung mask takes it in.",
        look=2.5,
    ),
    Rule(
        "dense_percent",
        CONDITIONS,
        "% of the lungs' volume that is dense tissue (30 HU or more), behind a lung or taken in by its mask",
        "{ml} ml of dense tissue lie behind or in the {side} lung: possibly a consolidation, a collapse or a mass.",
        "It is compared only as far as the lung mask takes it in.",
        look=2.5,
    ),
    Rule(
        "gas_percent",
        CONDITIONS,
        "% of the lungs' volume that is empty air outside the airways: darker than -975 HU over 10 mm",
        "{ml} ml of air without lung tissue lie on the {side}: possibly a pneumothorax or large bullae.",
        "Vessels were not compared there.",
        look=0.5,
    ),
    Rule(
        "metal_ml",
        CONDITIONS,
        "ml above 2500 HU within the body, round the lungs",
        "{ml} ml of metal or undiluted contrast agent: its streaks may look like change.",
        "Do not trust findings in its slices.",
        look=1,
    ),
)
BY_NAME = {rule.name: rule for rule in RULES}


def reason(rule: str, value: float, *, scan: str = "", **words: object) -> GateReason | None:
    """What a measured value says by a rule of :data:`RULES`; None where it is fine.

    Args:
        rule: its name.
        value: what was measured, in its unit.
        scan: ``Reference`` or ``Template`` where it is about one of them.
        words: what its sentence is filled with.
    """
    row = BY_NAME[rule]
    answer = row.answer(value)
    if answer == "fine":
        return None
    return GateReason(rule, answer, row.sentence.format(**words), row.remedy, round(float(value), 4), scan)
