"""What a finding is and where it lies, in the words of a report; one source for report, panel and text."""

from __future__ import annotations

from ChangeMapJointLib.change.finding import Lung
from ChangeMapJointLib.change.location import Third
from ChangeMapJointLib.lesions.nodule_type import Extent, Texture


def place_words(lung: Lung, third: Third | None) -> str:
    """Where a finding lies.

    Examples:
        >>> place_words("right", "upper"), place_words("left", None)
        ('right, upper third', 'left')
    """
    return lung if third is None else f"{lung}, {third} third"


def nodule_words(
    texture: Texture | None, extent: Extent = "whole", *, calcified: bool = False, juxtapleural: bool = False
) -> str:
    """What kind of nodule it is; empty where nothing is known.

    Examples:
        >>> nodule_words("part-solid", "solid part", juxtapleural=True)
        'part-solid (solid part measured), at the pleura'
        >>> nodule_words("solid", calcified=True)
        'solid, calcified'
    """
    measured = f" ({extent} measured)" if extent != "whole" else ""
    parts = [
        "" if texture is None else texture.replace("ground-glass", "ground glass") + measured,
        "calcified" if calcified else "",
        "at the pleura" if juxtapleural else "",
    ]
    return ", ".join(part for part in parts if part)


def doubling_words(days: float | None, interval: tuple[float, float | None] | None) -> str:
    """The volume doubling time with its interval in days; empty where there is none.

    Examples:
        >>> doubling_words(211.4, (160.2, 320.0))
        '211 days (160 to 320)'
        >>> doubling_words(900.0, (300.0, None))
        '900 days (300 or more; no growth is possible)'
    """
    if days is None:
        return ""
    if interval is None:
        return f"{days:.0f} days"
    fastest, slowest = interval
    end = "or more; no growth is possible" if slowest is None else f"to {slowest:.0f}"
    return f"{days:.0f} days ({fastest:.0f} {end})"
