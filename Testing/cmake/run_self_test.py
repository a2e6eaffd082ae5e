"""Runs a module's self-test in the stand-in host: ``run_self_test.py INSTALLED/qt-scripted-modules/Module.py``.

Fails when the panel does not show the sample pair's findings, anything of the project comes from another place than the
installed tree, or an error was left in a slot.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module" / "host"))

from slicerhost import boot, errors, load_module, open_module

KINDS = Counter(new=3, resolved=2, grown=2, shrunk=2)  # findings of the sample pair


def main(path: Path) -> int:
    """1 if something is wrong."""
    logging.basicConfig(level=logging.INFO)
    sys.path.insert(0, str(path.parent))  # as Slicer does for each folder of modules
    boot()
    import slicer

    module = load_module(path)
    widget = open_module(module)
    slicer.selfTests[module.__name__](msec=0)
    slicer.app.processEvents()
    kinds = Counter(row["kind"] for row in widget.panel.session.results.rows)
    if kinds != KINDS:
        print(f"the panel shows {dict(kinds)}, expected {dict(KINDS)}")
    strangers = from_elsewhere(path)
    for name, place in strangers.items():
        print(f"{name} was imported from {place}, not from {path.parent}")
    if errors.entries:
        print(errors)
    return 1 if kinds != KINDS or strangers or errors.entries else 0


def from_elsewhere(path: Path) -> dict[str, str]:
    """The project's own Python modules that do not lie in the installed tree."""
    places = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    own = {name: place for name, place in places.items() if name.split(".")[0].startswith(path.stem) and place}
    return {name: place for name, place in own.items() if path.parent not in Path(place).resolve().parents}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
