"""Writes the lists of files in the extension's CMakeLists.txt, or checks them: ``update_lists.py [--check]``.

CMake's GLOB would not notice a file that is added later, so Slicer's extensions name every file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RUNTIME_FOLDERS = (
    "SamplePair",
    "Configurations",
    "Models",
    "Motion",
    "Colors",
)  # of Resources; the others are for readers of the repository
IGNORED = ("CMakeLists.txt", ".DS_Store")


class FileList(NamedTuple):
    """One ``set(NAME ...)`` of a CMakeLists.txt, and which files below its folder belong there."""

    folder: str
    name: str
    belongs: Callable[[Path], bool]


def _is_script(path: Path) -> bool:
    return path.suffix == ".py"


def _is_resource(path: Path) -> bool:
    return path.suffix != ".py"


def _is_read_at_run_time(path: Path) -> bool:
    return path.parts[0] in RUNTIME_FOLDERS and path.suffix != ".py"


LISTS = (
    FileList("ChangeMapJoint", "MODULE_PYTHON_SCRIPTS", _is_script),
    FileList("ChangeMapJoint", "MODULE_PYTHON_RESOURCES", _is_resource),
    FileList("ChangeMapJointLib", "MODULE_PYTHON_SCRIPTS", _is_script),
    FileList("ChangeMapJointLib", "MODULE_PYTHON_RESOURCES", _is_resource),
    FileList("Resources", "RUNTIME_RESOURCES", _is_read_at_run_time),
)


def files_below(folder: Path) -> list[Path]:
    """All files of a folder that are part of the project, relative to it, sorted."""
    every = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(p for p in every if p.name not in IGNORED and p.suffix != ".pyc" and "__pycache__" not in p.parts)


def with_list(text: str, name: str, files: Iterable[Path]) -> str:
    """The CMake text with the list of that name replaced.

    Raises:
        ValueError: there is no such list.
    """
    block = "".join(f"  {path.as_posix()}\n" for path in files)
    new, count = re.subn(rf"set\({name}\n(?:  .*\n)*\)", f"set({name}\n{block})", text)
    if count != 1:
        raise ValueError(f"{count} lists named {name}, expected one")
    return new


def updated(root: Path) -> dict[Path, str]:
    """The text that each CMakeLists.txt should have."""
    texts: dict[Path, str] = {}
    for folder, name, belongs in LISTS:
        path = root / folder / "CMakeLists.txt"
        files = [one for one in files_below(path.parent) if belongs(one)]
        texts[path] = with_list(texts.get(path) or path.read_text(), name, files)
    return texts


def outdated(root: Path) -> list[Path]:
    """The CMakeLists.txt whose lists are not as they should be."""
    return [path for path, text in updated(root).items() if path.read_text() != text]


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` only say what would be written; 1 if something is outdated then."""
    paths = outdated(ROOT)
    for path in paths:
        print(f"{path.relative_to(ROOT)}: {'outdated' if '--check' in arguments else 'updated'}")
    if "--check" in arguments:
        return 1 if paths else 0
    for path, text in updated(ROOT).items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
