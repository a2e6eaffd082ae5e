"""What a reader chooses to see, and what of it can be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, SMALLEST_REGION_VOX
from ChangeMapJointLib.change.sections import DEFAULT_OPERATING_POINT
from ChangeMapJointLib.core.hu import WINDOWS_HU
from ChangeMapJointLib.scene.keys import threshold_step
from ChangeMapJointLib.scene.map_files import SIGNED

MAP_TITLES = {
    "change_combined": "Combined change (CM_comb)",
    "change_learned": "Learned change (CM_learn)",
    "change_difference": "Difference after joint registration (CM_diff)",
    "change_map": "Change map (CM_seq)",
    SIGNED: "Signed difference",
}
CHECKS = {
    "none": "None (change map)",
    "jacobian": "Jacobian: local growth and shrinkage",
    "displacement": "Displacement in mm",
    "trust": "Trust",
}
PRIORS = ("acquired", "warped")
NO_CHECK = "none"
DEFAULT_OPACITY, LOWEST_THRESHOLD = 0.7, 0.05
LARGEST_SMALLEST_VOX = 100_000


@dataclass(frozen=True)
class Settings:
    """What the reader chose to see.

    Attributes:
        map: key of the change map.
        threshold: of the map, in (0, 1].
        overlay: show the map at all.
        increases: show what is denser now.
        decreases: show what is less dense now.
        opacity: of the map, in [0, 1].
        smallest: size in voxels from which a region of the list by the map is listed.
        edges: draw the outlines of the warped prior.
        untrusted: hatch where the registration cannot be trusted.
        check: shown instead of the map: a key of :data:`CHECKS`.
        prior: ``acquired`` or ``warped``.
        window: of the CTs.
        listed: the list: an operating point, or by the map.
        flicker: the current views show the warped prior.
    """

    map: str = "change_map"
    threshold: float = DEFAULT_THRESHOLD
    overlay: bool = False
    increases: bool = True
    decreases: bool = True
    opacity: float = DEFAULT_OPACITY
    smallest: int = SMALLEST_REGION_VOX
    edges: bool = False
    untrusted: bool = True
    check: str = NO_CHECK
    prior: str = "acquired"
    window: str = "lung"
    listed: str = DEFAULT_OPERATING_POINT
    flicker: bool = False


def of_its_kind(name: str, value: Any) -> Any:
    """Return what a page sent for a setting as a value of the setting's type.

    Raises:
        KeyError: there is no such setting.
        ValueError: the value cannot be one of that type.

    Examples:
        >>> of_its_kind("threshold", 1), of_its_kind("smallest", 5.0), of_its_kind("edges", 1)
        (1.0, 5, True)
    """
    kind: Any = type({field.name: field.default for field in fields(Settings)}[name])
    return kind(value)


def changed(settings: Settings, values: Mapping[str, Any], *, maps: Sequence[str], lists: Sequence[str]) -> Settings:
    """Return the settings with other values; numbers out of range are limited.

    Args:
        settings: as they are.
        values: new ones by their names.
        maps: keys of the maps that can be chosen; empty if there is none.
        lists: keys of the lists that can be chosen.

    Raises:
        ValueError: a choice is unknown.
    """
    new = replace(settings, **values)
    choices = {
        "map": tuple(maps) or ("",),
        "check": tuple(CHECKS),
        "prior": PRIORS,
        "window": tuple(WINDOWS_HU),
        "listed": tuple(lists),
    }
    for name, allowed in choices.items():
        if getattr(new, name) not in allowed:
            raise ValueError(f"{name} {getattr(new, name)!r}")
    return replace(
        new,
        threshold=round(min(max(new.threshold, LOWEST_THRESHOLD), 1.0), 3),
        opacity=round(min(max(new.opacity, 0.0), 1.0), 2),
        smallest=min(max(new.smallest, 1), LARGEST_SMALLEST_VOX),
    )


def stepped(threshold: float, sign: int) -> float:
    """Return the threshold one step higher (+1) or lower (-1), by the steps of the keys.

    Examples:
        >>> round(stepped(0.3, -1), 3), round(stepped(0.3, 1), 3)
        (0.295, 0.32)
    """
    return threshold + sign * threshold_step(threshold + 1e-6 * sign)
