"""The lesions behind regions of change; regions of one sign that lie in one lesion are one change."""

from __future__ import annotations

from functools import partial

from ChangeMapJointLib.change.lesion_pairs import Change, LesionPair, LocalMotion, find_lesion_pair, local_motions
from ChangeMapJointLib.change.regions import Region
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.parallel import run_parallel
from ChangeMapJointLib.lesions.measure import Lesion, MeasureOptions
from ChangeMapJointLib.scan.scan import Scan

_THREADS = 2  # more would wait for the interpreter


def measure_lesions(
    regions: list[Region],
    grid: Grid,
    field: DisplacementField,
    reference: Scan,
    template: Scan,
    *,
    options: MeasureOptions,
) -> list[Change]:
    """Find the lesion behind each region; regions of the same sign in one lesion are merged.

    Args:
        regions: in the order in which they are measured; one that lies in the lesion of an earlier one joins it.
        grid: grid of the change map.
        field: y from R to T.
        reference: the current scan R.
        template: the prior scan T.
        options: options of the measurement.
    """
    motions = local_motions(regions, grid, field)

    def pairs_of(first: int) -> list[LesionPair]:
        """Every ``_THREADS``-th region's pair."""
        return [
            find_lesion_pair(region, grid, motion, reference=reference, template=template, options=options)
            for region, motion in zip(regions[first::_THREADS], motions[first::_THREADS], strict=True)
        ]

    # a region that joins an earlier one is measured in vain, but few do, and all can be measured in parallel
    found = run_parallel([partial(pairs_of, first) for first in range(_THREADS)], lambda: None)
    pairs = [found[i % _THREADS][i // _THREADS] for i in range(len(regions))]
    remaining = list(range(len(regions)))
    changes = []
    while remaining:
        first = remaining.pop(0)
        region, motion = regions[first], motions[first]
        pair = pairs[first]
        lesion = pair.primary(region.sign)
        if lesion is not None:
            same = [i for i in remaining if _lies_in_lesion(regions[i], region.sign, lesion, motion, grid)]
            remaining = [i for i in remaining if i not in same]
            region = region.merged_with([regions[i] for i in same])
        changes.append(Change(region, motion, pair))
    return changes


def _lies_in_lesion(region: Region, sign: int, lesion: Lesion, motion: LocalMotion, grid: Grid) -> bool:
    """Whether most of ``region`` lies in a lesion that was found from another region, of sign ``sign``."""
    if region.sign != sign:
        return False
    points = region.points_mm(grid)
    points = points if sign > 0 else motion.to_template(points)
    return lesion.may_contain(points) and lesion.contains(points, margin_mm=max(grid.spacing_mm)).mean() > 0.5
