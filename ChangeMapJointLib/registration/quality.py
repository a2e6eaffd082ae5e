"""Quality figures of a registration, and a verdict that a reader can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU

if TYPE_CHECKING:  # it needs torch, which Slicer lacks until the first run
    from ChangeMapJointLib.registration.surface_agreement import SurfaceAgreement

Verdict = Literal["good", "look closely", "do not use"]
LOW_TRUST = 0.5  # below it the predicted error exceeds TrustOptions.half_error_mm


@dataclass(frozen=True)
class Figures:
    """What was measured of a registration, over the reference's lungs unless said otherwise.

    Attributes:
        residual_hu: mean |R - T(y)|, clipped to the window of change maps.
        residual_rigid_hu: the same after the rigid part alone.
        folding_percent: percentage of voxels with det grad y <= 0.
        jacobian_min: smallest det grad y.
        jacobian_max: largest det grad y.
        sd_log_jacobian: standard deviation of log det grad y where det > 0.
        lung_dice: overlap of R's lungs with T(y)'s.
        lung_dice_rigid: the same after the rigid part alone.
        inverse_consistency_mm: mean forward-backward error; None where no backward registration was computed.
        inverse_consistency_p95_mm: its 95th percentile.
        keypoint_error_mm: mean distance that remains between matched keypoints. The registration used them, so this
            is a residual, not an independent error.
        keypoints_found: keypoints of the reference that were searched for in the template; None where none were.
        keypoints_dropped: keypoints among them that the backward search did not confirm.
        overlap: fraction of R's lungs inside the template's field of view, in [0, 1].
        trusted_percent: percentage of lung voxels with a trust of at least :data:`LOW_TRUST`; None with rigid
            alignment alone.
        surface_mean_mm: mean distance between the surfaces of R's and T's lungs after registration. The registration
            drew them together, so this is a residual. None where it was not measured.
        surface_p95_mm: its 95th percentile.
        surface_max_mm: the largest distance; 40 or more is not told apart.
        surface_ribs_mean_mm: the mean where the lungs face the chest wall. None, as the next figures, where R shows
            hardly any of this part of the surface.
        surface_ribs_p95_mm: the 95th percentile there.
        surface_ribs_max_mm: the largest distance there.
        surface_diaphragm_mean_mm: the mean where they face down.
        surface_diaphragm_p95_mm: the 95th percentile there.
        surface_diaphragm_max_mm: the largest distance there.
        surface_mediastinum_mean_mm: the mean where they face the midline.
        surface_mediastinum_p95_mm: the 95th percentile there.
        surface_mediastinum_max_mm: the largest distance there.
    """

    residual_hu: float
    residual_rigid_hu: float
    folding_percent: float
    jacobian_min: float
    jacobian_max: float
    sd_log_jacobian: float
    lung_dice: float
    lung_dice_rigid: float
    inverse_consistency_mm: float | None
    inverse_consistency_p95_mm: float | None
    keypoint_error_mm: float | None
    keypoints_found: int | None
    keypoints_dropped: int | None
    overlap: float
    trusted_percent: float | None
    surface_mean_mm: float | None = None
    surface_p95_mm: float | None = None
    surface_max_mm: float | None = None
    surface_ribs_mean_mm: float | None = None
    surface_ribs_p95_mm: float | None = None
    surface_ribs_max_mm: float | None = None
    surface_diaphragm_mean_mm: float | None = None
    surface_diaphragm_p95_mm: float | None = None
    surface_diaphragm_max_mm: float | None = None
    surface_mediastinum_mean_mm: float | None = None
    surface_mediastinum_p95_mm: float | None = None
    surface_mediastinum_max_mm: float | None = None


@dataclass(frozen=True)
class Quality(Figures):
    """Figures, the verdict, and the reasons for it, one sentence each."""

    verdict: Verdict = "do not use"
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Criterion:
    """The limits of one figure.

    Attributes:
        name: the field of :class:`Figures`.
        sentence: the reason that readers see; ``{value}`` stands for the figure, ``{percent}`` for 100 times it.
        look_closely: beyond it the verdict is 'look closely', in the figure's unit.
        do_not_use: beyond it the verdict is 'do not use'.
        higher_is_worse: whether the limits are upper limits.
    """

    name: str
    sentence: str
    look_closely: float
    do_not_use: float
    higher_is_worse: bool


# where rigid alignment fits perfectly, interpolation alone raises the residual by some HU, more in thick slices
WORSE_FACTOR, WORSE_HU = 1.2, 8.0
# AAPM TG-132 asks for a mean error of 2 mm and at most 5 mm; the other limits are this project's.
CRITERIA = (
    Criterion(
        "lung_dice", "the lungs overlap by Dice {value:.3f} (usual: 0.97 or more)", 0.97, 0.90, higher_is_worse=False
    ),
    Criterion(
        "inverse_consistency_mm",
        "forward and backward registration differ by {value:.1f} mm on average",
        2.0,
        5.0,
        higher_is_worse=True,
    ),
    Criterion(
        "inverse_consistency_p95_mm",
        "forward and backward registration differ by {value:.1f} mm or more in 5 % of the lung",
        5.0,
        15.0,
        higher_is_worse=True,
    ),
    Criterion("folding_percent", "the deformation folds in {value:.2g} % of the lung", 0.0, 0.5, higher_is_worse=True),
    Criterion(
        "overlap", "{percent:.0f} % of the lungs lie in the prior's field of view", 0.98, 0.5, higher_is_worse=False
    ),
    Criterion(
        "trusted_percent", "{value:.0f} % of the lung is registered with confidence", 95.0, 70.0, higher_is_worse=False
    ),
    Criterion(  # an effusion or a collapse moves a surface without any error of the registration
        "surface_p95_mm",
        "the surfaces of the lungs lie {value:.1f} mm or more apart over 5 % of their area",
        3.0,
        float("inf"),
        higher_is_worse=True,
    ),
)


def assess_quality(figures: Figures) -> Quality:
    """Judge a deformable registration by its figures.

    The verdict is that of the worst figure. A registration that raises the residual must not be used.
    """
    worst: Verdict = "good"
    reasons: list[str] = []
    for criterion in CRITERIA:
        value = getattr(figures, criterion.name)
        if value is None:
            continue
        verdict = _verdict(value, criterion)
        if verdict == "good":
            continue
        sentence = criterion.sentence.format(value=value, percent=100 * value)
        if criterion.name == "surface_p95_mm" and (regions := surface_regions_p95(figures)):
            region = max(regions, key=lambda name: regions[name])
            sentence += f", most of all at the {region} ({regions[region]:.1f} mm)"
        reasons.append(f"{sentence[0].upper()}{sentence[1:]}.")
        worst = verdict if worst != "do not use" else worst
    largest = WORSE_FACTOR * figures.residual_rigid_hu + WORSE_HU
    if not figures.residual_hu <= largest:  # NaN counts as worse
        worst = "do not use"
        reasons.append(
            f"The residual rose from {figures.residual_rigid_hu:.0f} to {figures.residual_hu:.0f} HU: "
            "the deformation made it worse."
        )
    if not reasons:
        reasons.append(_summary(figures))
    return Quality(**vars(figures), verdict=worst, reasons=tuple(reasons))


def rigid_figures(residual_hu: float, lung_dice: float, overlap: float) -> Figures:
    """The figures of rigid alignment alone, which neither folds nor changes volume."""
    return Figures(
        residual_hu=residual_hu,
        residual_rigid_hu=residual_hu,
        folding_percent=0.0,
        jacobian_min=1.0,
        jacobian_max=1.0,
        sd_log_jacobian=0.0,
        lung_dice=lung_dice,
        lung_dice_rigid=lung_dice,
        inverse_consistency_mm=None,
        inverse_consistency_p95_mm=None,
        keypoint_error_mm=None,
        keypoints_found=None,
        keypoints_dropped=None,
        overlap=overlap,
        trusted_percent=None,
    )


def surface_figures(surface: SurfaceAgreement) -> dict[str, float]:
    """The figures of :class:`Figures` on the surface of the lungs, by their names."""
    parts = {"": surface} | {f"{name}_": part for name, part in surface.regions.items()}
    return {
        f"surface_{name}{which}_mm": float(getattr(part, f"{which}_mm"))
        for name, part in parts.items()
        for which in ("mean", "p95", "max")
    }


def surface_regions_p95(figures: Figures) -> dict[str, float]:
    """The 95th percentile of each region of the surface that was measured, by the region's name."""
    names = ("ribs", "diaphragm", "mediastinum")
    values = {name: getattr(figures, f"surface_{name}_p95_mm") for name in names}
    return {name: value for name, value in values.items() if value is not None}


