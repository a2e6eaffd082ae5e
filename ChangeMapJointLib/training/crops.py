"""Crops of a pair round its lesions, for the network's last block.

A lesion fills few of a lung's voxels: on crops round lesions a step takes a fraction of the time and says as much.
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
from ChangeMapJointLib.joint.warping import Offset, compose, determinant, resize, warp
from ChangeMapJointLib.registration.deformable.similarity import Spacing
from ChangeMapJointLib.training.losses import Sample

CHANGED, STABLE = 0.6, 0.2  # of the crops round lesions that changed, and that did not; the others are anywhere in R
MARGIN = 8  # voxels of T round what a crop of R shows: the last block moves it by less
R_SIDE = ("reference", "mask_reference", "lesions_reference", "changed_reference")
T_SIDE = ("template", "mask_template", "lesions_template", "changed_template")
KNOTS = 12  # a side, of what is left between the truth and a start near it


@dataclass(frozen=True)
class CropOptions:
    """How the last block learns from crops; the coarser ones see whole scans.

    Attributes:
        count: crops of a pair and step; 0: whole scans.
        shape: (z, y, x) of each in voxels.
        registered: probability that T starts where Eq. (1) puts it, as for the second look of the method ``joint``,
            instead of where the coarser blocks put it: the block learns what registration leaves over.
        near_truth: of the other times, probability that T starts near its true place.
        residual_mm: what is then left: a smooth displacement, whose knots deviate by up to this (a standard deviation)
            along each axis.
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
            shape=(len(self.shape) == 3 and all(within(n, 8, 1024) for n in self.shape), "three numbers, 8 to 1024"),
            registered=(within(self.registered, 0.0, 1.0), "0 to 1"),
            near_truth=(within(self.near_truth, 0.0, 1.0), "0 to 1"),
            residual_mm=(within(self.residual_mm, 0.0, 10.0), "0 to 10 mm"),
        )


@torch.no_grad()
def starting_point(
    network: JointNetwork, sample: Sample, options: CropOptions, generator: torch.Generator
) -> JointOutput:
    """Where the last block starts on the whole pair: the coarser blocks' logits, and their y, or a better one.

    Args:
        network: its coarser blocks are asked.
        sample: whole, on the network's device.
        options: see there.
        generator: of the draws.

    Returns:
        On the sample's grid, batch of one.

    Raises:
        InputError: a start by Eq. (1) is asked for, and the sample has none.
    """
    size = sample.reference.shape
    scans = (sample.reference[None, None], sample.template[None, None])
    said = network.coarse(*scans, sample.spacing_mm)
    near = float(torch.rand(1, generator=generator)) < options.near_truth
    deviation = options.residual_mm * float(torch.rand(1, generator=generator))
    left = deviation * torch.randn(1, 3, KNOTS, KNOTS, KNOTS, generator=generator)
    if said:
        u, logits = said[-1].displacement_mm, resize(said[-1].logits.float(), size)
    else:
        u, logits = scans[0].new_zeros((1, 3, *size)), scans[0].new_zeros((1, 2, *size))
    # without such starts the draws stay what they were
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
        u = u + resize(left.to(u), u.shape[2:])
    return JointOutput(resize(u.float(), size), logits)


