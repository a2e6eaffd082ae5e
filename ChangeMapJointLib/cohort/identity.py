"""What a finished pair was made of and what it consists of, as hashes: inputs, options, and files of the result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.inputs import check_inputs
from ChangeMapJointLib.comparison.methods import read_model
from ChangeMapJointLib.comparison.save import without_folders
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.io.provenance import sha256_of
from ChangeMapJointLib.io.read import split_selector
from ChangeMapJointLib.io.run_files import READING, REPORT, names_in

Check = Literal["hash", "size"]
CHECKS: tuple[Check, ...] = ("hash", "size")


@dataclass(frozen=True)
class InputIdentity:
    """Which scan a pair was made of.

    Attributes:
        path_sha256: hash of its whole path, with the series that was picked.
        stat_sha256: hash of the sizes and times of its files: the same means that nothing was written since.
        sha256: of its content, as in ``run.json``; empty until it is known.
    """

    path_sha256: str
    stat_sha256: str
    sha256: str = ""


def identify(path: Path) -> InputIdentity:
    """Identify a scan without reading it.

    Raises:
        InputError: it is missing or cannot be reached.
    """
    source = split_selector(path)[0]
    check_inputs([source])
    whole = source.resolve()
    selected = f"{whole}{str(path)[len(str(source)) :]}"
    return InputIdentity(_hash(selected), _hash("\n".join(_listing(whole))))


def content_of(path: Path) -> str:
    """Return the SHA-256 of a scan's content, as ``run.json`` holds it."""
    return sha256_of(split_selector(path)[0])


def _listing(source: Path) -> list[str]:
    """Names, sizes and times of all files of a scan."""
    if not source.is_dir():
        state = source.stat()
        return [f"{state.st_size} {state.st_mtime_ns}"]
    lines = []
    for folder, _, names in os.walk(source):
        for name in names:
            file = Path(folder, name)
            state = file.stat()
            lines.append(f"{file.relative_to(source).as_posix()} {state.st_size} {state.st_mtime_ns}")
    return sorted(lines)


def options_hash(config: RunConfig) -> str:
    """Return the hash of all options, with the weights of the network where the method uses one.

    Raises:
        InputError: the weights cannot be read.
    """
    weights = read_model(config.joint).sha256 if config.method == "joint" else None
    return _options_hash(without_folders(to_mapping(config)), weights)


def recorded_options_hash(run: Mapping[str, Any]) -> str:
    """Return what :func:`options_hash` gave for a finished run, from the content of its ``run.json``."""
    return _options_hash(run.get("configuration"), run.get("model_sha256"))


def _options_hash(configuration: Any, weights: Any) -> str:
    return _hash(json.dumps([configuration, weights], sort_keys=True))


def hash_outputs(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size in bytes and SHA-256 of each file of a result, by name."""
    files = [folder / name for name in sorted(names_in(folder)) if (folder / name).is_file()]
    return {path.name: (path.stat().st_size, sha256_of(path)) for path in files}


def damage_of(folder: Path, outputs: Mapping[str, tuple[int, str]], check: Check) -> str:
    """Return in words how a result differs from what was written, or an empty string.

    A reader's decisions are no damage, nor is the report that was written again with them.

    Args:
        folder: of the result.
        outputs: from :func:`hash_outputs`, when it was written.
        check: ``hash`` reads all files, ``size`` only looks at their sizes.
    """
    try:
        names = names_in(folder)
    except OSError:
        return "the folder is missing"
    read = {READING, REPORT} if READING in names else set()
    for name, (size, sha256) in outputs.items():
        if name in read and name in names:
            continue
        path = folder / name
        if name not in names:
            return f"{name} is missing"
        try:
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if check == "hash" and sha256_of(path) != sha256:
                return f"{name} was changed"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    added = sorted(names - set(outputs) - read)
    return f"{added[0]} was added" if added else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
