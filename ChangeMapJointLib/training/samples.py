"""Pairs that ``changemap synthesize`` wrote, as the network and its losses see them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Shape3, apply_affine, bounding_box
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.io.write import atomic_path, read_displacement
from ChangeMapJointLib.joint.scans import MARGIN_MM, network_scans, smoothed, to_network
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register
from ChangeMapJointLib.registration.deformable.similarity import edge_parameter
from ChangeMapJointLib.registration.keypoints.detect import KeypointOptions
from ChangeMapJointLib.registration.keypoints.match import MatchingOptions, find_correspondences
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.truth import read_truth
from ChangeMapJointLib.training.losses import Sample

FORMAT = 3  # of cached samples; raise it when they are made in another way
EDGE_FACTOR = 0.5
TRUE_SIDE = 64
SIDES = ("reference", "template")


def read_sample(
    folder: Path, shape: Shape3, *, with_registration: bool = False, match_resolution: bool = False
) -> Sample:
    """One pair that ``changemap synthesize`` wrote, for training.

    Args:
        folder: of the pair.
        shape: (z, y, x) of the network's input.
        with_registration: find y by Eq. (1) as well, as the method ``sequential`` does; takes about 10 s.
        match_resolution: as the network has it.

    Raises:
        InputError: a file is missing or cannot be read, or the scans cannot be aligned.
    """
    scans = [read_volume(folder / f"{side}.nrrd") for side in SIDES]
    masks = [read_array(folder / f"lungs_{side}.nrrd")[0].astype(bool) for side in SIDES]
    lesions = [read_array(folder / f"lesions_{side}.nrrd")[0] for side in SIDES]
    pair = ScanPair(Scan.of(scans[0], masks[0]), Scan.of(scans[1], masks[1]))
    rigid = align_rigid(pair.reference, pair.template).matrix
    pair = pair.aligned(rigid)
    seen = network_scans(pair, shape, match_resolution=match_resolution)
    grid = seen.grid
    changed = [change.id for change in read_truth(folder / "truth.json").changes if change.is_change]
    masks_r, masks_t = (
        [torch.from_numpy(mask) for mask in lesion_masks(label, changed, volume.grid, grid, matrix)]
        for label, volume, matrix in zip(lesions, scans, (np.eye(4), rigid), strict=True)
    )
    found = None
    if with_registration:
        found = register(pair, keypoints=find_correspondences(pair).keypoints).field
    true = read_displacement(folder / "deformation.nrrd")
    r_mm, t_mm = read_keypoints(folder / "keypoints.csv")
    partners = apply_affine(np.linalg.inv(rigid), t_mm) - r_mm
    images = [torch.from_numpy(v) for v in (seen.reference, seen.template)]
    lungs = [torch.from_numpy(v) for v in (seen.lungs_reference, seen.lungs_template)]
    edges = [
        EDGE_FACTOR * edge_parameter(image, grid.spacing_mm, mask > 0.5)
        for image, mask in zip(images, lungs, strict=True)
    ]
    return Sample(
        reference=images[0],
        template=images[1],
        mask_reference=lungs[0],
        mask_template=lungs[1],
        lesions_reference=masks_r[0],
        lesions_template=masks_t[0],
        changed_reference=masks_r[1],
        changed_template=masks_t[1],
        keypoints_vox=torch.as_tensor(grid.to_index(r_mm), dtype=torch.float32),
        partners_mm=torch.as_tensor(partners, dtype=torch.float32),
        edges=(edges[0], edges[1]),
        spacing_mm=grid.spacing_mm,
        true_mm=torch.from_numpy(to_network(true, coarser(grid), rigid)),
        registered_mm=None if found is None else torch.from_numpy(to_network(found, coarser(grid), rigid)),
    )


def coarser(grid: Grid) -> Grid:
    """Fewer voxels in the same box, for what is smooth: :data:`TRUE_SIDE` a side at most; ``grid`` is upright."""
    shape = tuple(min(n, TRUE_SIDE) for n in grid.shape)
    factor = np.array(grid.size) / shape[::-1]
    spacing, origin = factor * grid.spacing_mm, np.array(grid.origin_mm) + (factor - 1) / 2 * grid.spacing_mm
    return Grid(shape, tuple(spacing.tolist()), tuple(origin.tolist()))  # type: ignore[arg-type]


def lesion_masks(
    labels: NDArray[np.generic], changed: Sequence[int], source: Grid, target: Grid, matrix: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lesions on the network's grid, each with its own volume: all, and those that changed; 0 or 1, ``[z, y, x]``.

    A threshold of one half after the low-pass would lose small lesions, and more of one between thick slices than of
    the same one between thin: a stable lesion would be taught as a change. So many voxels of each are taken, the
    fullest first, as fill its volume, and one at least.

    Args:
        labels: id of the lesion in every voxel of ``source``, 0 elsewhere.
        changed: ids of those that changed.
        source: their grid.
        target: the network's grid.
        matrix: 4x4, from ``target``'s space to that of ``source``.
    """
    everything, those = np.zeros(target.shape, np.float32), np.zeros(target.shape, np.float32)
    numbers = np.asarray(labels).astype(np.int64)
    reach = np.ceil(2 * max(target.spacing_mm) / np.array(source.spacing_mm[::-1])) + 2  # more than the low-pass sees
    for lesion in np.unique(numbers[numbers > 0]):
        start, stop = bounding_box(numbers == lesion, reach)
        part, grid = numbers[tuple(map(slice, start, stop))] == lesion, source.crop(start, stop)
        corners = grid.to_physical(np.array(list(product(*((-1, n) for n in grid.size)))))
        index = target.to_index(apply_affine(np.linalg.inv(matrix), corners))[:, ::-1]
        low = np.maximum(np.floor(index.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(index.max(axis=0)) + 1, target.shape).astype(int)
        if (high <= low).any():
            continue
        box, there = tuple(map(slice, low, high)), target.crop(low, high)
        share = resample(smoothed(part, grid, there), grid, there, matrix=matrix)
        wanted = max(round(float(part.sum()) * source.voxel_volume_ml / target.voxel_volume_ml), 1)
        fullest = np.argsort(-share, axis=None, kind="stable")[:wanted]
        filled = np.unravel_index(fullest[share.flat[fullest] > 0], share.shape)
        for mask in (everything, those) if lesion in changed else (everything,):
            mask[box][filled] = 1.0
    return everything, those


def read_keypoints(path: Path) -> tuple[FloatArray, FloatArray]:
    """Corresponding points of the reference and the template, each ``[n, 3]`` mm LPS.

    Raises:
        InputError: no such file, or not what ``changemap synthesize`` writes.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [[float(row[f"{side}{axis}"]) for side in "rt" for axis in "xyz"] for row in csv.DictReader(stream)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"cannot be read ({error})", field=path, expected="columns rx, ry, rz, tx, ty, tz in mm"
        ) from error
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return table[:, :3], table[:, 3:]


class PairDataset(torch.utils.data.Dataset[Sample]):
    """Samples of pair folders, kept on disk once they are made: alignment and resampling take seconds a pair."""

    def __init__(
        self,
        folders: Sequence[Path],
        shape: Shape3,
        cache: Path,
        *,
        with_registration: bool = False,
        match_resolution: bool = False,
    ) -> None:
        """Prepare.

        Args:
            folders: as ``changemap synthesize`` writes them.
            shape: (z, y, x) of the network's input.
            cache: folder for what was made.
            with_registration: find y of each by Eq. (1) as well.
            match_resolution: as the network has it.
        """
        self.folders, self.shape, self.cache = list(folders), shape, cache
        self.with_registration, self.match_resolution = with_registration, match_resolution

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``; volumes in float16 on disk, float32 here."""
        kept = self.cache / f"{self._key(self.folders[index])}.pt"
        try:
            told: dict[str, Any] = torch.load(kept, weights_only=True)
        except Exception:  # not there, or damaged: torch raises many kinds
            made = read_sample(
                self.folders[index],
                self.shape,
                with_registration=self.with_registration,
                match_resolution=self.match_resolution,
            )
            told = {f.name: _small(getattr(made, f.name)) for f in fields(made)}
            self.cache.mkdir(parents=True, exist_ok=True)
            with atomic_path(kept) as part:  # another process may write the same at the same time
                torch.save(told, part)
        values: dict[str, Any] = {name: v.float() if isinstance(v, Tensor) else v for name, v in told.items()}
        return Sample(**values)

    def digest(self) -> str:
        """Changes when the pairs do."""
        return hashlib.sha256("".join(map(self._key, self.folders)).encode()).hexdigest()

    def _key(self, folder: Path) -> str:
        """Of what the pair is, wherever it lies, and of how samples are made."""
        try:
            truth = (folder / "truth.json").read_bytes()
        except OSError as error:
            raise InputError(
                f"no pair ({error.strerror})", field=folder, expected="a folder that the synthesis of pairs wrote"
            ) from error
        how = f"{FORMAT} {self.shape} {MARGIN_MM} {EDGE_FACTOR}"
        if self.with_registration:
            how += json.dumps([to_mapping(o()) for o in (RegistrationOptions, KeypointOptions, MatchingOptions)])
        if self.match_resolution:  # only then: samples that were kept before there was a choice stay good
            how += " matched"
        return f"{folder.name}_{hashlib.sha256(truth + how.encode()).hexdigest()[:16]}"


def _small(value: object) -> object:
    return value.half() if isinstance(value, Tensor) and value.ndim == 3 else value


def to_device(sample: Sample, device: torch.device) -> Sample:
    """The sample with its tensors on ``device``."""
    values: dict[str, Any] = {f.name: getattr(sample, f.name) for f in fields(sample)}
    values = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
    return Sample(**values)
