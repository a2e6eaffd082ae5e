"""Training samples from the pairs that ``changemap synthesize`` writes."""

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
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.io.write import atomic_path, read_displacement
from ChangeMapJointLib.joint.scans import MARGIN_MM, network_scans, smoothed, to_network
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register_deformable
from ChangeMapJointLib.registration.deformable.similarity import edge_parameter
from ChangeMapJointLib.registration.keypoints.detect import KeypointOptions
from ChangeMapJointLib.registration.keypoints.match import MatchingOptions, find_correspondences
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.truth import read_truth
from ChangeMapJointLib.training.losses import Sample

FORMAT = 3  # of cached samples; increase it when their content changes
EDGE_FACTOR = 0.5
TRUE_SIDE = 64  # largest size of the stored deformations along each axis
SIDES = ("reference", "template")


def read_sample(
    folder: Path, shape: Shape3, *, with_registration: bool = False, match_resolution: bool = False
) -> Sample:
    """Read one pair that ``changemap synthesize`` wrote.

    Args:
        folder: of the pair.
        shape: (z, y, x) of the network's input.
        with_registration: also find y by Eq. (1), as the method ``sequential`` does; takes about 10 s.
        match_resolution: option of the network.

    Raises:
        InputError: a file is missing or cannot be read, or the scans cannot be aligned.
    """
    scans = [read_volume(folder / f"{side}.nrrd") for side in SIDES]
    masks = [read_array(folder / f"lungs_{side}.nrrd")[0].astype(bool) for side in SIDES]
    lesion_labels = [read_array(folder / f"lesions_{side}.nrrd")[0] for side in SIDES]
    pair = ScanPair(Scan.of(scans[0], masks[0]), Scan.of(scans[1], masks[1]))
    rigid = align_rigid(pair.reference, pair.template).matrix
    pair = pair.aligned(rigid)
    network_pair = network_scans(pair, shape, match_resolution=match_resolution)
    grid = network_pair.grid
    changed = [change.id for change in read_truth(folder / "truth.json").changes if change.is_change]
    lesions_r, lesions_t = (
        [torch.from_numpy(mask) for mask in lesion_masks(label, changed, volume.grid, grid, matrix)]
        for label, volume, matrix in zip(lesion_labels, scans, (np.eye(4), rigid), strict=True)
    )
    registered = None
    if with_registration:
        registered = register_deformable(pair, keypoints=find_correspondences(pair).keypoints).field
    true = read_displacement(folder / "deformation.nrrd")
    r_mm, t_mm = read_keypoints(folder / "keypoints.csv")
    partners = apply_affine(np.linalg.inv(rigid), t_mm) - r_mm
    images = [torch.from_numpy(v) for v in (network_pair.reference, network_pair.template)]
    lungs = [torch.from_numpy(v) for v in (network_pair.lungs_reference, network_pair.lungs_template)]
    edges = [
        EDGE_FACTOR * edge_parameter(image, grid.spacing_mm, mask > 0.5)
        for image, mask in zip(images, lungs, strict=True)
    ]
    return Sample(
        reference=images[0],
        template=images[1],
        mask_reference=lungs[0],
        mask_template=lungs[1],
        lesions_reference=lesions_r[0],
        lesions_template=lesions_t[0],
        changed_reference=lesions_r[1],
        changed_template=lesions_t[1],
        keypoints_vox=torch.as_tensor(grid.to_index(r_mm), dtype=torch.float32),
        partners_mm=torch.as_tensor(partners, dtype=torch.float32),
        edges=(edges[0], edges[1]),
        spacing_mm=grid.spacing_mm,
        true_mm=torch.from_numpy(to_network(true, coarse_grid(grid), rigid)),
        registered_mm=None
        if registered is None
        else torch.from_numpy(to_network(registered, coarse_grid(grid), rigid)),
    )


def coarse_grid(grid: Grid) -> Grid:
    """A grid for smooth fields over the same box, at most :data:`TRUE_SIDE` voxels per side; ``grid`` is upright."""
    shape = tuple(min(n, TRUE_SIDE) for n in grid.shape)
    factor = np.array(grid.size) / shape[::-1]
    spacing, origin = factor * grid.spacing_mm, np.array(grid.origin_mm) + (factor - 1) / 2 * grid.spacing_mm
    return Grid(shape, tuple(spacing.tolist()), tuple(origin.tolist()))  # type: ignore[arg-type]


