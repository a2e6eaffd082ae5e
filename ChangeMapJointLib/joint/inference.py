"""Inference of the joint network: y and CM_learn from R and T alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.choices import DEFAULT_WEIGHTS
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Grid, Shape3
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.memory import is_out_of_memory
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.joint.scans import NetworkScans, from_network, network_scans, to_network
from ChangeMapJointLib.scan.pair import ScanPair

if TYPE_CHECKING:
    from ChangeMapJointLib.joint.network import JointNetwork


@dataclass(frozen=True)
class JointOptions:
    """How the network is used.

    Attributes:
        model: name of weights that ship with the project, or a ``.safetensors`` file with its card beside it.
        shape: (z, y, x) of the network's grid; None: the shape it was trained with.
        instance: iterations of Eq. (1) for each level, coarsest first, starting from the network's y (instance
            optimisation); empty: none.
    """

    model: str = DEFAULT_WEIGHTS
    shape: Shape3 | None = None
    instance: tuple[int, ...] = (60, 40, 20)

    def __post_init__(self) -> None:
        require(
            self,
            shape=(
                self.shape is None or (len(self.shape) == 3 and all(within(n, 8, 1024) for n in self.shape)),
                "three sizes in voxels (z, y, x) from 8 to 1024, or none",
            ),
            instance=(
                len(self.instance) <= 6 and all(within(n, 1, 10_000) for n in self.instance),
                "up to 6 numbers from 1 to 10000, one for each level",
            ),
        )


@dataclass(frozen=True)
class JointPrediction:
    """What the network predicts for a pair.

    Attributes:
        field: y on a grid that covers the whole reference, rigid part included.
        learned: CM_learn, float32 ``[z, y, x]`` in [0, 1] on the reference's grid; 0 outside the network's grid.
        scans: both scans as the network saw them.
        device: where the network ran.
        notes: sentences for the user where the run differs from what was asked for.
    """

    field: DisplacementField
    learned: NDArray[np.float32]
    scans: NetworkScans
    device: torch.device
    notes: tuple[str, ...] = ()


def run_network(
    checkpoint: Checkpoint,
    pair: ScanPair,
    *,
    shape: Shape3 | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> JointPrediction:
    """Run the network on a pair and return its prediction in the reference's space.

    If memory runs out, the run is repeated with half as many voxels along each axis, and after a GPU on the CPU. The
    ``notes`` of the result then say so.

    Args:
        checkpoint: the network.
        pair: both scans with lungs, rigidly aligned.
        shape: (z, y, x) of the network's grid; by default the shape it was trained with.
        device: where the network runs first.
        progress: called with the fraction done; raise from it to stop.

    Raises:
        InputError: the network cannot take the shape, or memory is too small even for the coarsest attempt.
    """
    requested_shape = usable_shape(checkpoint, shape)
    device = torch.device(device)
    options = checkpoint.network.options
    for attempt_device, attempt_shape in _attempts(requested_shape, options.multiple, device):
        try:
            scans = network_scans(pair, attempt_shape, match_resolution=options.match_resolution)
            progress(0.4)
            u, learned = _forward(checkpoint.network, scans, attempt_device)
            progress(0.8)
            field = from_network(u, scans.grid, pair.rigid, pair.reference.grid)
            learned = resample(learned, scans.grid, pair.reference.grid)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            continue
        progress(1.0)
        notes = _notes(requested_shape, attempt_shape, device, attempt_device)
        return JointPrediction(field, learned, scans, attempt_device, notes)
    raise InputError(
        "not enough memory for the network",
        field="method",
        value="joint",
        remedy=("use ", Argument("method", "sequential")),
    )


def usable_shape(checkpoint: Checkpoint, shape: Shape3 | None = None) -> Shape3:
    """The shape (z, y, x) of the network's grid: ``shape``, or by default the shape it was trained with.

    Raises:
        InputError: the network cannot take it.
    """
    usable, multiple = shape or trained_shape(checkpoint), checkpoint.network.options.multiple
    if any(n % multiple for n in usable) or max(usable) == multiple:
        raise InputError(
            f"found {list(usable)}",
            field="config.joint.shape",
            expected=f"multiples of {multiple} for this network, at least one above {multiple}",
        )
    return usable


def trained_shape(checkpoint: Checkpoint) -> Shape3:
    """The shape (z, y, x) that the network was trained with, from its card.

    Raises:
        InputError: the card does not hold one.
    """
    training = checkpoint.card.get("training", {})
    shape = training.get("shape") if isinstance(training, dict) else None
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n <= 1024 for n in shape)):
        raise InputError(
            f"found training.shape = {shape!r}", field="card of the weights", expected="three numbers (z, y, x)"
        )
    return shape[0], shape[1], shape[2]


def _attempts(shape: Shape3, multiple: int, device: torch.device) -> list[tuple[torch.device, Shape3]]:
    """Devices and shapes in the order in which they are tried."""
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    smaller = [half] if all(n >= multiple and n % multiple == 0 for n in half) and max(half) > multiple else []
    return [(candidate, size) for candidate in _devices(device) for size in (shape, *smaller)]


def _devices(device: torch.device) -> list[torch.device]:
    """The device, and the CPU as a fallback when the device's memory runs out."""
    return [device] if device.type == "cpu" else [device, torch.device("cpu")]


