"""Where a result comes from: inputs, configuration, versions and the machine's part in it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from ChangeMapJointLib import __version__
from ChangeMapJointLib.io.dicom.dicomdir import is_dicomdir, open_scan
from ChangeMapJointLib.io.sources import plain_file

PACKAGES = ("numpy", "scipy", "SimpleITK", "pydicom", "torch")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files in the order of their names (names included).

    A DICOMDIR stands for the files that it lists.
    """
    total = hashlib.sha256()
    if path.is_file() and is_dicomdir(plain_file(path, path.name)):
        with open_scan(path) as source:
            for part in sorted(source.files, key=lambda one: one.name):
                total.update(f"{part.name}\0{part.size}\0".encode())
                with part.opener() as stream:
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


def versions() -> dict[str, str]:
    """Versions of this library, of Python and of the packages that compute."""
    found = {"changemapjoint": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def git_commit() -> str | None:
    """The commit of the source tree that runs, with ``+`` where the library or its resources differ; None elsewhere."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():  # not the repository that an environment happens to lie in
        return None
    try:
        told = [
            subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, check=True).stdout
            for command in (
                ["rev-parse", "--short", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", "ChangeMapJointLib", "Resources"],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return told[0].strip() + ("+" if told[1] else "")


def describe_device(device: torch.device) -> dict[str, str | int]:
    """Kind and name of the device, and the threads that the CPU part used."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}
