"""The two-head U-Net of Kohlbrandt et al. 2024, section 2.1, and a coarse-to-fine cascade of such U-Nets.

One U-Net of depth 2 has a receptive field of about 50 voxels (two 3 x 3 x 3 convolutions in each stage). At the voxel
size of the paper that is less than the breathing motion of the diaphragm. The cascade therefore starts on larger
voxels. Every finer block is given T as warped by the coarser ones; deformations are composed and the logits of change
are added. Before a coarse block, T is moved by the shifts at which it is most similar to R (:func:`best_shift`). The
block then only learns to correct this match, instead of learning to match from a handful of patients.
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
from ChangeMapJointLib.joint.density import scale_density
from ChangeMapJointLib.joint.warping import compose, jacobian_on_network_grid, resize, warp_tensor
from ChangeMapJointLib.registration.deformable.similarity import Spacing

MOMENTUM = 0.03  # of batch normalisation: its running statistics average about the last 30 pairs
SLAB_VOXELS = 8e6  # given at once to a block with kept statistics: 2.5 GB in float32 with 16 channels. Slabs overlap by
# up to their own thickness, so that grids of hundreds of voxels along each axis need more
REACH_COARSE_VOX = 7  # how far a block sees in every direction, in voxels of its coarsest stage
SHARPNESS = 60.0  # of the softmax over shifts; without any training it reduces 6.7 mm to 2 mm, see docs/log/network.md


@dataclass(frozen=True)
class NetworkOptions:
    """The architecture; stored in the checkpoint's card.

    Attributes:
        factors: downsampling of every block relative to the network's grid, coarsest first; ``(1,)`` is the paper's
            single network.
        channels: of the first stage of every block, coarsest first; doubled in every deeper stage.
        reach: search radius in voxels of :func:`best_shift` before every block, coarsest first; 0: no search, as in the
            paper.
        depth: how often a block halves its resolution.
        kept_statistics: the last block is normalised by the running statistics of training (batch normalisation)
            instead of those of the volume (instance normalisation). It then gives the same output on a crop as on the
            whole volume, and can be trained on crops.
        match_density: the last block is given T with its density scaled to the local volume in R
            (:func:`~ChangeMapJointLib.joint.density.scale_density`), by the y that it starts from. Otherwise every
            vessel of an exhaled lung seems to have grown.
        match_resolution: the network is given R and T at equal resolution. Otherwise a prior with thick slices lacks
            vessels that the current scan shows. The blocks ignore it: it tells
            :func:`~ChangeMapJointLib.joint.scans.network_scans` how to prepare their input.
        temperature: the logits are divided by it outside training. It is calibrated after training, so that CM_learn
            can be read as a probability.
        checkpointing: gradient checkpointing: recompute the activations inside stages in the backward pass.
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
                "decreasing whole numbers, each a multiple of the next, ending in 1, such as (4, 2, 1)",
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
                "true only with several blocks, the last with a reach of 0: it needs a smooth y to start from",
            ),
            temperature=(within(self.temperature, 0.1, 100.0), "0.1 to 100"),
        )

    @property
    def multiple(self) -> int:
        """The shape of the input must be a multiple of this along every axis."""
        multiple: int = self.factors[0] * 2**self.depth
        return multiple


class JointOutput(NamedTuple):
    """What the network predicts for one batch.

    Attributes:
        displacement_mm: u, ``[n, 3, z, y, x]``, components (x, y, z) along the array's axes.
        logits: of "unchanged" and "changed", ``[n, 2, z, y, x]``.
        coarser_mm: u in mm after every block but the last, each on its own grid; for losses on all blocks.
    """

    displacement_mm: Tensor
    logits: Tensor
    coarser_mm: tuple[Tensor, ...] = ()

    @property
    def change(self) -> Tensor:
        """CM_learn: the softmax of "changed", ``[n, z, y, x]`` in [0, 1]."""
        return self.logits.float().softmax(dim=1)[:, 1]


class ConvBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions, each followed by instance normalisation or, on request, batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int, *, kept_statistics: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv3d(channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm3d(out_channels, momentum=MOMENTUM)
                if kept_statistics
                else nn.InstanceNorm3d(out_channels, affine=True),
                nn.LeakyReLU(0.1, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, z, y, x]`` to ``[n, out_channels, z, y, x]``."""
        features: Tensor = self.layers(x)
        return features


class TwoHeadUNet(nn.Module):
    """One block: a U-Net on R and T whose heads for deformation and change share all but the last convolution."""

    def __init__(
        self,
        channels: int,
        depth: int,
        *,
        in_channels: int = 2,
        kept_statistics: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(depth + 1)]
        self.checkpointing = checkpointing
        down = zip([in_channels, *widths[:-1]], widths, strict=True)
        up = ((deep + skip, skip) for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = nn.ModuleList(ConvBlock(*pair, kept_statistics=kept_statistics) for pair in down)
        self.up = nn.ModuleList(ConvBlock(*pair, kept_statistics=kept_statistics) for pair in up)
        self.deformation = nn.Conv3d(widths[0], 3, 3, padding=1)
        self.change = nn.Conv3d(widths[0], 2, 3, padding=1)
        nn.init.normal_(self.deformation.weight, std=1e-3)  # starts as the identity
        nn.init.zeros_(self.deformation.bias)  # type: ignore[arg-type]

    def forward(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the displacement in voxels and the logits of change.

        Args:
            pair: R and T, normalised to about [-1, 1], and after a search the shift in voxels,
                ``[n, in_channels, z, y, x]``.

        Returns:
            Displacement ``[n, 3, z, y, x]``, components (x, y, z), and logits ``[n, 2, z, y, x]``.
        """
        # channels last is twice as fast on a CPU
        x = pair.contiguous(memory_format=torch.channels_last_3d) if pair.device.type == "cpu" else pair
        skipped: list[Tensor] = []
        for number, stage in enumerate(self.down):
            x = self._run(stage, functional.avg_pool3d(x, 2) if number else x)  # [n, c 2^i, z / 2^i, ...]
            skipped.append(x)
        skipped.pop()
        for stage in self.up:
            size = skipped[-1].shape[2:]
            x = functional.interpolate(x, size, mode="trilinear", align_corners=False)
            x = torch.cat([x, skipped.pop()], dim=1)  # popped here, so that neither part stays in memory
            x = self._run(stage, x)
        return self.deformation(x), self.change(x)  # [n, 3, z, y, x], [n, 2, z, y, x]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            features: Tensor = checkpoint(stage, x, use_reentrant=False)
        else:
            features = stage(x)
        return features


class JointNetwork(nn.Module):
    """A cascade of blocks from coarse to fine, each on T as warped by the coarser ones."""

    def __init__(self, options: NetworkOptions = NetworkOptions()) -> None:
        super().__init__()
        self.options = options
        last = len(options.factors) - 1
        self.blocks = nn.ModuleList(
            TwoHeadUNet(
                channels,
                options.depth,
                in_channels=5 if reach else 2,
                kept_statistics=options.kept_statistics and number == last,
                checkpointing=options.checkpointing,
            )
            for number, (channels, reach) in enumerate(zip(options.channels, options.reach, strict=True))
        )

    def forward(self, reference: Tensor, template: Tensor, spacing_mm: Spacing) -> JointOutput:
        """Predict deformation and change of a batch.

        Args:
            reference: R in HU, of any type, ``[n, 1, z, y, x]``; z, y and x are multiples of ``options.multiple``.
            template: T in HU on the same grid.
            spacing_mm: of that grid, ordered (x, y, z).

        Raises:
            ValueError: the shapes differ, or are not multiples of ``options.multiple``.
        """
        coarse = self.coarse(reference, template, spacing_mm)
        output = self.finest(reference, template, spacing_mm, coarse[-1] if coarse else None)
        return output._replace(coarser_mm=tuple(block.displacement_mm for block in coarse))

    def coarse(self, reference: Tensor, template: Tensor, spacing_mm: Spacing) -> tuple[JointOutput, ...]:
        """Run every block but the last, each on its own grid; arguments and errors as in :meth:`forward`."""
        if reference.shape != template.shape or any(n % self.options.multiple for n in reference.shape[2:]):
            shapes = f"{tuple(reference.shape)} and {tuple(template.shape)}"
            expected = f"equal [n, 1, z, y, x] with z, y, x multiples of {self.options.multiple}"
            raise ValueError(f"reference and template: found shapes {shapes}, expected {expected}")
        r, t = normalised(reference), normalised(template)
        outputs: list[JointOutput] = []
        for number, factor in enumerate(self.options.factors[:-1]):
            small_r, small_t = (functional.avg_pool3d(v, factor) for v in (r, t))
            hx, hy, hz = (h * factor for h in spacing_mm)
            start = outputs[-1] if outputs else None
            outputs.append(self._block(number, small_r, small_t, (hx, hy, hz), start))
        return tuple(outputs)

    def finest(
        self, reference: Tensor, template: Tensor, spacing_mm: Spacing, start: JointOutput | None
    ) -> JointOutput:
        """Run the last block.

        Args:
            reference: as in :meth:`forward`.
            template: as in :meth:`forward`.
            spacing_mm: of their grid, ordered (x, y, z).
            start: deformation and logits to start from, on any grid over the same box: the output of the coarser
                blocks, or a better deformation; None: the identity.
        """
        output = self._block(-1, normalised(reference), normalised(template), spacing_mm, start)
        return output if self.training else output._replace(logits=output.logits / self.options.temperature)

    def _block(self, number: int, r: Tensor, t: Tensor, spacing_mm: Spacing, start: JointOutput | None) -> JointOutput:
        """Run one block on R and T on its own grid, both normalised."""
        size = r.shape[2:]
        u = r.new_zeros((r.shape[0], 3, *size), dtype=torch.float32)
        if start is not None:
            u = resize(start.displacement_mm, size)
        h = u.new_tensor(spacing_mm).view(1, 3, 1, 1, 1)
        shifts: list[Tensor] = []
        if reach := self.options.reach[number]:
            shifts = [best_shift(r, warp_tensor(t, u, spacing_mm), reach)]
            u = compose(u, shifts[0] * h, spacing_mm)
        warped = warp_tensor(t, u, spacing_mm)
        if number == -1 and self.options.match_density:
            warped = scale_density_normalised(warped, jacobian_on_network_grid(u.detach(), spacing_mm))
        step_vox, logits = self._run_block(number, torch.cat([r, warped, *shifts], dim=1))
        u, logits = compose(u, step_vox.float() * h, spacing_mm), logits.float()
        return JointOutput(u, logits if start is None else resize(start.logits, size) + logits)

    def _run_block(self, number: int, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Run one block; with kept statistics in slabs along the longest axis: the same result with less memory."""
        block = self.blocks[number]
        if number != -1 or not self.options.kept_statistics or self.training:
            output: tuple[Tensor, Tensor] = block(pair)
            return output
        axis = max((2, 3, 4), key=pair.size)  # the slabs overlap least there
        step, length = 2**self.options.depth, pair.shape[axis]
        most_planes, margin = SLAB_VOXELS * length / pair[:, 0].numel(), step * REACH_COARSE_VOX  # planes
        size = length
        for count in range(1, max(length // margin, 1) + 1):
            size = step * math.ceil(length / count / step)
            if min(size + margin * min(count - 1, 2), length) <= most_planes:
                break
        parts = []
        for start in range(0, length, size):
            first = max(start - margin, 0)
            planes = pair.narrow(axis, first, min(start + size + margin, length) - first)
            own = min(size, length - start)
            parts.append(
                [v.narrow(axis, start - first, own).clone() for v in block(planes)]
            )  # cloned to free the margins
        step_vox, logits = (torch.cat(values, dim=axis) for values in zip(*parts, strict=True))
        return step_vox, logits

    def last_block(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Run the last block on crops of R and T(y), both normalised; shapes as in :meth:`TwoHeadUNet.forward`."""
        step_vox, logits = self.blocks[-1](pair)
        return step_vox, logits


@torch.no_grad()
def best_shift(reference: Tensor, template: Tensor, reach: int) -> Tensor:
    """Find the shift around every voxel at which T is most similar to R.

    It is the mean over all shifts, weighted by a softmax of :func:`similarity`, and carries no gradient: the blocks
    learn to correct it.

    Args:
        reference: R, about [-1, 1], ``[n, 1, z, y, x]``.
        template: T on the same grid.
        reach: search radius in voxels along each axis, 1 or more.

    Returns:
        ``[n, 3, z, y, x]`` in voxels, components (x, y, z); T(x + shift) is similar to R(x).
    """
    with torch.autocast(reference.device.type, enabled=False):  # half precision would round shifts
        similarities = similarity(reference.float(), template.float(), reach)
        weight = (_mean(similarities, 3) * SHARPNESS).softmax(dim=1)
        shifts = torch.tensor([s[::-1] for s in product(range(-reach, reach + 1), repeat=3)]).to(weight)
        return _mean(torch.einsum("nszyx,sc->nczyx", weight, shifts), 1)


def similarity(reference: Tensor, template: Tensor, reach: int) -> Tensor:
    """Similarity of R and T at every shift, relative to the other shifts: ``exp(-d / mean d)`` in (0, 1].

    d is the squared difference over 3 x 3 x 3 voxels after the local mean of each image is subtracted, because
    breathing changes the density.

    Args:
        reference: R, ``[n, 1, z, y, x]``.
        template: T on the same grid; border values are repeated outside.
        reach: search radius in voxels along each axis.

    Returns:
        ``[n, (2 reach + 1)^3, z, y, x]``. Shifts are ordered with z slowest; T(x + shift) is compared with R(x).
    """
    r, t = (v - _mean(v, 2) for v in (reference, template))
    padded = functional.pad(t, (reach,) * 6, mode="replicate")
    z, y, x = reference.shape[2:]
    distances = reference.new_empty((reference.shape[0], (2 * reach + 1) ** 3, z, y, x))
    for number, (k, j, i) in enumerate(product(range(2 * reach + 1), repeat=3)):
        squared = (r - padded[:, :, k : k + z, j : j + y, i : i + x]).square_()
        distances[:, number] = _sum(squared, 1)[:, 0]
    return distances.div_(-distances.mean(dim=1, keepdim=True).clamp_min_(1e-6)).exp_()


def _mean(values: Tensor, reach: int) -> Tensor:
    """Local mean over a box of ``2 reach + 1`` voxels along each axis, without what lies outside the volume."""
    return _sum(values, reach).div_(_sum(torch.ones_like(values[:1, :1]), reach))


def _sum(values: Tensor, reach: int) -> Tensor:
    """Local sum over such a box with zeros outside; one axis at a time, which is faster than pooling."""
    for axis in (2, 3, 4):
        size, total = values.shape[axis], values.clone()
        for step in range(1, min(reach, size - 1) + 1):
            n = size - step
            total.narrow(axis, 0, n).add_(values.narrow(axis, step, n))
            total.narrow(axis, step, n).add_(values.narrow(axis, 0, n))
        values = total
    return values


def scale_density_normalised(warped: Tensor, det: Tensor) -> Tensor:
    """Apply :func:`~ChangeMapJointLib.joint.density.scale_density` to a T(y) that is :func:`normalised`.

    Args:
        warped: T(y), ``[n, 1, z, y, x]`` in [-1, 1].
        det: det grad y, ``[n, z, y, x]``.
    """
    low, high = NETWORK_WINDOW_HU
    return normalised(scale_density((warped + 1) * ((high - low) / 2) + low, det))


def normalised(hu: Tensor) -> Tensor:
    """Clip HU to :data:`~ChangeMapJointLib.core.hu.NETWORK_WINDOW_HU` and scale the window to [-1, 1]."""
    low, high = NETWORK_WINDOW_HU
    return (hu.float().clamp(low, high) - low) * (2 / (high - low)) - 1