def _notes(
    requested_shape: Shape3, used_shape: Shape3, requested_device: torch.device, used_device: torch.device
) -> tuple[str, ...]:
    notes = []
    if used_device.type != requested_device.type:
        notes.append("The GPU did not have enough memory for the network, so it ran on the CPU.")
    if used_shape != requested_shape:
        used, requested = (" x ".join(map(str, shape[::-1])) for shape in (used_shape, requested_shape))
        notes.append(f"There was not enough memory: the network ran on {used} voxels instead of {requested}.")
    return tuple(notes)


def update_learned_change(
    checkpoint: Checkpoint, prediction: JointPrediction, field: DisplacementField, reference_grid: Grid
) -> JointPrediction:
    """Recompute CM_learn with the last block, starting from a better deformation than the network's own.

    The last block separates real change from misalignment. After instance optimisation little misalignment is left.

    Args:
        checkpoint: the network that made ``prediction``.
        prediction: its first result; where memory runs out it is returned as it is, with a note.
        field: y after instance optimisation, rigid part included.
        reference_grid: R's own grid.

    Returns:
        ``prediction`` with the new CM_learn; its field stays the network's own.
    """
    scans = prediction.scans
    for device in _devices(prediction.device):
        try:
            u = torch.from_numpy(to_network(field, scans.grid, scans.rigid))
            _, learned = _forward(checkpoint.network, scans, device, u)
            return replace(prediction, learned=resample(learned, scans.grid, reference_grid))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    note = (
        "There was not enough memory to run the network a second time: CM_learn belongs to the network's own "
        "deformation, not to the optimised one."
    )
    return replace(prediction, notes=(*prediction.notes, note))


def _forward(
    network: JointNetwork, scans: NetworkScans, device: torch.device, start_mm: torch.Tensor | None = None
) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """Run the network, or with ``start_mm`` only its last block from there: u ``[3, z, y, x]`` in mm and CM_learn."""
    from ChangeMapJointLib.joint.network import JointOutput

    halved = device.type == "cpu" and bfloat16_is_fast()
    try:
        network.to(device).eval()
        r, t = (torch.from_numpy(v)[None, None].to(device) for v in (scans.reference, scans.template))
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=halved):
            if start_mm is None:
                output = network(r, t, scans.grid.spacing_mm)
            else:
                coarse = network.coarse(r, t, scans.grid.spacing_mm)
                start = start_mm[None].to(device)
                logits = coarse[-1].logits if coarse else torch.zeros_like(start[:, :2])
                output = network.finest(r, t, scans.grid.spacing_mm, JointOutput(start, logits))
        return output.displacement_mm[0].float().cpu(), output.change[0].float().cpu().numpy()
    finally:
        network.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def bfloat16_is_fast() -> bool:
    """Whether the CPU has bfloat16 instructions; convolutions then need half the time and memory of float32."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has no public name for it yet
    return bool(is_supported and is_supported())
