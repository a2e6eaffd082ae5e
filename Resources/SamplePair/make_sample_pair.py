"""Makes the sample pair from one real scan: run it again and the same bytes come out.

    python Resources/SamplePair/make_sample_pair.py CT LUNGS LESIONS [--out FOLDER]

CT is LIDC-IDRI-1011 at 1.5 mm (isotropic, HU clipped to [-1024, 1200], cropped to the lungs and
20 mm), LUNGS a threshold mask of its lungs and LESIONS the nodules that at least two readers
marked, all three on one grid. Their SHA-256 are in truth.json.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_dilation, binary_fill_holes, binary_opening, gaussian_filter, label

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair
from ChangeMapJointLib.synthesis.truth import Truth, write_truth

SEED = 15
HU_STEP = 8  # rounding to it adds 2.3 HU of noise to about 15, and halves the files
HU_RANGE = (-1024, 1200)
THRESHOLD = 0.68

LESIONS = (
    LesionPlan("new", 8.0, 0.0, place="vessel", side="right"),
    LesionPlan("new", 9.0, 0.0, side="left"),
    LesionPlan("grown", 13.0, 6.0, side="right", spiculated=True),
    LesionPlan("grown", 15.0, 8.0, place="pleura", side="left"),
    LesionPlan("shrunk", 8.0, 15.0, side="left"),
    LesionPlan("shrunk", 7.0, 13.0, place="vessel", side="right"),
    LesionPlan("resolved", 0.0, 8.5, side="left"),
    LesionPlan("resolved", 0.0, 12.0, place="pleura", side="right"),
    LesionPlan("stable", 8.0, 8.0, place="vessel", side="left"),
    LesionPlan("stable", 12.0, 12.0, side="right"),
    LesionPlan("new", 12.0, 0.0, texture="ground-glass", side="right"),
)
OPTIONS = PairOptions(
    motion=MotionOptions(diaphragm_mm=18.0, rotation_deg=2.5, translation_mm=4.0, frame_shift_mm=(14.0, -38.0, 25.0)),
    lesions=LESIONS,
    reference_spacing_mm=(1.6, 1.6, 1.8),
    reference_margin_mm=(12.0, 12.0, 12.0),
    template_margin_mm=(15.0, 15.0, 15.0),
    reference_noise_hu=15.0,
    points=600,
)

ABOUT = (
    "Real chest CT, synthetic change. The template (prior) is the scan of LIDC-IDRI-1011 with lesions inserted. "
    "The reference (current) is NOT a second scan: it is the same scan moved by a known breathing motion, with lung "
    "density following the volume, fresh noise, and the lesions at their later sizes."
)
SOURCE = {
    "collection": "LIDC-IDRI (The Cancer Imaging Archive)",
    "patient": "LIDC-IDRI-1011",
    "series_instance_uid": "1.3.6.1.4.1.14519.5.2.1.6279.6001.272123398257168239653655006815",
    "doi": "10.7937/K9/TCIA.2015.LO9QL9SX",
    "licence": "CC BY 3.0",
    "licence_url": "https://creativecommons.org/licenses/by/3.0/",
    "attribution": "ATTRIBUTION.txt",
}
PROCESSING = (
    "source: resampled to 1.5 mm isotropic, cropped to the lungs and 20 mm, HU clipped to [-1024, 1200]",
    "template: cropped to the lungs and 15 mm, its voxels not interpolated; lesions inserted at their earlier sizes",
    "reference: own noise reduced by anisotropic diffusion, moved by y and interpolated once (cubic B-spline) to "
    "1.6 x 1.6 x 1.8 mm in another frame; HU + 1000 of aerated lung scaled by det grad y; lesions inserted at their "
    "later sizes; Gaussian noise added (standard deviation 15 HU, correlated over 0.9 mm)",
    f"both: HU rounded to multiples of {HU_STEP}, clipped to [-1024, 1200], air outside the body set to -1024",
    "the patient's own three nodules are stable; a sphere of equal volume stands for their outline in this file",
)


def main() -> None:
    """Read the three files, make the pair, write it and its truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ct", "lungs", "lesions"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    inputs = {name: getattr(arguments, name) for name in ("ct", "lungs", "lesions")}
    images = {name: sitk.ReadImage(str(path)) for name, path in inputs.items()}
    arrays = {name: sitk.GetArrayFromImage(image) for name, image in images.items()}
    scan = Volume(arrays["ct"].astype(np.int16), Grid.of_image(images["ct"]))
    pair = make_pair(scan, arrays["lungs"] > 0, seed=SEED, options=OPTIONS, own_lesions=arrays["lesions"] > 0)

    arguments.out.mkdir(parents=True, exist_ok=True)
    shipped = {"reference": compact(pair.reference), "template": compact(pair.template)}
    about: dict[str, Any] = {
        "about": ABOUT,
        "equation": "T_warped(x) = T(y(x)): y maps reference points to template points, mm LPS; see breathing.py",
        "source": {**SOURCE, "sha256": {name: sha256(path) for name, path in inputs.items()}},
        "processing": PROCESSING,
        "seed": SEED,
        "motion_options": asdict(OPTIONS.motion),
    }
    for name, volume in shipped.items():
        path = arguments.out / f"{name}.nrrd"
        write(path, volume)
        about[name] = {"file": path.name, "sha256": sha256(path), **asdict(volume.grid)}
    about["motion_summary"] = motion_summary(pair)
    about["verification"] = verification(pair, **shipped)
    write_truth(arguments.out / "truth.json", Truth(pair.changes, pair.motion, pair.points, about))


