"""The rules of the gate, which decides whether two scans can be compared: three answers, with reasons and remedies.

Every rule is one row of :data:`RULES`: what is measured, the limits, the sentence for the reader, and the remedy.
:mod:`~ChangeMapJointLib.gate.checks` and the modules that it calls do the measuring. ``docs/gate.md`` shows the same
rows together with the data from which the limits were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ChangeMapJointLib.core.hu import AIR_OR_LUNG_HU

Answer = Literal["fine", "look", "refuse"]


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        name: identifier for programs.
        checks: the group that the row belongs to; rows are in the order in which they are checked.
        quantity: what is measured, with its unit.
        sentence: the text for the reader; fields in braces are filled in.
        remedy: what to do; empty where the sentence says it.
        look: limit beyond which the answer is ``look``; None for no limit.
        refuse: limit beyond which the answer is ``refuse``; None for no limit.
        rises: whether larger values are worse.
    """

    name: str
    checks: str
    quantity: str
    sentence: str
    remedy: str = ""
    look: float | None = None
    refuse: float | None = None
    rises: bool = True

    def answer(self, value: float) -> Answer:
        """Return the answer for a measured value."""
        for answer, limit in (("refuse", self.refuse), ("look", self.look)):
            if limit is not None and (value > limit if self.rises else value < limit):
                return answer  # type: ignore[return-value]
        return "fine"


