"""Crops around lesions, on which the network's last block is trained.

Lesions fill few voxels of a lung: a step on crops around them takes a fraction of the time and teaches as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.joint.network import JointNetwork, JointOutput, normalised, scale_density_normalised
from ChangeMapJointLib.joint.warping import Offset, compose, jacobian_on_network_grid, resize, warp_tensor
from ChangeMapJointLib.registration.deformable.similarity import Spacing
from ChangeMapJointLib.training.losses import Sample

CHANGED, STABLE = (
    0.6,
    0.2,
)  # fractions of crops around changed and around stable lesions; others are anywhere in R's lungs
MARGIN = 8  # voxels of T around a crop of R: the last block moves T by less
R_SIDE = ("reference", "mask_reference", "lesions_reference", "changed_reference")
T_SIDE = ("template", "mask_template", "lesions_template", "changed_template")
KNOTS = 12  # control points along each axis of the residual displacement


@dataclass(frozen=True)
class CropOptions:
    """How the last block is trained on crops; the coarser blocks run on whole scans.

    Attributes:
        count: crops for each pair and step; 0: train on whole scans.
        shape: (z, y, x) of each crop in voxels.
        registered: probability that the block starts from the deformation of Eq. (1), as when the method ``joint`` runs
            it a second time, instead of from that of the coarser blocks. It so learns the residual of registration.
        near_truth: otherwise, probability that it starts near the true deformation.
        residual_mm: then the difference from the truth is a smooth random displacement, with a standard deviation of
            its control points of up to this along each axis.
    """

    count: int = 0
    shape: tuple[int, int, int] = (64, 64, 64)
    registered: float = 0.0
    near_truth: float = 0.5
    residual_mm: float = 1.0

    def __post_init__(self) -> None:
        require(
            self,
            count=(within(self.count, 0, 1024), "0 to 1024"),
            shape=(
                len(self.shape) == 3 and all(within(n, 8, 1024) for n in self.shape),
                "three sizes (z, y, x) from 8 to 1024",
            ),
            registered=(within(self.registered, 0.0, 1.0), "0 to 1"),
            near_truth=(within(self.near_truth, 0.0, 1.0), "0 to 1"),
            residual_mm=(within(self.residual_mm, 0.0, 10.0), "0 to 10 mm"),
        )


@torch.no_grad()
def starting_point(
    network: JointNetwork, sample: Sample, options: CropOptions, generator: torch.Generator
) -> JointOutput:
    """The logits and the deformation that the last block starts from, on the whole pair.

    The logits are those of the coarser blocks; the deformation is theirs too, or a better one.

    Args:
        network: only its coarser blocks are run.
        sample: the whole pair, on the network's device.
        options: probabilities of the starting deformations.
        generator: of the random choices.

    Returns:
        Batch of one, on the sample's grid.

    Raises:
        InputError: a start from Eq. (1) is drawn, but the sample has no ``registered_mm``.
    """
    size = sample.reference.shape
    scans = (sample.reference[None, None], sample.template[None, None])
    coarse = network.coarse(*scans, sample.spacing_mm)
    near = float(torch.rand(1, generator=generator)) < options.near_truth
    deviation = options.residual_mm * float(torch.rand(1, generator=generator))
    residual = deviation * torch.randn(1, 3, KNOTS, KNOTS, KNOTS, generator=generator)
    if coarse:
        u, logits = coarse[-1].displacement_mm, resize(coarse[-1].logits.float(), size)
    else:
        u, logits = scans[0].new_zeros((1, 3, *size)), scans[0].new_zeros((1, 2, *size))
    # drawn only if needed: without such starts the random numbers stay the same
    if options.registered and float(torch.rand(1, generator=generator)) < options.registered:
        if sample.registered_mm is None:
            raise InputError(
                "found a sample without registered_mm",
                field="crops.registered",
                remedy="make it with with_registration=True",
            )
        u = sample.registered_mm[None]
    elif near and sample.true_mm is not None:
        u = sample.true_mm[None]
        u = u + resize(residual.to(u), u.shape[2:])
    return JointOutput(resize(u.float(), size), logits)


def draw_offsets(sample: Sample, u_mm: Tensor, options: CropOptions, generator: torch.Generator) -> list[Offset]:
    """Draw where crops begin: around changed lesions, around stable ones, or anywhere in the lungs.

    Args:
        sample: the whole pair.
        u_mm: an approximate deformation that locates T's lesions in R, ``[1, 3, z, y, x]``.
        options: number and size of the crops.
        generator: of the random choices.

    Returns:
        The first voxel (x, y, z) of each crop.
    """
    stable = sample.lesions_reference - sample.changed_reference
    cell = max(
        min(options.shape) // 5, 1
    )  # drawing among the cells that lesions touch favours large lesions less than drawing voxels
    u_vox = u_mm[0].cpu() / torch.tensor(sample.spacing_mm).view(3, 1, 1, 1)
    changed = _cells(sample.changed_reference, cell), _cells(sample.changed_template, cell, u_vox)
    unchanged, lungs = _cells(stable, cell), _cells(sample.mask_reference, cell)
    offsets: list[Offset] = []
    for _ in range(options.count):
        drawn = torch.rand(5, generator=generator)
        candidates = lungs
        if float(drawn[0]) < CHANGED + STABLE:
            on_lesions = torch.cat(changed) if float(drawn[0]) < CHANGED else unchanged
            candidates = on_lesions if len(on_lesions) else lungs
        centre = candidates[int(drawn[1] * len(candidates))] if len(candidates) else torch.zeros(3)
        jitter = (drawn[2:] - 0.5) * torch.tensor(options.shape[::-1]) / 2
        low = (centre + jitter - torch.tensor(options.shape[::-1]) / 2).round().long().tolist()
        last = [n - m for n, m in zip(sample.reference.shape[::-1], options.shape[::-1], strict=True)]
        i, j, k = (min(max(int(a), 0), b) for a, b in zip(low, last, strict=True))
        offsets.append((i, j, k))
    return offsets


def _cells(mask: Tensor, cell: int, moved_vox: Tensor | None = None) -> Tensor:
    """Centres (x, y, z) of the cells in which ``mask`` has a voxel, ``[n, 3]``; with ``moved_vox`` from T to R."""
    filled = functional.max_pool3d((mask > 0.5).float()[None, None], cell, ceil_mode=True)[0, 0].cpu()
    centres = torch.minimum(torch.nonzero(filled) * cell + cell // 2, torch.tensor(mask.shape) - 1)
    points = centres.flip(1).float()
    if moved_vox is not None:
        z, y, x = centres.unbind(1)
        points = points - moved_vox[:, z, y, x].T  # approximate: an error of a few voxels stays within the crop
    return points


@dataclass(frozen=True)
class Crop:
    """A crop of R, and the part of T that it needs.

    Attributes:
        sample: both; its offset is relative to the part of T.
        offset: first voxel (x, y, z) of the crop in the whole R.
        start_mm: u that the last block starts from, ``[1, 3, z, y, x]`` on the crop.
        det: det grad y of it, ``[1, z, y, x]``, equal to that of the whole.
    """

    sample: Sample
    offset: Offset
    start_mm: Tensor
    det: Tensor


def cropped(sample: Sample, start_mm: Tensor, offset: Offset, shape: tuple[int, int, int]) -> Crop:
    """Cut one crop.

    Args:
        sample: the whole pair.
        start_mm: u that the last block starts from, ``[1, 3, z, y, x]`` on the whole.
        offset: first voxel (x, y, z) of the crop.
        shape: (z, y, x) of the crop.
    """
    box = _box(offset, shape)
    u = start_mm[(..., *box)]
    low, high = (limits.tolist() for limits in u[0].flatten(1).aminmax(dim=1))
    first, spans = [], []
    for axis, (a, n, template_n) in enumerate(zip(offset, shape[::-1], sample.template.shape[::-1], strict=True)):
        h = sample.spacing_mm[axis]
        begin = min(max(a + math.floor(low[axis] / h) - MARGIN, 0), template_n - 1)
        first.append(begin)
        spans.append(slice(begin, max(min(a + n + math.ceil(high[axis] / h) + MARGIN, template_n), begin + 1)))
    template_box = spans[2], spans[1], spans[0]
    keypoints = sample.keypoints_vox - torch.tensor(offset).to(sample.keypoints_vox)
    last = torch.tensor(shape[::-1]).to(keypoints) - 1
    inside = ((keypoints >= 0) & (keypoints <= last)).all(dim=1)
    part = replace(
        sample,
        **{name: getattr(sample, name)[box] for name in R_SIDE},
        **{name: getattr(sample, name)[template_box] for name in T_SIDE},
        keypoints_vox=keypoints[inside],
        partners_mm=sample.partners_mm[inside],
        true_mm=None,
        registered_mm=None,
        offset=(offset[0] - first[0], offset[1] - first[1], offset[2] - first[2]),
    )
    return Crop(part, offset, u, _determinant(start_mm, box, sample.spacing_mm))


def _determinant(u_mm: Tensor, box: tuple[slice, slice, slice], spacing_mm: Spacing) -> Tensor:
    """The determinant in ``box``, computed with a margin of one voxel so that it equals that of the whole."""
    k, j, i = (slice(max(s.start - 1, 0), s.stop + 1) for s in box)
    wide = jacobian_on_network_grid(u_mm[..., k, j, i], spacing_mm)
    z, y, x = (slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, (k, j, i), strict=True))
    return wide[..., z, y, x]


def block_input(crop: Crop, *, match_density: bool) -> Tensor:
    """The last block's input on a crop: R and T(y), normalised, ``[1, 2, z, y, x]``.

    Args:
        crop: the crop.
        match_density: option of the network.
    """
    part = crop.sample
    warped = warp_tensor(normalised(part.template)[None, None], crop.start_mm, part.spacing_mm, part.offset)
    if match_density:
        warped = scale_density_normalised(warped, crop.det)
    return torch.cat([normalised(part.reference)[None, None], warped], dim=1)


def block_output(crop: Crop, start: JointOutput, step_vox: Tensor, logits: Tensor) -> JointOutput:
    """The network's output on a crop, from the start on the whole pair and the last block's output on the crop.

    Args:
        crop: the crop.
        start: from :func:`starting_point`.
        step_vox: displacement in voxels, ``[1, 3, z, y, x]``.
        logits: ``[1, 2, z, y, x]``.
    """
    h = step_vox.new_tensor(crop.sample.spacing_mm, dtype=torch.float32).view(1, 3, 1, 1, 1)
    u = compose(start.displacement_mm, step_vox.float() * h, crop.sample.spacing_mm, crop.offset)
    return JointOutput(u, start.logits[(..., *_box(crop.offset, crop.sample.reference.shape))] + logits.float())


def _box(offset: Offset, shape: tuple[int, ...] | torch.Size) -> tuple[slice, slice, slice]:
    k, j, i = (slice(a, a + n) for a, n in zip(offset[::-1], shape, strict=True))
    return k, j, i
