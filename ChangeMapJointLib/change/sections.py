"""The sections of the list of changes, and the reasons that explain a change away, in words for the reader.

A change is *measured in both scans* and then *judged*: how probable is it that a lesion really changed? What is
probable enough is a finding. The rest is kept and folded: nothing that was measured is dropped in silence.
"""

from __future__ import annotations

from typing import Literal, get_args

Section = Literal["finding", "possible", "explained", "stable"]
"""Where a change is listed:

- ``finding``: a lesion probably changed;
- ``possible``: a lesion may have changed, but it is less probable than the operating point asks for;
- ``explained``: an error of the registration or a difference of the acquisition, with its reason;
- ``stable``: a lesion that both scans show, without a proven change.
"""
SECTIONS: tuple[Section, ...] = get_args(Section)
SECTION_TITLES: dict[Section, str] = {
    "finding": "Findings",
    "possible": "Possible",
    "explained": "Explained",
    "stable": "Stable",
}
SECTION_HINTS: dict[Section, str] = {
    "finding": "a lesion probably changed",
    "possible": "a lesion may have changed; less probable than a finding",
    "explained": "registration or acquisition, with the reason",
    "stable": "lesions that both scans show, without a proven change",
}

Reason = Literal["wall", "displaced", "vessel", "registration", "acquisition", "diffuse"]
REASONS: dict[Reason, str] = {
    "wall": "It lies along the surface of the lung, long or thin: the borders of the lung do not match exactly there.",
    "displaced": "An opposite change of the same size lies beside it: one structure that was left displaced.",
    "vessel": "It runs along a vessel or another thin structure that the registration did not match exactly.",
    "registration": "The registration is uncertain here: the surroundings or the surfaces of the lungs do not match.",
    "acquisition": "It is no stronger than noise and blur make such places in these two scans.",
    "diffuse": "A wide, faint change of density without a border, as with another depth of breathing.",
}

OperatingPoint = Literal["sensitive", "standard", "specific"]
OPERATING_POINTS: tuple[OperatingPoint, ...] = get_args(OperatingPoint)
DEFAULT_OPERATING_POINT: OperatingPoint = "standard"
BY_MAP = "map"  # the list of the map's regions; the other lists are operating points
OPERATING_POINT_HINTS: dict[OperatingPoint, str] = {
    "sensitive": "more findings, 0.4 false ones in a scan when tested",
    "standard": "0.1 false findings in a scan when tested",
    "specific": "only what is nearly certain, 0.1 false findings in a scan when tested",
}
"""With the false findings that were measured on synthetic pairs of patients left out (``results/findings.json``)."""
NOTHING_SEEN = (
    "Any change at all: the registration failed, so there is no map and no list. No lesion of any size, new or grown, "
    "is excluded; compare the two scans side by side."
)
"""What a comparison cannot see whose verdict is ``do not use``."""


def reason_sentence(reason: str | None) -> str:
    """The sentence for a reason; empty for None, the name itself for one that only a newer version knows.

    Examples:
        >>> reason_sentence("wall").split(":")[0]
        'It lies along the surface of the lung, long or thin'
        >>> reason_sentence(None)
        ''
    """
    if reason is None:
        return ""
    return next((sentence for key, sentence in REASONS.items() if key == reason), reason)
