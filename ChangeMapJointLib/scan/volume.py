"""The type that holds a CT scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import Grid


@dataclass(frozen=True)
class Acquisition:
    """How and when the scan was made, from the file's header; None where the header does not say.

    The patient's name and number are not kept: ``patient_key`` is a salted hash that only serves to compare two scans.
    """

    date: str | None = None  # ISO, YYYY-MM-DD
    modality: str | None = None
    kernel: str | None = None
    slice_thickness_mm: float | None = None
    contrast: str | None = None
    manufacturer: str | None = None
    series_description: str | None = None
    patient_key: str | None = None
    time: str | None = None  # ISO, HH:MM:SS
    phase: str | None = None  # cardiac or breathing phase, or time point
    kvp: float | None = None  # tube voltage in kV
    exposure_mas: float | None = None
    ctdi_vol_mgy: float | None = None
    lossy_ratio: float | None = None  # of a compression that lost detail; 1 where it is not given, None without


@dataclass(frozen=True)
class Volume:
    """A CT scan.

    Attributes:
        array: HU, int16 or float32, ``[z, y, x]``; never modified in place.
        grid: the grid of the voxels.
        source: the file or folder that it was read from.
        acquisition: how the scan was made, from the header.
        notes: remarks from reading the file, one sentence each.
        unseen: bool ``[z, y, x]``, True where nothing was measured (padding, or filled in by resampling): neither air
            nor tissue, though the array has -1024 HU there. None if everything was measured. Before
            :func:`~ChangeMapJointLib.gate.checks.check_ct` has looked, only voxels for which the file has no number.
    """

    array: NDArray[np.int16] | NDArray[np.float32]
    grid: Grid
    source: Path = Path()
    acquisition: Acquisition = field(default_factory=Acquisition)
    notes: tuple[str, ...] = ()
    unseen: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"Volume 'array' must have the grid's shape {self.grid.shape}, got {self.array.shape}")
        if self.unseen is not None and self.unseen.shape != self.grid.shape:
            raise ValueError(f"Volume 'unseen' must have the grid's shape {self.grid.shape}, got {self.unseen.shape}")
