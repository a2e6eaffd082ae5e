"""Augmentation of training pairs: mirroring, exchange of the two scans, additional smooth motion.

Every variant is a consistent pair: lesions, masks, keypoints and true deformation are transformed with the scans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.joint.warping import compose, displacement_at, inverse, resize, warp_tensor
from ChangeMapJointLib.registration.deformable.similarity import Spacing
from ChangeMapJointLib.training.losses import Sample

KNOTS = (4, 4, 4)  # control points of the additional motion: as smooth as breathing
DEFORMATIONS = ("true_mm", "registered_mm")
STEEPEST = 0.25  # largest gradient of that motion: far from folding, so that fixed-point iteration inverts it
INVERSION_STEPS = 30


@dataclass(frozen=True)
class AugmentOptions:
    """How training pairs are augmented.

    Attributes:
        mirror: probability of mirroring, for each axis independently.
        exchange: probability that R and T are exchanged; new lesions become resolved ones.
        motion_mm: standard deviation of an additional smooth motion of R, along each axis.
    """

    mirror: float = 0.0
    exchange: float = 0.0
    motion_mm: float = 0.0

    def __post_init__(self) -> None:
        require(
            self,
            mirror=(within(self.mirror, 0.0, 1.0), "0 to 1"),
            exchange=(within(self.exchange, 0.0, 1.0), "0 to 1"),
            motion_mm=(within(self.motion_mm, 0.0, 20.0), "0 to 20 mm"),
        )


def augmented(sample: Sample, options: AugmentOptions, *, seed: tuple[int, int, int]) -> Sample:
    """Return a random variant of a pair; the same seed gives the same variant.

    Args:
        sample: the pair.
        options: which variants, and how likely.
        seed: seed of the training, number of the epoch, number of the pair.
    """
    generator = torch.Generator().manual_seed(combine_seed(seed))
    draws = torch.rand(4, generator=generator).tolist()
    knots = torch.randn(1, 3, *KNOTS, generator=generator)
    if draws[3] < options.exchange:
        sample = exchanged(sample)
    if options.motion_mm > 0:
        sample = move_reference(sample, draw_smooth_motion(knots * options.motion_mm, sample))
    for axis in range(3):
        if draws[axis] < options.mirror:
            sample = mirrored(sample, axis)
    return sample


def combine_seed(seed: tuple[int, int, int]) -> int:
    """Combine the seeds of training, epoch and pair into one."""
    return ((seed[0] * 1_000_003 + seed[1]) * 1_000_003 + seed[2]) % 2**62


def crop_seed(seed: tuple[int, int, int]) -> int:
    """A seed for the crops, independent of :func:`combine_seed` so that crops do not correlate with augmentation."""
    return combine_seed((combine_seed(seed), 1, 0))


def exchanged(sample: Sample) -> Sample:
    """Exchange R and T, which share one frame after rigid alignment; u becomes its inverse."""
    return replace(
        sample,
        reference=sample.template,
        template=sample.reference,
        mask_reference=sample.mask_template,
        mask_template=sample.mask_reference,
        lesions_reference=sample.lesions_template,
        lesions_template=sample.lesions_reference,
        changed_reference=sample.changed_template,
        changed_template=sample.changed_reference,
        keypoints_vox=sample.keypoints_vox + sample.partners_mm / _h(sample.spacing_mm, sample.partners_mm),
        partners_mm=-sample.partners_mm,
        edges=sample.edges[::-1],
        **_deformations(sample, lambda u, spacing: inverse(u[None], spacing)[0]),
    )


def mirrored(sample: Sample, axis: int) -> Sample:
    """Mirror both scans along ``axis``: 0 is x, 1 is y, 2 is z."""
    volumes = {name: value.flip(2 - axis) for name, value in _volumes(sample).items()}
    size = sample.reference.shape[2 - axis]
    keypoints, partners = sample.keypoints_vox.clone(), sample.partners_mm.clone()
    keypoints[:, axis] = size - 1 - keypoints[:, axis]
    partners[:, axis] = -partners[:, axis]
    sign = torch.ones(3, 1, 1, 1)
    sign[axis] = -1
    deformations = _deformations(sample, lambda u, _: u.flip(3 - axis) * sign.to(u))
    return replace(sample, **volumes, **deformations, keypoints_vox=keypoints, partners_mm=partners)


def move_reference(sample: Sample, displacement_mm: Tensor) -> Sample:
    """Deform R and all that belongs to it: ``R(x + v(x))``. The true map becomes the old one after v.

    Args:
        sample: the pair.
        displacement_mm: v, ``[1, 3, z, y, x]``, far from folding.
    """
    names = ("reference", "mask_reference", "lesions_reference", "changed_reference")
    stacked = torch.stack([getattr(sample, name) for name in names])[None]
    reference, mask, lesions, changed = warp_tensor(stacked, displacement_mm, sample.spacing_mm)[0]
    h = _h(sample.spacing_mm, sample.partners_mm)
    old_vox, new_vox = sample.keypoints_vox, sample.keypoints_vox
    for _ in range(INVERSION_STEPS):  # solves k + v(k) = the keypoint's old position
        new_vox = old_vox - displacement_at(displacement_mm[0], new_vox) / h
    deformations = _deformations(
        sample, lambda u, spacing: compose(u[None], resize(displacement_mm, u.shape[1:]), spacing)[0]
    )
    return replace(
        sample,
        reference=reference,
        mask_reference=mask,
        lesions_reference=(lesions >= 0.5).to(lesions),
        changed_reference=(changed >= 0.5).to(changed),
        keypoints_vox=new_vox,
        partners_mm=sample.partners_mm + (old_vox - new_vox) * h,
        **deformations,
    )


def draw_smooth_motion(knots_mm: Tensor, sample: Sample) -> Tensor:
    """Interpolate a smooth v, ``[1, 3, z, y, x]`` in mm, from control points; scaled down if it is too steep."""
    v = resize(
        knots_mm, [max(n // 4, 5) for n in sample.reference.shape]
    )  # linear interpolation and averaging, repeated, give a cubic shape
    v = resize(
        torch.nn.functional.avg_pool3d(v, 5, stride=1, padding=2, count_include_pad=False), sample.reference.shape
    )
    hx, hy, hz = sample.spacing_mm
    steepest = max(
        float(torch.gradient(v, spacing=h, dim=4 - axis)[0].abs().max()) for axis, h in enumerate((hx, hy, hz))
    )
    return v * min(STEEPEST / max(steepest, 1e-9), 1.0)


def _volumes(sample: Sample) -> dict[str, Any]:
    return {name: value for name, value in vars(sample).items() if isinstance(value, Tensor) and value.ndim == 3}


def _deformations(sample: Sample, change: Callable[[Tensor, Spacing], Tensor]) -> dict[str, Any]:
    """Apply ``change`` to every deformation of the sample; it is given u and the spacing of u's voxels."""
    changed = {}
    for name in DEFORMATIONS:
        u = getattr(sample, name)
        if u is not None:
            sizes = zip(sample.spacing_mm, sample.reference.shape[::-1], u.shape[:0:-1], strict=True)
            hx, hy, hz = (h * n / m for h, n, m in sizes)
            changed[name] = change(u, (hx, hy, hz))
    return changed


def _h(spacing_mm: Spacing, like: Tensor) -> Tensor:
    return torch.tensor(spacing_mm).to(like)