def draw_offsets(sample: Sample, u_mm: Tensor, options: CropOptions, generator: torch.Generator) -> list[Offset]:
    """Where crops begin, voxel (x, y, z): round lesions that changed or are stable, and anywhere in the lungs.

    Args:
        sample: whole.
        u_mm: about where T's lesions belong, ``[1, 3, z, y, x]``.
        options: see there.
        generator: of the draws.
    """
    stable = sample.lesions_reference - sample.changed_reference
    cell = max(min(options.shape) // 5, 1)  # drawn by the cells that lesions touch: all sizes about as often
    u_vox = u_mm[0].cpu() / torch.tensor(sample.spacing_mm).view(3, 1, 1, 1)
    changed = _cells(sample.changed_reference, cell), _cells(sample.changed_template, cell, u_vox)
    same, lungs = _cells(stable, cell), _cells(sample.mask_reference, cell)
    offsets: list[Offset] = []
    for _ in range(options.count):
        drawn = torch.rand(5, generator=generator)
        among = lungs
        if float(drawn[0]) < CHANGED + STABLE:
            wanted = torch.cat(changed) if float(drawn[0]) < CHANGED else same
            among = wanted if len(wanted) else lungs
        centre = among[int(drawn[1] * len(among))] if len(among) else torch.zeros(3)
        jitter = (drawn[2:] - 0.5) * torch.tensor(options.shape[::-1]) / 2
        low = (centre + jitter - torch.tensor(options.shape[::-1]) / 2).round().long().tolist()
        most = [n - m for n, m in zip(sample.reference.shape[::-1], options.shape[::-1], strict=True)]
        i, j, k = (min(max(int(a), 0), b) for a, b in zip(low, most, strict=True))
        offsets.append((i, j, k))
    return offsets


def _cells(mask: Tensor, cell: int, moved_vox: Tensor | None = None) -> Tensor:
    """Centres (x, y, z) of the cells in which ``mask`` has a voxel, ``[n, 3]``; those of T at their place in R."""
    filled = functional.max_pool3d((mask > 0.5).float()[None, None], cell, ceil_mode=True)[0, 0].cpu()
    centres = torch.minimum(torch.nonzero(filled) * cell + cell // 2, torch.tensor(mask.shape) - 1)
    found = centres.flip(1).float()
    if moved_vox is not None:
        z, y, x = centres.unbind(1)
        found = found - moved_vox[:, z, y, x].T  # u is smooth: a few voxels off are within the crop
    return found


@dataclass(frozen=True)
class Crop:
    """A part of R, and of T what belongs to it.

    Attributes:
        sample: both; its offset is within the part of T.
        offset: of R's part within the whole, voxel (x, y, z).
        start_mm: where the last block starts, ``[1, 3, z, y, x]`` on R's part.
        det: det grad y there, ``[1, z, y, x]``, the same as that of the whole.
    """

    sample: Sample
    offset: Offset
    start_mm: Tensor
    det: Tensor


def cropped(sample: Sample, start_mm: Tensor, offset: Offset, shape: tuple[int, int, int]) -> Crop:
    """One crop.

    Args:
        sample: whole.
        start_mm: y that the last block starts from, ``[1, 3, z, y, x]`` on the whole.
        offset: where the crop begins, voxel (x, y, z).
        shape: (z, y, x) of the crop.
    """
    box = _box(offset, shape)
    u = start_mm[(..., *box)]
    low, high = (ends.tolist() for ends in u[0].flatten(1).aminmax(dim=1))
    first, parts = [], []
    for axis, (a, n, whole) in enumerate(zip(offset, shape[::-1], sample.template.shape[::-1], strict=True)):
        h = sample.spacing_mm[axis]
        begin = min(max(a + math.floor(low[axis] / h) - MARGIN, 0), whole - 1)
        first.append(begin)
        parts.append(slice(begin, max(min(a + n + math.ceil(high[axis] / h) + MARGIN, whole), begin + 1)))
    there = parts[2], parts[1], parts[0]
    keypoints = sample.keypoints_vox - torch.tensor(offset).to(sample.keypoints_vox)
    last = torch.tensor(shape[::-1]).to(keypoints) - 1
    inside = ((keypoints >= 0) & (keypoints <= last)).all(dim=1)
    part = replace(
        sample,
        **{name: getattr(sample, name)[box] for name in R_SIDE},
        **{name: getattr(sample, name)[there] for name in T_SIDE},
        keypoints_vox=keypoints[inside],
        partners_mm=sample.partners_mm[inside],
        true_mm=None,
        registered_mm=None,
        offset=(offset[0] - first[0], offset[1] - first[1], offset[2] - first[2]),
    )
    return Crop(part, offset, u, _determinant(start_mm, box, sample.spacing_mm))


def _determinant(u_mm: Tensor, box: tuple[slice, slice, slice], spacing_mm: Spacing) -> Tensor:
    """That of the whole in ``box``, from the box and a voxel round it."""
    k, j, i = (slice(max(s.start - 1, 0), s.stop + 1) for s in box)
    wide = determinant(u_mm[..., k, j, i], spacing_mm)
    z, y, x = (slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, (k, j, i), strict=True))
    return wide[..., z, y, x]


def block_input(crop: Crop, *, match_density: bool) -> Tensor:
    """What the last block is shown of a crop, ``[1, 2, z, y, x]``; ``match_density`` as its network has it."""
    part = crop.sample
    moved = warp(normalised(part.template)[None, None], crop.start_mm, part.spacing_mm, part.offset)
    if match_density:
        moved = scale_density_normalised(moved, crop.det)
    return torch.cat([normalised(part.reference)[None, None], moved], dim=1)


def block_output(crop: Crop, start: JointOutput, step_vox: Tensor, logits: Tensor) -> JointOutput:
    """The network's answer on a crop, from the last block's, each ``[1, c, z, y, x]``; ``start`` is of the whole."""
    h = step_vox.new_tensor(crop.sample.spacing_mm, dtype=torch.float32).view(1, 3, 1, 1, 1)
    u = compose(start.displacement_mm, step_vox.float() * h, crop.sample.spacing_mm, crop.offset)
    return JointOutput(u, start.logits[(..., *_box(crop.offset, crop.sample.reference.shape))] + logits.float())


def _box(offset: Offset, shape: tuple[int, ...] | torch.Size) -> tuple[slice, slice, slice]:
    k, j, i = (slice(a, a + n) for a, n in zip(offset[::-1], shape, strict=True))
    return k, j, i
