"""The provenance of a result: hashes of the inputs, versions and device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib import __version__
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.io.dicom.recognise import is_dicomdir
from ChangeMapJointLib.io.sources import plain_file

PACKAGES = ("numpy", "scipy", "SimpleITK", "pydicom", "torch")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files in a folder in the order of their names, names included.

    For a DICOMDIR, the files that it lists are hashed.
    """
    total = hashlib.sha256()
    if path.is_file() and is_dicomdir(plain_file(path, path.name)):
        from ChangeMapJointLib.io.dicom.dicomdir import open_scan

        with open_scan(path) as source:
            for listed in sorted(source.files, key=lambda file: file.name):
                total.update(f"{listed.name}\0{listed.size}\0".encode())
                with listed.opener() as stream:
                    while block := stream.read(1 << 20):
                        total.update(block)
        return total.hexdigest()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if path.is_dir():
            total.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def voxels_sha256(array: NDArray[np.generic]) -> str:
    """Return the SHA-256 of a scan's voxels, whatever the files were called that they came from.

    Args:
        array: HU, ``[z, y, x]``; whole numbers of any type give the same hash.
    """
    total = hashlib.sha256(repr(array.shape).encode())
    for part in array:  # slice by slice, so that no copy of the whole scan is made
        with np.errstate(invalid="ignore"):  # what int16 cannot hold is compared below
            whole = np.rint(part).astype("<i2")
        total.update(whole.tobytes() if np.array_equal(whole, part) else part.astype("<f4").tobytes())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of this library, of Python and of the numerical packages."""
    result = {"changemapjoint": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = "unknown"
    return result


def git_commit() -> str | None:
    """Return the commit of the source tree, with ``+`` if library or resources were modified; None if there is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # do not use a repository that the environment happens to be in
        return None
    try:
        commit, changes = [
            subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True).stdout
            for command in (
                ["rev-parse", "--short", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", "ChangeMapJointLib", "Resources"],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("+" if changes else "")


def describe_device(device: torch.device) -> dict[str, str | int]:
    """Return the type and name of the device, and the number of CPU threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}