CHEST, PATIENT, ORDER_OF_DATES = "both scans are chest CT", "same patient", "order of the dates"
ORIENTATION, COVERAGE, ACQUISITION = "orientation", "coverage", "acquisition"
BREATHING, CONDITIONS = "breathing", "conditions of the chest"
HEADER = "correct the orientation in the file's header, or give the DICOM series itself"
LATERALITY = "Until then, right and left in the findings may be swapped."

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
        "The header gives the modality {modality}, expected CT.",
        "Give the CT.",
        refuse=0,
    ),
    Rule(
        "finite",
        CHEST,
        "voxels inside the volume that are NaN or infinite; connected to its outside, they are padding",
        "voxels inside the volume are NaN or infinite, expected such voxels at its outside only",
        "repair it or resample it again",
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
        "darkest_hu",
        CHEST,
        "HU below which only 1 % of what was measured lies",
        "only 1% of the voxels lie below {hu} HU, but air has -1000",
        "give a CT in HU",
        refuse=-530,
    ),
    Rule(
        "gas_hu",
        CHEST,
        "HU below which only 0.02 % of what was measured lies: air in the airways, or around the patient",
        "Hardly any voxel lies below {hu} HU, but every chest holds air (-1000): the HU scale may be wrong.",
        look=-900,
    ),
    Rule(
        "fat_hu",
        CHEST,
        "most common value of fat in HU, where there is enough of it",
        "Fat has {hu} HU, expected about -100: the HU scale may be wrong.",
        look=-135,
        rises=False,
    ),
    Rule(
        "soft_percent",
        CHEST,
        "% of the voxels between -200 and 200 HU, in the bounding box of all that is denser than air",
        "only {percent} of the voxels are soft tissue",
        "give a CT in HU",
        refuse=5,
        rises=False,
    ),
    Rule(
        "only_lung_percent",
        CHEST,
        "soft tissue in % of soft tissue and lung, where more than half of the voxels are padding",
        "only {percent} of what was measured is soft tissue: all but the lungs seems to be removed",
        "give the scan as it was acquired",
        refuse=20,
        rises=False,
    ),
    Rule(
        "bright_percent", CHEST, "% of voxels above 4000 HU", "{percent} lie above 4000 HU", "give a CT in HU", refuse=1
    ),
    Rule(
        "soft_peak_high_hu",
        CHEST,
        "most common soft-tissue value in HU",
        "The most common soft-tissue value is {hu} HU, which is unusual: the HU scale may be wrong.",
        look=130,
        refuse=250,
    ),
    Rule(
        "soft_peak_low_hu",
        CHEST,
        "most common soft-tissue value in HU",
        "The most common soft-tissue value is {hu} HU, which is unusual: the HU scale may be wrong.",
        look=-150,
        refuse=-250,
        rises=False,
    ),
    Rule(
        "patient",
        PATIENT,
        "1 where the patients' names and numbers in the headers differ",
        "WARNING: the two headers name different patients; make sure that both scans are of the same person.",
        look=0,
    ),
    Rule(
        "same_images",
        PATIENT,
        "1 where grids and voxels are equal",
        "WARNING: both scans are the same images.",
        "Choose two scans.",
        look=0,
    ),
    Rule(
        "vessels",
        PATIENT,
        "agreement of lung vessels after rigid alignment, -1 to 1 (RigidOptions)",
        "{message}",
        look=0.55,
        refuse=0.45,
        rises=False,
    ),
    Rule(
        "date_order",
        ORDER_OF_DATES,
        "days from the current scan to the prior",
        "WARNING: the prior scan, of {prior}, is newer than the current scan, of {current}; "
        "unless you swap them, new and resolved, growing and shrinking are the wrong way round.",
        look=0,
    ),
    Rule("same_day", ORDER_OF_DATES, "1 where both dates are equal", "Both scans are of the same day, {date}.", look=0),
    Rule(
        "head_feet",
        ORIENTATION,
        "how clearly the lung apices are at the head by the header; negative: at the feet",
        "The chest seems to be upside down: by the header, the lung apices are at the feet.",
        f"Check the scan, and {HEADER}. {LATERALITY}",
        look=-0.15,
        rises=False,
    ),
    Rule(
        "front_back",
        ORIENTATION,
        "how far back spine and ribs are relative to the lungs, by the header, -1 to 1",
        "Front and back seem to be swapped: by the header, the spine is at the front of the chest.",
        f"Check the scan, and {HEADER}. {LATERALITY}",
        look=-0.2,
        rises=False,
    ),
    Rule(
        "left_right",
        ORIENTATION,
        "how normal heart and domes are by the header, -3 to 3: heart on the left, right dome higher",
        "Right and left seem to be swapped: by the header, the heart is on the right "
        "(a mirrored scan, or situs inversus).",
        f"Check the scan, and {HEADER}. {LATERALITY}",
        look=-0.5,
        rises=False,
    ),
    Rule(
        "overlap",
        COVERAGE,
        "% of the lungs of either scan that the other covers, the larger of the two (RigidOptions.least_overlap)",
        "they share {percent} % of the lungs",
        "choose scans of the same part of the chest",
        refuse=20,
        rises=False,
    ),
    Rule(
        "coverage",
        COVERAGE,
        "% of an upper or lower half of a lung that the other scan covers",
        "The {other} covers only {parts} in the {whose}.",
        "Change in the rest cannot be assessed.",
        look=90,
        rises=False,
    ),
    Rule(
        "one_sided",
        COVERAGE,
        "width of the scan beside the larger lung, in % of that lung's width, where the other has less than 35 % of it",
        "The field of view ends {ends} the {larger} lung and holds {amount} of the {side} lung.",
        "Give scans with both lungs to compare both.",
        look=50,
        rises=False,
    ),
    Rule("turned", COVERAGE, "degrees between the scans (RigidOptions.warn_turn_deg)", "{message}", look=15),
    Rule(
        "reading",
        ACQUISITION,
        "notes from reading the file: slices missing or uneven, a gantry tilt corrected, ...",
        "{message}",
        look=0,
    ),
    Rule(
        "voxel_mm",
        ACQUISITION,
        "mm of the longest voxel edge",
        "Voxels of {mm} mm along one axis: smaller nodules may be missed.",
        look=3,
        refuse=10,
    ),
    Rule(
        "pixel_mm",
        ACQUISITION,
        "mm of the second longest voxel edge",
        "Voxels of {mm} mm along two axes: the lung vessels, which identify a patient, cannot be seen.",
        "give a finer series",
        refuse=6,
    ),
    Rule(
        "gaps",
        ACQUISITION,
        "slice distance divided by slice thickness",
        "Slices of {thickness} mm every {distance} mm: lesions between them are not seen.",
        look=1.5,
    ),
    Rule(
        "thickness",
        ACQUISITION,
        "larger slice thickness divided by the smaller one",
        "Different slice thickness, {current} and {prior} mm: small nodules look fainter in thicker slices.",
        look=1.5,
    ),
    Rule(
        "kernel",
        ACQUISITION,
        "1 where the headers name different kernels",
        "Different reconstruction kernels, {current} and {prior}: fine texture may differ.",
        look=0,
    ),
    Rule(
        "kv",
        ACQUISITION,
        "difference in kV",
        "Different tube voltages, {current} and {prior} kV: contrast agent, bone and calcium differ in HU.",
        "Do not rely on changes in their density.",
        look=10,
    ),
    Rule(
        "contrast",
        ACQUISITION,
        "1 where only one header states contrast agent",
        "By the headers, only the {which} has contrast agent: vessels and enhancing tissue may differ.",
        look=0,
    ),
    Rule(
        "blood_hu",
        ACQUISITION,
        "difference in HU of heart and great vessels",
        "Heart and great vessels have {current} and {prior} HU: contrast agent in one scan only, or different phases. "
        "Vessels and enhancing tissue may differ.",
        look=60,
    ),
    Rule(
        "lossy",
        ACQUISITION,
        "compression ratio of images that were compressed with loss; 1 where it is not given",
        "The images were compressed with loss ({ratio}): faint and fine detail may be missing or altered.",
        "Use the original images if there are any.",
        look=0,
    ),
    Rule(
        "noise_hu",
        ACQUISITION,
        "standard deviation in HU within soft tissue, from voxel to voxel",
        "The scan is noisy, {hu} HU: small nodules may be missed, and noise may be taken for change.",
        "Use a smoother reconstruction if there is one.",
        look=60,
    ),
    Rule(
        "noise_ratio",
        ACQUISITION,
        "larger noise divided by the smaller, where one scan has more than 25 HU",
        "One scan is much noisier, {current} and {prior} HU: another dose or kernel. Fine texture may differ.",
        look=3,
    ),
    Rule(
        "breathing",
        BREATHING,
        "larger lung volume divided by the smaller, within the part that both scans cover",
        "The lungs have {current} and {prior} l where both scans cover them: the breathing state differs, or parts are "
        "filled or collapsed. Density differs everywhere.",
        "Check the registration before using the map.",
        look=1.6,
    ),
    Rule(
        "one_lung",
        CONDITIONS,
        "smaller lung in % of the larger one",
        "The {side} lung is missing or very small, {small} l against {large} l: pneumonectomy, collapse or a large "
        "effusion.",
        "Only lung is compared.",
        look=35,
        rises=False,
    ),
    Rule(
        "fluid_percent",
        CONDITIONS,
        "fluid (below 30 HU) behind a lung or inside its mask, in % of the lung volume",
        "{ml} ml with the density of fluid are behind or in the {side} lung: possibly an effusion.",
        "Only the part inside the lung mask is compared.",
        look=2.5,
    ),
    Rule(
        "dense_percent",
        CONDITIONS,
        "dense tissue (30 HU or more) behind a lung or inside its mask, in % of the lung volume",
        "{ml} ml of dense tissue are behind or in the {side} lung: possibly a consolidation, a collapse or a mass.",
        "Only the part inside the lung mask is compared.",
        look=2.5,
    ),
    Rule(
        "gas_percent",
        CONDITIONS,
        "air without tissue outside the airways (below -975 HU over 10 mm, ending at tissue within 6 mm), in % of the "
        "lung volume",
        "{ml} ml of air without lung tissue are on the {side}: possibly a pneumothorax or large bullae.",
        "Vessels were not compared there.",
        look=0.5,
    ),
    Rule(
        "metal_ml",
        CONDITIONS,
        "ml above 2500 HU around the lungs",
        "{ml} ml of metal or undiluted contrast agent: streak artefacts may look like change.",
        "Do not rely on findings in those slices.",
        look=1,
    ),
)
BY_NAME = {rule.name: rule for rule in RULES}