def compact(volume: Volume) -> Volume:
    """Fewer different values, so that the file compresses; see PROCESSING."""
    hu = np.clip(np.rint(volume.array / HU_STEP) * HU_STEP, *HU_RANGE)
    tissue = binary_opening(gaussian_filter(volume.array.astype(np.float32), 1.0) > -400, iterations=2)
    parts, _ = label(tissue)
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    filled = np.stack([binary_fill_holes(section) for section in body])
    hu[~binary_dilation(filled, iterations=3)] = HU_RANGE[0]
    return Volume(hu.astype(np.int16), volume.grid)


def write(path: Path, volume: Volume) -> None:
    """Gzipped NRRD without a date in it."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressionLevel(9)
    writer.Execute(volume.grid.to_image(volume.array))


def motion_summary(pair: KnownPair) -> dict[str, float]:
    """What the motion amounts to in the reference's lungs; breathing is what the rigid part leaves."""
    points = pair.points.reference_mm
    breathing = np.linalg.norm(pair.motion.breathing(pair.motion.align(points)), axis=-1)
    det = pair.field().jacobian_determinant()[pair.lungs_reference]
    return {
        "breathing_mean_mm": round(float(breathing.mean()), 2),
        "breathing_largest_mm": round(float(breathing.max()), 2),
        "det_least": round(float(det.min()), 3),
        "det_mean": round(float(det.mean()), 3),
        "det_largest": round(float(det.max()), 3),
        "lungs_reference_ml": round(float(pair.lungs_reference.sum()) * pair.reference.grid.voxel_volume_ml),
        "lungs_template_ml": round(float(pair.lungs_template.sum()) * pair.template.grid.voxel_volume_ml),
    }


def verification(pair: KnownPair, reference: Volume, template: Volume) -> dict[str, Any]:
    """How many voxels of each change reach the threshold when the registration is perfect."""
    moved = warp(template.array, template.grid, reference.grid, pair.field(), outside=-1024)
    difference = np.abs(np.clip(reference.array, -1000, 50) - np.clip(moved, -1000, 50)) / 1050
    above = (difference >= THRESHOLD) & pair.lungs_reference
    counts = {}
    for change in pair.changes:
        now, before, box = change.inside(reference.grid)
        counts[str(change.id)] = int((above[box] & (now ^ before)).sum())
        above[box] &= ~(now | before)
    return {"threshold": THRESHOLD, "voxels_by_change": counts, "voxels_elsewhere": int(above.sum())}


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
