"""The network's answer to two scans: y and CM_learn, from R and T alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ChangeMapJointLib.core.choices import DEFAULT_WEIGHTS
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Grid, Shape3
from ChangeMapJointLib.core.memory import is_out_of_memory
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.joint.network import JointNetwork, JointOutput
from ChangeMapJointLib.joint.scans import NetworkScans, from_network, network_scans, to_network
from ChangeMapJointLib.scan.pair import ScanPair


@dataclass(frozen=True)
class JointOptions:
    """How the network is used.

    Attributes:
        model: name of weights that ship with the project, or a ``.safetensors`` file with its card beside it.
        shape: (z, y, x) of the grid that the network sees; None: as it was trained.
        instance: iterations of Eq. (1) that start from the network's y, coarsest level first; empty: none.
    """

    model: str = DEFAULT_WEIGHTS
    shape: Shape3 | None = None
    instance: tuple[int, ...] = (60, 40, 20)

    def __post_init__(self) -> None:
        require(
            self,
            shape=(
                self.shape is None or (len(self.shape) == 3 and all(within(n, 8, 1024) for n in self.shape)),
                "three numbers of voxels (z, y, x) from 8 to 1024, or none",
            ),
            instance=(
                len(self.instance) <= 6 and all(within(n, 1, 10_000) for n in self.instance),
                "up to 6 numbers from 1 to 10000, one a level",
            ),
        )


@dataclass(frozen=True)
class JointAnswer:
    """What the network says of a pair.

    Attributes:
        field: y on a grid that covers the whole reference, rigid part included.
        learned: CM_learn, float32 ``[z, y, x]`` on the reference's grid; 0 where the network did not look.
        scans: what it saw.
        device: where it computed.
        notes: sentences on what had to be done in another way than asked for.
    """

    field: DisplacementField
    learned: NDArray[np.float32]
    scans: NetworkScans
    device: torch.device
    notes: tuple[str, ...] = ()


def ask_network(
    checkpoint: Checkpoint,
    pair: ScanPair,
    *,
    shape: Shape3 | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> JointAnswer:
    """Both scans on the network's grid, through the network, and its answer on the reference's own grid.

    Where memory does not suffice, a grid of half as many voxels a side is tried, and on a GPU's failure the CPU;
    ``notes`` say so.

    Args:
        checkpoint: the network.
        pair: both scans with lungs, rigidly aligned.
        shape: (z, y, x) of the network's grid; by default as it was trained.
        device: where the network computes.
        progress: told the fraction done; raise from it to stop.

    Raises:
        InputError: a shape that the network cannot take, or not even the smallest grid fits the memory.
    """
    asked = usable_shape(checkpoint, shape)
    device = torch.device(device)
    matched = checkpoint.network.options.match_resolution
    attempts = _attempts(asked, checkpoint.network.options.multiple, device)
    for where, size in attempts:
        try:
            seen = network_scans(pair, size, match_resolution=matched)
            progress(0.4)
            u, learned = _forward(checkpoint.network, seen, where)
            progress(0.8)
            field = from_network(u, seen.grid, pair.rigid, pair.reference.grid)
            on_reference = resample(learned, seen.grid, pair.reference.grid)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            continue
        progress(1.0)
        return JointAnswer(field, on_reference, seen, where, _notes(asked, size, device, where))
    raise InputError(
        "not enough memory for the network",
        field="method",
        value="joint",
        remedy=("use ", Argument("method", "sequential")),
    )


def usable_shape(checkpoint: Checkpoint, shape: Shape3 | None = None) -> Shape3:
    """(z, y, x) of the grid that the network will see: ``shape``, or as it was trained.

    Raises:
        InputError: the network cannot take it.
    """
    asked, multiple = shape or trained_shape(checkpoint), checkpoint.network.options.multiple
    if any(n % multiple for n in asked) or max(asked) == multiple:
        raise InputError(
            f"found {list(asked)}",
            field="config.joint.shape",
            expected=f"multiples of {multiple} for this network, one of them larger",
        )
    return asked


def trained_shape(checkpoint: Checkpoint) -> Shape3:
    """(z, y, x) of the grid in the card.

    Raises:
        InputError: the card does not say.
    """
    told = checkpoint.card.get("training", {})
    shape = told.get("shape") if isinstance(told, dict) else None
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n <= 1024 for n in shape)):
        raise InputError(
            f"found training.shape = {shape!r}", field="card of the weights", expected="three numbers (z, y, x)"
        )
    return shape[0], shape[1], shape[2]


def _attempts(shape: Shape3, multiple: int, device: torch.device) -> list[tuple[torch.device, Shape3]]:
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    smaller = [half] if all(n >= multiple and n % multiple == 0 for n in half) and max(half) > multiple else []
    return [(place, size) for place in _places(device) for size in (shape, *smaller)]


def _places(device: torch.device) -> list[torch.device]:
    """Where to compute, and where else when memory does not suffice there."""
    return [device] if device.type == "cpu" else [device, torch.device("cpu")]


def _notes(asked: Shape3, size: Shape3, device: torch.device, where: torch.device) -> tuple[str, ...]:
    notes = []
    if where.type != device.type:
        notes.append("The GPU's memory did not suffice for the network; it computed on the CPU.")
    if size != asked:
        grids = [" x ".join(map(str, s[::-1])) for s in (size, asked)]
        notes.append(f"Memory did not suffice: the network saw {grids[0]} voxels instead of {grids[1]}.")
    return tuple(notes)


def look_again(checkpoint: Checkpoint, answer: JointAnswer, field: DisplacementField, reference: Grid) -> JointAnswer:
    """The answer with CM_learn as the last block says it where a better y has put T.

    That block tells change from what y has left over; after instance optimisation little is left.

    Args:
        checkpoint: the network that gave ``answer``.
        answer: its first one; it stays as it is, with a note, where memory does not suffice.
        field: y after instance optimisation, rigid part included.
        reference: R's own grid.
    """
    seen = answer.scans
    for place in _places(answer.device):
        try:
            u = torch.from_numpy(to_network(field, seen.grid, seen.rigid))
            _, learned = _forward(checkpoint.network, seen, place, u)
            return replace(answer, learned=resample(learned, seen.grid, reference))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    note = "Memory did not suffice for a second look of the network: CM_learn is that of its own deformation."
    return replace(answer, notes=(*answer.notes, note))


@torch.inference_mode()
def _forward(
    network: JointNetwork, seen: NetworkScans, device: torch.device, start_mm: torch.Tensor | None = None
) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """U ``[3, z, y, x]`` in mm and CM_learn, the last block from ``start_mm`` where that is given."""
    try:
        network.to(device).eval()
        r, t = (torch.from_numpy(v)[None, None].to(device) for v in (seen.reference, seen.template))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu" and bfloat16_is_fast()):
            if start_mm is None:
                found = network(r, t, seen.grid.spacing_mm)
            else:
                before = network.coarse(r, t, seen.grid.spacing_mm)
                start = start_mm[None].to(device)
                logits = before[-1].logits if before else torch.zeros_like(start[:, :2])
                found = network.finest(r, t, seen.grid.spacing_mm, JointOutput(start, logits))
        return found.displacement_mm[0].float().cpu(), found.change[0].float().cpu().numpy()
    finally:
        network.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def bfloat16_is_fast() -> bool:
    """Whether the processor computes in bfloat16: convolutions then take half the time and memory of float32."""
    told = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public name yet; without it float32 is right too
    return bool(told and told())
