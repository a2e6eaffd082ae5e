"""The two-head U-Net of Kohlbrandt et al. 2024, section 2.1, and a cascade of it from coarse to fine.

One U-Net of depth 2 sees about 50 voxels (two convolutions of 3 a stage): at the voxel size of the paper less than
breathing moves the diaphragm. The cascade therefore starts on larger voxels, where as many are enough; every finer
block sees T already moved by the coarser ones; the deformations are composed, and the logits of the change add up.
Before a coarse block, T moves by the shifts at which it is most like R (:func:`best_shift`), so that the block need not
learn from a handful of patients what matching is, only where that is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ChangeMapJointLib.core.hu import NETWORK_WINDOW_HU
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.joint.density import at_density
from ChangeMapJointLib.joint.warping import compose, determinant, resize, warp
from ChangeMapJointLib.registration.deformable.similarity import Spacing

MOMENTUM = 0.03  # of kept statistics: a mean over the last 30 pairs or so
SLAB_VOXELS = 8e6  # that a block with kept statistics takes at once: 2.5 GB in float32 with 16 channels; the overlap of
# slabs may be as thick as they are, so that on grids of hundreds of voxels a side it takes more
SEEN = 7  # voxels of its coarsest stage that a block sees in every direction, at most
SHARPNESS = 60.0  # of the choice among shifts; without any training 2 mm are left of 6.7, see docs/log/network.md


@dataclass(frozen=True)
class NetworkOptions:
    """The architecture; a checkpoint carries it.

    Attributes:
        factors: voxels of the network's grid in one voxel of every block, along each axis, coarsest first; ``(1,)`` is
            the paper's single network.
        channels: of the first stage of every block, coarsest first; doubled by every deeper stage.
        reach: voxels along each axis that :func:`best_shift` looks before a block, coarsest first; 0: the block works
            alone, as in the paper.
        depth: how often a block halves its resolution.
        kept_statistics: the last block normalises by statistics that training kept, not by those of the volume at hand:
            then it answers a crop as it answers the whole, and can be trained on crops.
        match_density: the last block is shown T as dense as R, as :func:`at_density` has it by the y it starts from:
            otherwise every vessel of a lung that is breathed out has grown.
        match_resolution: the network is shown R and T equally blurred, by the size of their voxels: otherwise a prior
            of thick slices lacks vessels that the current scan shows. The blocks do not look at it; it is for who makes
            their input (:func:`~ChangeMapJointLib.joint.scans.network_scans`).
        temperature: the logits are divided by it outside training; found afterwards, so that CM_learn is no surer of
            itself than it is right.
        checkpointing: keep no activations inside stages, and compute them again on the way back.
    """

    factors: tuple[int, ...] = (4, 2, 1)
    channels: tuple[int, ...] = (16, 16, 8)
    reach: tuple[int, ...] = (3, 1, 0)
    depth: int = 2
    kept_statistics: bool = False
    match_density: bool = False
    match_resolution: bool = False
    temperature: float = 1.0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        falling = all(a > b > 0 and a % b == 0 for a, b in zip(self.factors, self.factors[1:], strict=False))
        require(
            self,
            factors=(
                bool(self.factors) and falling and self.factors[-1] == 1,
                "falling whole numbers that divide one another, ending in 1, such as (4, 2, 1)",
            ),
            channels=(
                len(self.channels) == len(self.factors) and all(within(c, 1, 256) for c in self.channels),
                "1 to 256 for each of the factors",
            ),
            reach=(
                len(self.reach) == len(self.factors) and all(within(r, 0, 5) for r in self.reach),
                "0 to 5 for each of the factors",
            ),
            depth=(within(self.depth, 1, 5), "1 to 5"),
            match_density=(
                not self.match_density or (len(self.factors) > 1 and self.reach[-1] == 0),
                "true only where the last of several blocks has a reach of 0: it needs a smooth y to start from",
            ),
            temperature=(within(self.temperature, 0.1, 100.0), "0.1 to 100"),
        )

    @property
    def multiple(self) -> int:
        """The shape of the input must be a multiple of this along every axis."""
        multiple: int = self.factors[0] * 2**self.depth
        return multiple


class JointOutput(NamedTuple):
    """What the network says of one batch.

    Attributes:
        displacement_mm: u, ``[n, 3, z, y, x]``, components (x, y, z) along the array's axes.
        logits: of "unchanged" and "changed", ``[n, 2, z, y, x]``.
        coarser_mm: u after every block but the last, each on its own grid, for losses on all of them.
    """

    displacement_mm: Tensor
    logits: Tensor
    coarser_mm: tuple[Tensor, ...] = ()

    @property
    def change(self) -> Tensor:
        """CM_learn: the softmax of "changed", ``[n, z, y, x]`` in [0, 1]."""
        return self.logits.float().softmax(dim=1)[:, 1]


class Stage(nn.Module):
    """Two convolutions of 3 x 3 x 3, each normalised, over the volume or by kept statistics."""

    def __init__(self, given: int, made: int, *, kept_statistics: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (given, made):
            layers += [
                nn.Conv3d(channels, made, 3, padding=1, bias=False),
                nn.BatchNorm3d(made, momentum=MOMENTUM) if kept_statistics else nn.InstanceNorm3d(made, affine=True),
                nn.LeakyReLU(0.1, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, given, z, y, x]`` to ``[n, made, z, y, x]``."""
        features: Tensor = self.layers(x)
        return features


