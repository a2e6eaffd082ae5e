"""The judge: how probable it is that a lesion really changed, and what explains a change where none did.

A logistic model weighs the features of a change. Its coefficients lie in ``Resources/Models/judge.json``, with the
patients that they were fitted on (``Testing/benchmarks/judge.py``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache

from ChangeMapJointLib.change.features import Features
from ChangeMapJointLib.change.judgement import Judgement
from ChangeMapJointLib.change.sections import OPERATING_POINTS, OperatingPoint, Reason
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.sources import reason_of

UNMEASURABLE = 0.9  # times the lowest operating point: the highest probability of a change of one or two voxels
_UNUSED = ("nameless", "learned")  # follows from others; not measured by the sequential method
_PLAIN = tuple(f.name for f in fields(Features) if f.name not in _UNUSED)
_PRODUCTS = (
    *(("appeared", name) for name in ("size", "contrast", "rim", "along_surface", "gap", "distrust", "restless")),
    *(("appeared", name) for name in ("attached", "at_wall", "opposite", "prominence", "lesion_length", "fullness")),
    *(("changed", name) for name in ("size", "rim", "gap", "distrust", "restless", "attached", "at_wall", "opposite")),
    *(("changed", name) for name in ("growth", "prominence", "covered", "region_length")),
    *(("unproven", name) for name in ("growth", "prominence", "rim", "attached")),
    *(("nameless", name) for name in ("rim", "region_length", "prominence", "size", "opposite", "restless", "gap")),
    ("rim", "gap"),
    ("rim", "along_surface"),
    ("rim", "at_wall"),
    ("gap", "restless"),
    ("attached", "gap"),
    ("size", "size"),
    ("prominence", "significance"),
)
TERMS = (*_PLAIN, *(f"{a}*{b}" for a, b in _PRODUCTS))
"""Names of the terms of the model: features, and products of two."""


def terms(features: Features) -> list[float]:
    """The values of :data:`TERMS`."""
    plain = [getattr(features, name) for name in _PLAIN]
    return [*plain, *(getattr(features, a) * getattr(features, b) for a, b in _PRODUCTS)]


@dataclass(frozen=True)
class JudgeModel:
    """The coefficients of the judge.

    Attributes:
        constant: the constant term.
        coefficients: one for each of :data:`TERMS`.
        operating_points: probability from which a change is a finding.
    """

    constant: float
    coefficients: tuple[float, ...]
    operating_points: dict[OperatingPoint, float]

    def probability(self, features: Features) -> float:
        """How probable it is that a lesion really changed, 0 to 1.

        Raises:
            ValueError: a feature is not a finite number; a probability made of it would look like any other.
        """
        broken = not_finite(features)
        if broken:
            raise ValueError(f"JudgeModel.probability() needs finite features, got {', '.join(broken)}")
        weighed = zip(self.coefficients, terms(features), strict=True)
        logit = self.constant + sum(weight * value for weight, value in weighed)
        return 1.0 / (1.0 + math.exp(-min(max(logit, -30.0), 30.0)))


@cache
def read_judge() -> JudgeModel:
    """Read the coefficients that ship.

    Raises:
        InputError: they are missing, or do not fit this version.
    """
    path = resource("Models", "judge.json")
    try:
        content = json.loads(path.read_text("utf-8"))
        coefficients = tuple(float(content["coefficients"][name]) for name in TERMS)
        points: dict[OperatingPoint, float] = {
            name: float(content["operating_points"][name]) for name in OPERATING_POINTS
        }
        return JudgeModel(float(content["constant"]), coefficients, points)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"does not hold the judge's coefficients ({type(error).__name__}: {reason_of(error)})",
            field=path,
            remedy="install the program again",
        ) from error


def judge_change(
    features: Features, operating_point: OperatingPoint, model: JudgeModel | None = None, *, measurable: bool = True
) -> Judgement:
    """Judge one change.

    Args:
        features: of the change.
        operating_point: how probable a finding must be.
        model: the coefficients; those that ship by default.
        measurable: whether its region has voxels enough for its features to mean what they say; otherwise it is
            possible at most, at any operating point.
    """
    model = model or read_judge()
    if not_finite(features):  # nothing is known of it: neither a finding nor explained away
        return Judgement(UNMEASURABLE * min(model.operating_points.values()), "possible")
    probability = model.probability(features)
    if not measurable:
        probability = min(probability, UNMEASURABLE * min(model.operating_points.values()))
    if probability >= listed_from(features, operating_point, model):
        return Judgement(probability, "finding")
    reason = explain(features)
    if is_unchanged(features) and not features.massive and reason not in ("wall", "vessel"):
        return Judgement(probability, "stable")
    faint = probability < model.operating_points["sensitive"]
    if reason is None or not (faint or reason in _SURE):
        return Judgement(probability, "possible")
    return Judgement(probability, "explained", reason)


def not_finite(features: Features) -> list[str]:
    """Names of the features that are no finite numbers."""
    return [field.name for field in fields(features) if not math.isfinite(getattr(features, field.name))]


def listed_from(features: Features, operating_point: OperatingPoint, model: JudgeModel) -> float:
    """The probability from which a change is a finding.

    It is that of the operating point; except with ``sensitive``, at least that of ``specific`` where a reason holds
    against the change; and out of reach for a lesion that is measured in both scans without a proven change.
    """
    if is_unchanged(features):
        return math.inf
    least, specific = model.operating_points[operating_point], model.operating_points["specific"]
    doubtful = operating_point != "sensitive" and explain(features) in _SURE
    return max(least, specific) if doubtful else least


def is_unchanged(features: Features) -> bool:
    """Whether a lesion is measured in both scans and its volume does not differ by more than the measurement error."""
    return features.unproven > 0 and features.growth != 0


_SURE = ("displaced", "wall", "registration")  # these hold against a change that is fairly probable, too
_REASONS: tuple[tuple[Reason, Callable[[Features], bool]], ...] = (
    ("displaced", lambda f: f.displaced > 0 or f.opposite > 0.7),
    ("wall", lambda f: f.rim > 0.5 and (f.along_surface > 0.25 or f.beyond > 0.2 or f.region_length > 1.1)),
    ("wall", lambda f: f.rim > 0.25 and f.along_surface > 0.25),
    ("vessel", lambda f: f.region_length > 1.1 or f.lesion_length > 0.9),
    ("registration", lambda f: f.distrust > 0.5 or f.gap > 1.0 or f.restless > 0.6 or f.prominence < 0.35),
    ("vessel", lambda f: f.attached > 0.25 or (f.nameless > 0 and f.coarseness == 0 and f.region_length > 0.7)),
    ("diffuse", lambda f: f.coarseness == 1 and f.contrast < 0.25),
    ("acquisition", lambda f: f.nameless > 0 and f.significance < 2.3),
)


def explain(features: Features) -> Reason | None:
    """What explains a change without a lesion; None where nothing does."""
    return next((reason for reason, holds in _REASONS if holds(features)), None)