def assess_rigid_quality(figures: Figures) -> Quality:
    """Judge a rigid alignment: never better than 'look closely', since breathing is not corrected."""
    reason = f"Rigid alignment only: breathing is not corrected; the lungs overlap by Dice {figures.lung_dice:.3f}."
    return Quality(**vars(figures), verdict="look closely", reasons=(reason,))


def _summary(figures: Figures) -> str:
    """The sentence for a good registration."""
    error = figures.inverse_consistency_mm
    agreement = (
        f", forward and backward registration agree within {error:.1f} mm on average" if error is not None else ""
    )
    return f"The lungs overlap by Dice {figures.lung_dice:.3f}{agreement}, and the deformation does not fold."


def _verdict(value: float, criterion: Criterion) -> Verdict:
    """The verdict by one figure; one that is not finite must not be used."""
    if not np.isfinite(value):
        return "do not use"
    if _beyond(value, criterion.do_not_use, criterion):
        return "do not use"
    return "look closely" if _beyond(value, criterion.look_closely, criterion) else "good"


def _beyond(value: float, limit: float, criterion: Criterion) -> bool:
    return value > limit if criterion.higher_is_worse else value < limit


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice overlap of two masks, in [0, 1]; 0 when both are empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 0.0


def mean_residual(reference_hu: NDArray[np.generic], warped_hu: NDArray[np.generic], mask: NDArray[np.bool_]) -> float:
    """Mean |R - T(y)| in HU over ``mask``, both clipped to the window of change maps; NaN where it is empty."""
    if not mask.any():
        return float("nan")
    r = np.clip(reference_hu[mask].astype(np.float32), *CHANGE_WINDOW_HU)
    t = np.clip(warped_hu[mask].astype(np.float32), *CHANGE_WINDOW_HU)
    return float(np.abs(r - t).mean())