class TwoHeadUNet(nn.Module):
    """One block: R and T in, deformation and change out, split in the last convolution only."""

    def __init__(
        self, channels: int, depth: int, *, given: int = 2, kept_statistics: bool = False, checkpointing: bool = False
    ) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(depth + 1)]
        self.checkpointing = checkpointing
        down = zip([given, *widths[:-1]], widths, strict=True)
        up = ((deep + skip, skip) for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = nn.ModuleList(Stage(*pair, kept_statistics=kept_statistics) for pair in down)
        self.up = nn.ModuleList(Stage(*pair, kept_statistics=kept_statistics) for pair in up)
        self.deformation = nn.Conv3d(widths[0], 3, 3, padding=1)
        self.change = nn.Conv3d(widths[0], 2, 3, padding=1)
        nn.init.normal_(self.deformation.weight, std=1e-3)  # starts as the identity
        nn.init.zeros_(self.deformation.bias)  # type: ignore[arg-type]

    def forward(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Displacement in voxels and logits of change.

        Args:
            pair: R and T, about [-1, 1], and what else the block is given, ``[n, given, z, y, x]``.

        Returns:
            ``[n, 3, z, y, x]``, components (x, y, z), and ``[n, 2, z, y, x]``.
        """
        # twice as fast on a CPU
        x = pair.contiguous(memory_format=torch.channels_last_3d) if pair.device.type == "cpu" else pair
        skipped: list[Tensor] = []
        for number, stage in enumerate(self.down):
            x = self._run(stage, functional.avg_pool3d(x, 2) if number else x)  # [n, c 2^i, z / 2^i, ...]
            skipped.append(x)
        skipped.pop()
        for stage in self.up:
            size = skipped[-1].shape[2:]
            x = functional.interpolate(x, size, mode="trilinear", align_corners=False)
            x = torch.cat([x, skipped.pop()], dim=1)  # neither part stays in memory
            x = self._run(stage, x)
        return self.deformation(x), self.change(x)  # [n, 3, z, y, x], [n, 2, z, y, x]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            features: Tensor = checkpoint(stage, x, use_reentrant=False)
        else:
            features = stage(x)
        return features


class JointNetwork(nn.Module):
    """Blocks from coarse to fine, each on T as the coarser ones have moved it."""

    def __init__(self, options: NetworkOptions = NetworkOptions()) -> None:
        super().__init__()
        self.options = options
        last = len(options.factors) - 1
        self.blocks = nn.ModuleList(
            TwoHeadUNet(
                channels,
                options.depth,
                given=5 if reach else 2,
                kept_statistics=options.kept_statistics and number == last,
                checkpointing=options.checkpointing,
            )
            for number, (channels, reach) in enumerate(zip(options.channels, options.reach, strict=True))
        )

    def forward(self, reference: Tensor, template: Tensor, spacing_mm: Spacing) -> JointOutput:
        """Deformation and change of a batch.

        Args:
            reference: R in HU, of any type, ``[n, 1, z, y, x]``; z, y and x are multiples of ``options.multiple``.
            template: T in HU on the same grid.
            spacing_mm: of that grid, ordered (x, y, z).

        Raises:
            ValueError: shapes differ, or are no multiples of what the blocks need.
        """
        before = self.coarse(reference, template, spacing_mm)
        found = self.finest(reference, template, spacing_mm, before[-1] if before else None)
        return found._replace(coarser_mm=tuple(b.displacement_mm for b in before))

    def coarse(self, reference: Tensor, template: Tensor, spacing_mm: Spacing) -> tuple[JointOutput, ...]:
        """What every block but the last says, each on its own grid; arguments and errors as :meth:`forward`."""
        if reference.shape != template.shape or any(n % self.options.multiple for n in reference.shape[2:]):
            found = f"{tuple(reference.shape)} and {tuple(template.shape)}"
            expected = f"equal [n, 1, z, y, x] with z, y, x multiples of {self.options.multiple}"
            raise ValueError(f"reference and template: found shapes {found}, expected {expected}")
        r, t = normalised(reference), normalised(template)
        said: list[JointOutput] = []
        for number, factor in enumerate(self.options.factors[:-1]):
            small_r, small_t = (functional.avg_pool3d(v, factor) for v in (r, t))
            hx, hy, hz = (h * factor for h in spacing_mm)
            said.append(self._block(number, small_r, small_t, (hx, hy, hz), said[-1] if said else None))
        return tuple(said)

    def finest(
        self, reference: Tensor, template: Tensor, spacing_mm: Spacing, before: JointOutput | None
    ) -> JointOutput:
        """What the last block adds; arguments as :meth:`forward`.

        Args:
            reference: R.
            template: T.
            spacing_mm: of their grid.
            before: where to start from, on any grid of the same box: the coarser blocks' answer, or a better y.
        """
        found = self._block(-1, normalised(reference), normalised(template), spacing_mm, before)
        return found if self.training else found._replace(logits=found.logits / self.options.temperature)

    def _block(self, number: int, r: Tensor, t: Tensor, spacing_mm: Spacing, before: JointOutput | None) -> JointOutput:
        """One block on R and T of its own grid, both normalised."""
        size = r.shape[2:]
        u = r.new_zeros((r.shape[0], 3, *size), dtype=torch.float32)
        if before is not None:
            u = resize(before.displacement_mm, size)
        h = u.new_tensor(spacing_mm).view(1, 3, 1, 1, 1)
        shown: list[Tensor] = []
        if reach := self.options.reach[number]:
            shown = [best_shift(r, warp(t, u, spacing_mm), reach)]
            u = compose(u, shown[0] * h, spacing_mm)
        moved = warp(t, u, spacing_mm)
        if number == -1 and self.options.match_density:
            moved = as_dense(moved, determinant(u.detach(), spacing_mm))
        step_vox, logits = self._answer(number, torch.cat([r, moved, *shown], dim=1))
        u, logits = compose(u, step_vox.float() * h, spacing_mm), logits.float()
        return JointOutput(u, logits if before is None else resize(before.logits, size) + logits)

    def _answer(self, number: int, pair: Tensor) -> tuple[Tensor, Tensor]:
        """One block; by slabs across the longest axis where that gives the same and saves memory."""
        block = self.blocks[number]
        if number != -1 or not self.options.kept_statistics or self.training:
            said: tuple[Tensor, Tensor] = block(pair)
            return said
        axis = max((2, 3, 4), key=pair.size)  # there the slabs overlap least
        step, length = 2**self.options.depth, pair.shape[axis]
        most, margin = SLAB_VOXELS * length / pair[:, 0].numel(), step * SEEN  # planes
        size = length
        for count in range(1, max(length // margin, 1) + 1):
            size = step * math.ceil(length / count / step)
            if min(size + margin * min(count - 1, 2), length) <= most:
                break
        parts = []
        for start in range(0, length, size):
            first = max(start - margin, 0)
            planes = pair.narrow(axis, first, min(start + size + margin, length) - first)
            own = min(size, length - start)
            parts.append([v.narrow(axis, start - first, own).clone() for v in block(planes)])  # without what is cut off
        step_vox, logits = (torch.cat(values, dim=axis) for values in zip(*parts, strict=True))
        return step_vox, logits

    def last_block(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`TwoHeadUNet.forward`: on crops, R and T normalised and T already moved."""
        step_vox, logits = self.blocks[-1](pair)
        return step_vox, logits


@torch.no_grad()
def best_shift(reference: Tensor, template: Tensor, reach: int) -> Tensor:
    """The shift in voxels at which T is most like R round every voxel: the mean over shifts by :func:`similarity`.

    Without a gradient: the blocks learn what to add to it.

    Args:
        reference: R, about [-1, 1], ``[n, 1, z, y, x]``.
        template: T on the same grid.
        reach: voxels along each axis, 1 or more.

    Returns:
        ``[n, 3, z, y, x]``, components (x, y, z); T(x + shift) is like R(x).
    """
    with torch.autocast(reference.device.type, enabled=False):  # half precision would round shifts
        alike = similarity(reference.float(), template.float(), reach)
        weight = (_mean(alike, 3) * SHARPNESS).softmax(dim=1)
        shifts = torch.tensor([s[::-1] for s in product(range(-reach, reach + 1), repeat=3)]).to(weight)
        return _mean(torch.einsum("nszyx,sc->nczyx", weight, shifts), 1)


def similarity(reference: Tensor, template: Tensor, reach: int) -> Tensor:
    """How alike R is to T at every shift, compared with the other shifts: ``exp(-d / mean d)`` in (0, 1].

    d is the squared difference over 3 x 3 x 3 voxels, both images less their local mean: breathing changes the density.

    Args:
        reference: R, ``[n, 1, z, y, x]``.
        template: T on the same grid; its border is repeated outside.
        reach: voxels along each axis.

    Returns:
        ``[n, (2 reach + 1)^3, z, y, x]``; the shift in z changes slowest, T(x + shift) is compared with R(x).
    """
    near = [v - _mean(v, 2) for v in (reference, template)]
    padded = functional.pad(near[1], (reach,) * 6, mode="replicate")
    z, y, x = reference.shape[2:]
    found = reference.new_empty((reference.shape[0], (2 * reach + 1) ** 3, z, y, x))
    for number, (k, j, i) in enumerate(product(range(2 * reach + 1), repeat=3)):
        squared = (near[0] - padded[:, :, k : k + z, j : j + y, i : i + x]).square_()
        found[:, number] = _sum(squared, 1)[:, 0]
    return found.div_(-found.mean(dim=1, keepdim=True).clamp_min_(1e-6)).exp_()


def _mean(values: Tensor, reach: int) -> Tensor:
    """Over the voxels of the volume up to ``reach`` away along each axis."""
    return _sum(values, reach).div_(_sum(torch.ones_like(values[:1, :1]), reach))


def _sum(values: Tensor, reach: int) -> Tensor:
    """Over voxels up to ``reach`` away along each axis, zeros outside; axis by axis, faster than pooling."""
    for axis in (2, 3, 4):
        size, total = values.shape[axis], values.clone()
        for step in range(1, min(reach, size - 1) + 1):
            n = size - step
            total.narrow(axis, 0, n).add_(values.narrow(axis, step, n))
            total.narrow(axis, step, n).add_(values.narrow(axis, 0, n))
        values = total
    return values


def as_dense(moved: Tensor, det: Tensor) -> Tensor:
    """:func:`at_density` of T(y) as :func:`normalised` has it, ``[n, 1, z, y, x]``; ``det`` is ``[n, z, y, x]``."""
    low, high = NETWORK_WINDOW_HU
    return normalised(at_density((moved + 1) * ((high - low) / 2) + low, det))


def normalised(hu: Tensor) -> Tensor:
    """HU clipped to :data:`~ChangeMapJointLib.core.hu.NETWORK_WINDOW_HU`, as [-1, 1]."""
    low, high = NETWORK_WINDOW_HU
    return (hu.float().clamp(low, high) - low) * (2 / (high - low)) - 1
