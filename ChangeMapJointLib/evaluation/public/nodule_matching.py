"""Nodule matching over time: how many nodules of both exams were detected in both and linked to each other.

A nodule counts as detected in a scan if a detection lies within ``hit_mm`` of it; the nearest one is it. It counts as
matched if it was detected in both and these two detections were linked. The rate is matched nodules by all nodules of
both exams, the figure that is published for automatic matching (detected and matched, 87 %).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ChangeMapJointLib.core.grid import FloatArray, Vector3
from ChangeMapJointLib.evaluation.public.pairs import AnnotatedNodule

HIT_MM = 5.0
LINK_MM = 15.0
Links = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class MatchingScore:
    """Counts over the nodules of one pair, or of several added up.

    Attributes:
        nodules: annotated in both exams.
        detected: of these, detected in both.
        matched: of these, linked correctly.
        wrong_links: links between detections of two different nodules.
    """

    nodules: int
    detected: int
    matched: int
    wrong_links: int

    def __add__(self, other: MatchingScore) -> MatchingScore:
        return MatchingScore(
            self.nodules + other.nodules,
            self.detected + other.detected,
            self.matched + other.matched,
            self.wrong_links + other.wrong_links,
        )

    @property
    def rate(self) -> float:
        """Detected and matched by all; NaN without any nodule."""
        return self.matched / self.nodules if self.nodules else float("nan")


def link_detections(
    current_mm: FloatArray,
    prior_mm: FloatArray,
    mapping: Callable[[FloatArray], FloatArray],
    *,
    within_mm: float = LINK_MM,
) -> Links:
    """Link detections of both scans one to one, so that the sum of their distances under y is smallest.

    Args:
        current_mm: detections in the current scan, ``[n, 3]`` in mm, LPS.
        prior_mm: detections in the prior, ``[m, 3]``.
        mapping: y: points of the current scan to the prior, such as ``deformation.map_points``.
        within_mm: links that are longer under y are not made.

    Returns:
        Pairs of indices.

    Examples:
        >>> now, before = np.array([[0.0, 0, 0], [50, 0, 0]]), np.array([[58.0, 0, 0], [11, 0, 0], [99, 0, 0]])
        >>> sorted(link_detections(now, before, lambda points: points + [10.0, 0, 0]))
        [(0, 1), (1, 0)]
    """
    if not len(current_mm) or not len(prior_mm):
        return frozenset()
    distance = cdist(mapping(np.asarray(current_mm, float)), prior_mm)
    cost = np.where(distance <= within_mm, distance, 1e6)  # as many links as possible first
    rows, columns = linear_sum_assignment(cost)
    return frozenset((int(i), int(j)) for i, j in zip(rows, columns, strict=True) if distance[i, j] <= within_mm)


def score_matching(
    nodules: Sequence[AnnotatedNodule],
    current_mm: FloatArray,
    prior_mm: FloatArray,
    links: Links,
    *,
    hit_mm: float = HIT_MM,
) -> MatchingScore:
    """Score detections and their links against annotated nodules.

    Args:
        nodules: of the pair; those of one exam alone count for wrong links only.
        current_mm: detections in the current scan, ``[n, 3]`` in mm, LPS.
        prior_mm: detections in the prior, ``[m, 3]``.
        links: between both, pairs of indices.
        hit_mm: how near to a nodule a detection must be.

    Examples:
        >>> nodules = [AnnotatedNodule("a", (0, 0, 0), (5, 0, 0)), AnnotatedNodule("b", (50, 0, 0), (55, 0, 0))]
        >>> nodules.append(AnnotatedNodule("c", (90, 0, 0), None))
        >>> now, before = np.array([[1.0, 0, 0], [90, 0, 0]]), np.array([[5.0, 1, 0], [55, 0, 0]])
        >>> score_matching(nodules, now, before, frozenset({(0, 0), (1, 1)}))
        MatchingScore(nodules=2, detected=1, matched=1, wrong_links=1)
    """
    now = [_nearest(n.reference_mm, current_mm, hit_mm) for n in nodules]
    before = [_nearest(n.template_mm, prior_mm, hit_mm) for n in nodules]
    both = [k for k, n in enumerate(nodules) if n.reference_mm is not None and n.template_mm is not None]
    detected = [k for k in both if now[k] is not None and before[k] is not None]
    matched = sum((now[k], before[k]) in links for k in detected)
    true = {(now[k], before[k]) for k in detected}
    known_now, known_before = set(now) - {None}, set(before) - {None}
    wrong = sum(link not in true and link[0] in known_now and link[1] in known_before for link in links)
    return MatchingScore(len(both), len(detected), matched, wrong)


def _nearest(place: Vector3 | None, detections: FloatArray, hit_mm: float) -> int | None:
    """The detection nearest to a nodule; None where none is near enough."""
    if place is None or not len(detections):
        return None
    distance = np.linalg.norm(np.asarray(detections) - place, axis=1)
    nearest = int(np.argmin(distance))
    return nearest if distance[nearest] <= hit_mm else None
