"""The largest scans: 1024 x 1024 x 1000 voxels by both methods, time per stage and peak memory.

    python Testing/benchmarks/limits.py DATA SCRATCH [--slices 320,1000] [--methods rigid,sequential] [--format nrrd]

DATA holds ``pairs/known20mm``. Both of its scans are interpolated to 1024 x 1024 x N voxels, with noise, into folder
SCRATCH (4.2 GB for 1000 slices, removed at the end), as NRRD or as DICOM series, and compared by whole processes of
the command line. The lungs fill more of these scans than of most. Writes ``results/limits.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from main_job import columns, errors_mm, read_rows
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from record import measure, metadata, write_results

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.write import write_nrrd

PIXELS = 1024
SIDES = ("reference", "template")
BAR_MB = 8000.0
NOISE_HU = 15.0


def enlarged(source: Path, slices: int) -> tuple[NDArray[np.int16], Grid]:
    """The scan at 1024 x 1024 x ``slices`` voxels, with noise."""
    volume = read_volume(source)
    x, y, z = volume.grid.extent_mm
    grid = volume.grid.with_spacing((x / PIXELS, y / PIXELS, z / slices))
    noise = np.random.default_rng(0).normal(0.0, NOISE_HU, (PIXELS, PIXELS)).astype(np.float32)
    result = np.empty(grid.shape, dtype=np.int16)
    for z0 in range(0, slices, 8):
        stop = min(z0 + 8, slices)
        part = resample(volume.array, volume.grid, grid.crop((z0, 0, 0), (stop, PIXELS, PIXELS)), outside=-1024.0)
        for k, plane in enumerate(part, z0):
            result[k] = np.clip(np.rint(plane + np.roll(noise, (7 * k, 13 * k), (0, 1))), -1024, 3071)
    return result, grid


def write_series(folder: Path, array: NDArray[np.int16], grid: Grid) -> None:
    """A DICOM CT series, one file a slice."""
    folder.mkdir(parents=True)
    hx, hy, hz = grid.spacing_mm
    study, series = generate_uid(entropy_srcs=[folder.name, "study"]), generate_uid(entropy_srcs=[folder.name])
    for k, plane in enumerate(array):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        uid = generate_uid(entropy_srcs=[folder.name, str(k)])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, study
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, k + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [f"{v:.10g}"[:16] for v in grid.to_physical((0, 0, k))]
        ds.PixelSpacing, ds.SliceThickness = [f"{hy:.10g}", f"{hx:.10g}"], f"{hz:.10g}"
        ds.Rows, ds.Columns, ds.SamplesPerPixel = *plane.shape, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.PixelData = plane.astype("<i2").tobytes()
        ds.save_as(folder / f"{k:05d}.dcm", enforce_file_format=True)


def make(data: Path, scratch: Path, slices: int, kind: str) -> dict[str, Path]:
    """Both scans in ``scratch``; those that are there stay."""
    made = {}
    for side in SIDES:
        made[side] = scratch / f"{side}-{slices}{'.nrrd' if kind == 'nrrd' else ''}"
        if made[side].exists():
            continue
        array, grid = enlarged(data / "pairs" / "known20mm" / f"{side}.nii.gz", slices)
        if kind == "nrrd":
            write_nrrd(made[side], array, grid, compress=False)
        else:
            write_series(made[side], array, grid)
    return made


def compare(data: Path, scans: dict[str, Path], method: str, out: Path) -> dict[str, Any]:
    """One run of the command line, and what its record says."""
    command = [sys.executable, "-m", "ChangeMapJointLib", "run", "--progress", "none", "--overwrite"]
    inputs = [f"--{side}={path}" for side, path in scans.items()]
    measured = measure([*command, "--method", method, *inputs, "--out", str(out)])
    record = json.loads((out / "run.json").read_text("utf-8"))
    quality = json.loads((out / "quality.json").read_text("utf-8"))["quality"]
    figures: dict[str, Any] = {
        "peak_memory_mb": measured.peak_memory_mb,
        "bar_mb": BAR_MB,
        "wall_s": measured.wall_s,
        "cpu_s": measured.cpu_s,
        "stages": {stage["name"]: [stage["time_s"], stage["peak_memory_mb"]] for stage in record["stages"]},
        "read_as": {side: record[side]["size"] for side in SIDES},
        "lung_dice": quality["lung_dice"],
        "verdict": quality["verdict"],
    }
    if method != "rigid":
        rows = read_rows(data / "pairs" / "known20mm" / "points.csv")
        rows = [row for row in rows if not row["on_vessel"] > 0]
        error = errors_mm(out, columns(rows, "rx", "ry", "rz"), columns(rows, "tx", "ty", "tz"))
        figures["tre_mean_mm"] = round(float(error.mean()), 3)
        figures["findings"] = len(json.loads((out / "findings.json").read_text("utf-8"))["findings"])
    return figures


def main() -> None:
    """Measure the chosen cases and write ``results/limits.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--slices", default="320,1000")
    parser.add_argument("--methods", default="rigid,sequential")
    parser.add_argument("--format", choices=["nrrd", "dicom"], default="nrrd")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    measured = metadata()
    for slices in map(int, arguments.slices.split(",")):
        scans = make(arguments.data, arguments.scratch, slices, arguments.format)
        for method in arguments.methods.split(","):
            name = f"{PIXELS} x {PIXELS} x {slices}, {arguments.format}, {method}"
            figures = compare(arguments.data, scans, method, arguments.scratch / f"{method}-{slices}")
            print(name, json.dumps(figures), flush=True)
            write_results("limits", {name: figures}, measured)
        for path in scans.values():
            for file in path.iterdir() if path.is_dir() else [path]:
                file.unlink()
            if path.is_dir():
                path.rmdir()


if __name__ == "__main__":
    main()