def lesion_masks(
    labels: NDArray[np.generic], changed: Sequence[int], source: Grid, target: Grid, matrix: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Resample lesion masks to the network's grid so that every lesion keeps its volume.

    A threshold of one half after the low-pass would lose small lesions, and would lose more of a lesion in thick slices
    than of the same lesion in thin ones, so that stable lesions would be labelled as changed. Instead, each lesion gets
    as many voxels as its volume fills, but at least one, in descending order of their partial volume.

    Args:
        labels: id of the lesion in every voxel, ``[z, y, x]`` on ``source``; 0 elsewhere.
        changed: ids of the lesions that changed.
        source: grid of the labels.
        target: the network's grid.
        matrix: 4x4, from ``target``'s space to that of ``source``.

    Returns:
        Masks of all lesions and of those that changed, 0 or 1, float32 ``[z, y, x]``.
    """
    all_lesions, changed_lesions = np.zeros(target.shape, np.float32), np.zeros(target.shape, np.float32)
    numbers = np.asarray(labels).astype(np.int64)
    reach = (
        np.ceil(2 * max(target.spacing_mm) / np.array(source.spacing_mm[::-1])) + 2
    )  # beyond the reach of the low-pass
    for lesion in np.unique(numbers[numbers > 0]):
        start, stop = bounding_box(numbers == lesion, reach)
        part, grid = numbers[tuple(map(slice, start, stop))] == lesion, source.crop(start, stop)
        corners = grid.to_physical(np.array(list(product(*((-1, n) for n in grid.size)))))
        index = target.to_index(apply_affine(np.linalg.inv(matrix), corners))[:, ::-1]
        low = np.maximum(np.floor(index.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(index.max(axis=0)) + 1, target.shape).astype(int)
        if (high <= low).any():
            continue
        box, crop = tuple(map(slice, low, high)), target.crop(low, high)
        fraction = resample(smoothed(part, grid, crop), grid, crop, matrix=matrix)
        count = max(round(float(part.sum()) * source.voxel_volume_ml / target.voxel_volume_ml), 1)
        fullest = np.argsort(-fraction, axis=None, kind="stable")[:count]
        voxels = np.unravel_index(fullest[fraction.flat[fullest] > 0], fraction.shape)
        for mask in (all_lesions, changed_lesions) if lesion in changed else (all_lesions,):
            mask[box][voxels] = 1.0
    return all_lesions, changed_lesions


def read_keypoints(path: Path) -> tuple[FloatArray, FloatArray]:
    """Read corresponding points of reference and template, each ``[n, 3]`` in mm, LPS.

    Raises:
        InputError: the file is missing or has another format.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [[float(row[f"{side}{axis}"]) for side in "rt" for axis in "xyz"] for row in csv.DictReader(stream)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"cannot be read ({reason_of(error)})", field=path, expected="columns rx, ry, rz, tx, ty, tz in mm"
        ) from error
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return table[:, :3], table[:, 3:]


class PairDataset(torch.utils.data.Dataset[Sample]):
    """Samples of pair folders, cached on disk because alignment and resampling take seconds for each pair."""

    def __init__(
        self,
        folders: Sequence[Path],
        shape: Shape3,
        cache: Path,
        *,
        with_registration: bool = False,
        match_resolution: bool = False,
    ) -> None:
        """Describe the data set; samples are made when they are first needed.

        Args:
            folders: pairs written by ``changemap synthesize``.
            shape: (z, y, x) of the network's input.
            cache: folder for cached samples.
            with_registration: also find y of each pair by Eq. (1).
            match_resolution: option of the network.
        """
        self.folders, self.shape, self.cache = list(folders), shape, cache
        self.with_registration, self.match_resolution = with_registration, match_resolution

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> Sample:
        """Read or make sample ``index``; its volumes are float16 on disk and float32 in memory."""
        cached = self.cache / f"{self._key(self.folders[index])}.pt"
        try:
            stored: dict[str, Any] = torch.load(cached, weights_only=True)
        except Exception:  # missing or damaged: torch raises many kinds
            sample = read_sample(
                self.folders[index],
                self.shape,
                with_registration=self.with_registration,
                match_resolution=self.match_resolution,
            )
            stored = {f.name: _to_half(getattr(sample, f.name)) for f in fields(sample)}
            self.cache.mkdir(parents=True, exist_ok=True)
            with atomic_path(cached) as part:  # another process may write the same file
                torch.save(stored, part)
        values: dict[str, Any] = {name: v.float() if isinstance(v, Tensor) else v for name, v in stored.items()}
        return Sample(**values)

    def digest(self) -> str:
        """A hash that changes when the pairs do."""
        return hashlib.sha256("".join(map(self._key, self.folders)).encode()).hexdigest()

    def _key(self, folder: Path) -> str:
        """A key from the content of the pair, not its location, and from how samples are made."""
        try:
            truth = (folder / "truth.json").read_bytes()
        except OSError as error:
            raise InputError(
                f"not a pair ({error.strerror})", field=folder, expected="a pair folder written by the synthesis"
            ) from error
        recipe = f"{FORMAT} {self.shape} {MARGIN_MM} {EDGE_FACTOR}"
        if self.with_registration:
            recipe += json.dumps([to_mapping(o()) for o in (RegistrationOptions, KeypointOptions, MatchingOptions)])
        if self.match_resolution:  # only then, so that samples cached before this option existed stay valid
            recipe += " matched"
        return f"{folder.name}_{hashlib.sha256(truth + recipe.encode()).hexdigest()[:16]}"


def _to_half(value: object) -> object:
    return value.half() if isinstance(value, Tensor) and value.ndim == 3 else value


def to_device(sample: Sample, device: torch.device) -> Sample:
    """Copy the sample's tensors to ``device``."""
    values: dict[str, Any] = {f.name: getattr(sample, f.name) for f in fields(sample)}
    values = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
    return Sample(**values)
