"""Runs a module's self-test in the stand-in host: ``run_self_test.py INSTALLED/qt-scripted-modules/Module.py``.

Fails when anything of the project comes from another place than the installed tree, or an error was left in a slot.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module" / "host"))

from slicerhost import boot, errors, load_module, open_module


def main(path: Path) -> int:
    """1 if something is wrong."""
    logging.basicConfig(level=logging.INFO)
    sys.path.insert(0, str(path.parent))  # as Slicer does for each folder of modules
    boot()
    import slicer

    module = load_module(path)
    open_module(module)
    slicer.selfTests[module.__name__](msec=0)
    slicer.app.processEvents()
    strangers = from_elsewhere(path)
    for name, place in strangers.items():
        print(f"{name} was imported from {place}, not from {path.parent}")
    if errors.entries:
        print(errors)
    return 1 if strangers or errors.entries else 0


def from_elsewhere(path: Path) -> dict[str, str]:
    """The project's own Python modules that do not lie in the installed tree."""
    places = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    own = {name: place for name, place in places.items() if name.split(".")[0].startswith(path.stem) and place}
    return {name: place for name, place in own.items() if path.parent not in Path(place).resolve().parents}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
