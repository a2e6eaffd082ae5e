"""What the joint network costs, on a pair of ``changemap synthesize``: ``network_cost.py PAIR [--weights FILE]``.

* Inference of both scans at 264 x 264 x 120 on the CPU (the default network takes multiples of 24; this grid has 0.3 %
  fewer voxels than 256 x 256 x 128), in a process of its own: seconds, and peak memory with scans; in bfloat16, as on
  CPUs that are fast at it, and in float32, as on any other.
* Training of ``paper.json`` at 256 x 256 x 128: what autograd keeps from the way forward to the way back, counted at
  128 x 128 x 64 and scaled by the voxels, for both precisions; the peak memory of whole steps on the CPU, in a process
  of its own and float32, with and without checkpointing; and, on a CUDA device, that of a whole step.

Writes ``results/network_cost.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from record import write_results

from ChangeMapJointLib.cli.train import training_options
from ChangeMapJointLib.core.memory import peak_memory_mb
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.joint.checkpoint import read_checkpoint
from ChangeMapJointLib.joint.inference import run_network
from ChangeMapJointLib.joint.network import JointNetwork
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.training.losses import Sample, joint_terms, total
from ChangeMapJointLib.training.samples import to_device
from ChangeMapJointLib.training.trainer import TrainingOptions

FULL, SMALL = (128, 256, 256), (64, 128, 128)
ABOUT_FULL = (120, 264, 264)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--only", choices=list(PARTS), help="one part, in this process")
    asked = parser.parse_args()
    weights = asked.weights or resource("Models", "default.safetensors")
    if asked.only:
        print(json.dumps(PARTS[asked.only](asked.pair, weights)))
        return
    options = training_options("paper")
    figures: dict[str, Any] = {}
    for name in PARTS:
        command = [sys.executable, __file__, str(asked.pair), "--weights", str(weights), "--only", name]
        times = 3 if "inference" in name else 1
        runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(times)]
        median = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
        figures[name] = {**median, "runs": times}
    counted = {}
    for precision in ("bf16-mixed", "32-true"):
        for checkpointing in (True, False):
            network = replace(options.network, checkpointing=checkpointing)
            kept = kept_bytes(replace(options, network=network, precision=precision))
            name = f"{precision}, {'with' if checkpointing else 'without'} checkpointing"
            counted[name] = round(kept * np.prod(FULL) / np.prod(SMALL) / 2**30, 2)
    figures["training_paper_256x256x128_kept_gib"] = counted
    if torch.cuda.is_available():
        figures["training_paper_256x256x128_cuda_peak_gib"] = cuda_peak(options)
    print(json.dumps(figures, indent=2))
    print(write_results("network_cost", figures))


def inference(folder: Path, weights: Path, *, fast: bool) -> dict[str, float]:
    """Seconds and peak memory of one answer, in bfloat16 or not."""
    torch.set_num_threads(2)
    scans = [read_volume(folder / f"{side}.nrrd") for side in ("reference", "template")]
    lungs = [read_array(folder / f"lungs_{side}.nrrd")[0] > 0 for side in ("reference", "template")]
    model = read_checkpoint(weights)
    before, started = peak_memory_mb() or 0.0, time.monotonic()
    with mock.patch("ChangeMapJointLib.joint.inference.bfloat16_is_fast", return_value=fast):
        run_network(model, ScanPair.of(*scans, *lungs), shape=ABOUT_FULL)
    return {
        "seconds": round(time.monotonic() - started, 2),
        "peak_memory_mb": peak_memory_mb() or 0.0,
        "memory_before_mb": before,
    }


def step(_: Path, __: Path, *, checkpointing: bool) -> dict[str, float]:
    """Seconds and peak memory of a whole step of ``paper.json`` on the CPU, in float32."""
    torch.set_num_threads(2)
    options = training_options("paper")
    options = replace(options, network=replace(options.network, checkpointing=checkpointing), precision="32-true")
    network = JointNetwork(options.network).train()
    optimiser = torch.optim.Adam(network.parameters())
    sample = random_sample(FULL)
    before, started = peak_memory_mb() or 0.0, time.monotonic()
    loss_of(network, sample, options).backward()
    optimiser.step()
    return {
        "seconds": round(time.monotonic() - started, 2),
        "peak_memory_mb": peak_memory_mb() or 0.0,
        "memory_before_mb": before,
    }


PARTS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "inference_264x264x120_cpu": partial(inference, fast=True),
    "inference_264x264x120_cpu_float32": partial(inference, fast=False),
    "step_paper_256x256x128_cpu_checkpointing": partial(step, checkpointing=True),
    "step_paper_256x256x128_cpu": partial(step, checkpointing=False),
}


def random_sample(shape: tuple[int, int, int]) -> Sample:
    """Noise; memory depends on the shape alone."""
    volumes = [torch.rand(shape, generator=torch.Generator().manual_seed(n)) for n in range(8)]
    points = torch.rand(3000, 3) * torch.tensor(shape[::-1])
    return Sample(*volumes, points, torch.zeros(3000, 3), (50.0, 50.0), (1.5, 1.3, 2.5))


def kept_bytes(options: TrainingOptions) -> int:
    """What autograd keeps for the way back, each storage once; weights and scans themselves left out."""
    network, sample = JointNetwork(options.network).train(), random_sample(SMALL)
    known = {p.data_ptr() for p in network.parameters()} | {
        v.data_ptr() for v in vars(sample).values() if torch.is_tensor(v)
    }
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(network, sample, options)
    return sum(size for size, _ in kept.values())


def loss_of(network: JointNetwork, sample: Sample, options: TrainingOptions) -> torch.Tensor:
    """Eq. (2) of one pair."""
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=options.precision != "32-true"):
        found = network(sample.reference[None, None], sample.template[None, None], sample.spacing_mm)
    terms, _ = joint_terms(
        found.displacement_mm[0], found.logits[0].float(), sample, torch.ones(2), options=options.loss
    )
    return total(terms, options.weights)


def cuda_peak(options: TrainingOptions) -> float:
    """Peak memory in GiB of two whole steps on the GPU."""
    network = JointNetwork(options.network).cuda().train()
    optimiser = torch.optim.Adam(network.parameters())
    sample = to_device(random_sample(FULL), torch.device("cuda"))
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        optimiser.zero_grad()
        loss_of(network, sample, options).backward()
        optimiser.step()
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


if __name__ == "__main__":
    main()
