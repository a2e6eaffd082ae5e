"""The same lesion through several scans: linked by the deformations, measured in each scan on its own grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ChangeMapJointLib.change.findings import Finding, Findings
from ChangeMapJointLib.change.lesion_pairs import find_again
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.lesions.course import CoursePoint
from ChangeMapJointLib.lesions.measure import Lesion, LesionMeasure, MeasureOptions, segment_lesion
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.scan import Scan

_SEED_SHARE = 0.5  # radius of the seed, of the lesion's, which a long diameter overstates
_SAME_MM = 3.0  # error of the registration that is allowed for
_SAME_VOLUME = 2.0  # ratio of the volume of a listed lesion, and of the one that is found again at its centre
_SIDES = {1: "right", 2: "left"}


@dataclass(frozen=True)
class SeriesLink:
    """One comparison of a series.

    Attributes:
        later: number of the current scan.
        earlier: number of the prior.
        deformation: maps points of the current scan to the prior.
        findings: of the comparison; None where it lists none.
        name: of the comparison.
    """

    later: int
    earlier: int
    deformation: Deformation
    findings: Findings | None
    name: str = ""


@dataclass(frozen=True)
class Mention:
    """A finding of a comparison that belongs to a track.

    Attributes:
        link: name of the comparison.
        id: of the finding in it.
        kind: of the finding.
    """

    link: str
    id: int
    kind: str


@dataclass(frozen=True)
class Track:
    """One lesion through all scans.

    Attributes:
        id: 1, 2, ..., the largest first.
        lung: the patient's side; empty where it lies in no lung mask.
        anchor: number of the scan in which it is largest, from which it was looked for in the others.
        points: one per scan.
        mentions: findings that belong to it.
    """

    id: int
    lung: str
    anchor: int
    points: tuple[CoursePoint, ...]
    mentions: tuple[Mention, ...] = ()


def track_lesions(
    scans: Sequence[Scan], links: Sequence[SeriesLink], *, options: MeasureOptions | None = None
) -> tuple[Track, ...]:
    """Follow every lesion that a comparison lists as a finding through all scans.

    Args:
        scans: in the order of time.
        links: the comparisons; a scan that none of them joins to a lesion's own scan leaves the lesion unknown there.
        options: options of the measurement.

    Returns:
        The lesions, the largest first. A finding without a lesion that can be segmented makes no track.
    """
    options = options or MeasureOptions()
    seeds = _seeds(links)
    open_tracks: list[_Open] = []
    for seed in sorted(seeds, key=lambda one: -one.measure.volume_ml):
        track = next((one for one in open_tracks if one.holds(seed)), None)
        if track is None:
            track = _follow(seed, scans, links, options)
            if track is None:
                continue
            same = next((one for one in open_tracks if one.is_same(track)), None)
            if same is None:
                open_tracks.append(track)
            track = same or track
        track.mentions[seed.mention.link, seed.mention.id] = seed.mention
    return tuple(one.closed(number, scans) for number, one in enumerate(open_tracks, start=1))


def map_points(links: Sequence[SeriesLink], start: int, end: int) -> Callable[[FloatArray], FloatArray] | None:
    """Return the map of points from one scan to another over the fewest comparisons; None where none joins them.

    Args:
        links: the comparisons.
        start: number of the scan in which the points are.
        end: number of the scan to map them to.
    """
    steps: dict[int, tuple[int, Callable[[FloatArray], FloatArray]]] = {}
    waiting = deque([start])
    while waiting and end not in steps:
        here = waiting.popleft()
        for link in links:
            for there, origin, move in (
                (link.earlier, link.later, link.deformation.apply),
                (link.later, link.earlier, link.deformation.invert),
            ):
                if origin == here and there != start and there not in steps:
                    steps[there] = (here, move)
                    waiting.append(there)
    if start != end and end not in steps:
        return None
    moves: list[Callable[[FloatArray], FloatArray]] = []
    place = end
    while place != start:
        place, step = steps[place]
        moves.insert(0, step)

    def mapped(points: FloatArray) -> FloatArray:
        for move in moves:
            points = move(points)
        return points

    return mapped


@dataclass(frozen=True)
class _Seed:
    time: int
    measure: LesionMeasure
    mention: Mention


@dataclass
class _Open:
    """A track that is being made."""

    anchor: int
    lesions: dict[int, Lesion]
    empty: set[int]
    mentions: dict[tuple[str, int], Mention] = field(default_factory=dict)

    def holds(self, seed: _Seed) -> bool:
        """Whether a listed lesion is this one."""
        lesion = self.lesions.get(seed.time)
        centre = np.asarray([seed.measure.centre_mm])
        return lesion is not None and bool(lesion.contains(centre, margin_mm=_SAME_MM)[0])

    def is_same(self, other: _Open) -> bool:
        """Whether both are one lesion in some scan."""
        shared = self.lesions.keys() & other.lesions.keys()
        centres = [(self.lesions[time], np.asarray([other.lesions[time].measure.centre_mm])) for time in shared]
        return any(bool(lesion.contains(centre)[0]) for lesion, centre in centres)

    def closed(self, number: int, scans: Sequence[Scan]) -> Track:
        """The finished track."""
        points = tuple(
            CoursePoint("measured", self.lesions[time].measure)
            if time in self.lesions
            else CoursePoint("absent" if time in self.empty else "unknown")
            for time in range(len(scans))
        )
        side = int(scans[self.anchor].lung_at(np.asarray([self.lesions[self.anchor].measure.centre_mm]))[0])
        return Track(number, _SIDES.get(side, ""), self.anchor, points, tuple(self.mentions.values()))


def _seeds(links: Sequence[SeriesLink]) -> list[_Seed]:
    """Every lesion that is measured in a finding, in either scan."""
    seeds = []
    for link in links:
        for item in link.findings.items if link.findings is not None else ():
            mention = Mention(link.name, item.id, item.kind)
            for time, measure in ((link.later, item.lesion_reference), (link.earlier, item.lesion_template)):
                if measure is not None and _is_larger(item, measure):
                    seeds.append(_Seed(time, measure, mention))
    return seeds


def _is_larger(item: Finding, measure: LesionMeasure) -> bool:
    both = [one.volume_ml for one in (item.lesion_reference, item.lesion_template) if one is not None]
    return measure.volume_ml == max(both)


def _follow(seed: _Seed, scans: Sequence[Scan], links: Sequence[SeriesLink], options: MeasureOptions) -> _Open | None:
    """Segment a listed lesion again, and look for it in all other scans; None where it is not found again."""
    anchor = _segment(scans[seed.time], seed.measure, options)
    if anchor is None:
        return None
    track = _Open(seed.time, {seed.time: anchor}, set())
    for time in sorted(range(len(scans)), key=lambda one: abs(one - seed.time)):
        if time == seed.time:
            continue
        answers = []
        near = min(track.lesions, key=lambda one: abs(one - time))
        for origin in dict.fromkeys((seed.time, near)):  # what changed much since is more like its neighbour in time
            to_other, to_scan = map_points(links, origin, time), map_points(links, time, origin)
            if to_other is None or to_scan is None:
                continue
            lesion, empty = find_again(
                track.lesions[origin], scans[origin], scans[time], to_other=to_other, to_scan=to_scan, options=options
            )
            if lesion is not None:
                track.lesions[time] = lesion
                break
            answers.append(empty)
        if time not in track.lesions and answers and all(answers):
            track.empty.add(time)
    return track


def _segment(scan: Scan, measure: LesionMeasure, options: MeasureOptions) -> Lesion | None:
    """The lesion at the centre of a measured one; None where it is another."""
    radius = max(_SEED_SHARE * 0.5 * measure.perpendicular_diameter_mm, 0.5)
    steps = np.linspace(-radius, radius, 5)
    ball = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    seed = np.asarray(measure.centre_mm) + ball[(ball**2).sum(axis=1) <= radius**2 + 1e-9]
    lesion = segment_lesion(scan.volume, scan.lungs.labels, seed, slack_mm=1.0, options=options)
    if lesion is None:
        return None
    ratio = lesion.measure.volume_ml / measure.volume_ml if measure.volume_ml > 0 else np.inf
    return lesion if 1 / _SAME_VOLUME <= ratio <= _SAME_VOLUME else None
