"""The coded terms of the objects: SNOMED CT and DCM where they have the term, else our own scheme 99CMJ."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from ChangeMapJointLib.change.kinds import Kind
from ChangeMapJointLib.core.hu import FULL_SCALE_HU

SCHEME = "99CMJ"


def sct(value: str, meaning: str) -> CodedConcept:
    """Return a SNOMED CT concept of the subset that DICOM uses."""
    return CodedConcept(value, "SCT", meaning)


def dcm(value: str, meaning: str) -> CodedConcept:
    """Return a concept of DICOM's own terminology, PS3.16."""
    return CodedConcept(value, "DCM", meaning)


def own(value: str, meaning: str) -> CodedConcept:
    """Return a concept of this program's scheme."""
    return CodedConcept(value, SCHEME, meaning)


def unit(value: str, meaning: str) -> CodedConcept:
    """Return a unit of UCUM."""
    return CodedConcept(value, "UCUM", meaning)


def schemes() -> list[CodingSchemeIdentificationItem]:
    """Return the identification of this program's scheme, which objects with its codes must hold."""
    return [CodingSchemeIdentificationItem(SCHEME, name="ChangeMapJoint", version="1")]


ABNORMAL = sct("49755003", "Morphologically Abnormal Structure")
NODULE, LESION = sct("27925004", "Nodule"), sct("52988006", "Lesion")
LUNG = sct("39607008", "Lung")
SIDES = {"right": sct("24028007", "Right"), "left": sct("7771000", "Left")}
PROCEDURE = CodedConcept("24627-2", "LN", "CT Chest")
KINDS: dict[Kind, CodedConcept] = {
    "new": sct("129721008", "New finding"),
    "grown": sct("15454001", "Increased size"),
    "shrunk": sct("19776001", "Decreased size"),
    "resolved": sct("413322009", "Problem resolved"),
    "increase": own("DENSER", "Denser than before"),
    "decrease": own("LESSDENSE", "Less dense than before"),
}
KIND = own("CHANGE", "Change since the prior scan")
TEXTURE = own("TEXTURE", "Texture of the nodule")
TEXTURES = {
    "solid": own("SOLID", "Solid"),
    "part-solid": own("PARTSOLID", "Part-solid"),
    "ground-glass": dcm("112120", "Ground glass opacity"),
}
CALCIUM, CALCIFIED = own("CALCIUM", "Calcium"), sct("237897009", "Calcified")
PLACE, SUBPLEURAL = own("PLACE", "Place in the lung"), dcm("112153", "Subpleural")
THIRDS = {
    "upper": own("UPPER", "Upper third of the lung"),
    "middle": own("MIDDLE", "Middle third of the lung"),
    "lower": own("LOWER", "Lower third of the lung"),
}
VERDICT = own("VERDICT", "Verdict on the registration")
VERDICTS = {
    "good": own("GOOD", "Good"),
    "look closely": own("LOOKCLOSELY", "Look closely"),
    "do not use": own("DONOTUSE", "Do not use"),
}
DECISION = own("DECISION", "Decision of the reader")
DECISIONS = {"accepted": own("ACCEPTED", "Accepted"), "rejected": own("REJECTED", "Rejected")}
USE, RESEARCH_USE = own("USE", "Intended use"), own("RESEARCH", "Research use, not a medical device")
MEAN, MAXIMUM = sct("373098007", "Mean"), sct("56851009", "Maximum")
TOTAL = sct("255619001", "Total")

VOLUME = sct("118565006", "Volume")
LONG_AXIS, SHORT_AXIS = sct("103339001", "Long Axis"), sct("103340004", "Short Axis")
DIAMETER = sct("81827009", "Diameter")
ATTENUATION = dcm("112031", "Attenuation Coefficient")
MASS = sct("118538004", "Mass")
PROBABILITY = own("PROBABILITY", "Probability that a lesion changed")
TRUST = own("TRUST", "Trust in the registration")
PEAK = own("PEAK", "Highest value of the change map")
REGION = own("REGION", "Volume of the region of change")
VOLUME_CHANGE = own("VOLCHANGE", "Change of volume since the prior scan")
DIAMETER_CHANGE = own("DIACHANGE", "Change of long axis since the prior scan")
INTERVAL = own("INTERVAL", "Time since the prior scan")
DOUBLING = own("VDT", "Volume doubling time")
LOW, HIGH = "lower end of 95 % interval", "upper end of 95 % interval"
KEYPOINT_ERROR = own("KEYPOINTS", "Distance of matched keypoints")
WITHHELD = own("WITHHELD", "Findings withheld")
CHANGE_MAP = own("CHANGEMAP", f"Change since the prior scan, 1 is {FULL_SCALE_HU:g} HU")

MM, ML, MG, PERCENT = unit("mm", "millimeter"), unit("ml", "milliliter"), unit("mg", "milligram"), unit("%", "percent")
DAY, HU, ONE = unit("d", "day"), unit("[hnsf'U]", "Hounsfield unit"), unit("1", "no units")
IMAGE_CONTENT = dcm("125024", "Image Content-based Alignment")


def interval_end(concept: CodedConcept, end: str) -> CodedConcept:
    """Return the concept of one end of a confidence interval: ``VDT_LOW`` for the lower end of ``VDT``.

    Args:
        concept: what the interval is of.
        end: :data:`LOW` or :data:`HIGH`.
    """
    suffix = "LOW" if end == LOW else "HIGH"
    name = concept.value if concept.scheme_designator == SCHEME else concept.meaning.upper().replace(" ", "")
    return own(f"{name}_{suffix}", f"{concept.meaning}, {end}"[:64])
