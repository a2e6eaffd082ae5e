"""The change maps of a run, read from its folder when they are wanted: each may take a third of a gigabyte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.scene.overlay import signed_map

SIGNED = "signed_change"
FILES = {  # the default map of a method first, the signed difference last
    "change_combined": run_files.CHANGE_COMBINED,
    "change_learned": run_files.CHANGE_LEARNED,
    "change_difference": run_files.CHANGE_DIFFERENCE,
    "change_map": run_files.CHANGE_MAP,
    SIGNED: run_files.SIGNED_CHANGE,
}


class MapFiles:
    """The maps in the folder of a run.

    Attributes:
        keys: of the maps, the default one first and the signed difference last; empty for a run without a map.
    """

    def __init__(self, folder: Path) -> None:
        """Look for the maps; none is read yet."""
        self._folder = folder
        found = [key for key, name in FILES.items() if (folder / name).is_file()]
        if "change_combined" in found:  # change_map of a joint run is the same map
            found.remove("change_map") if "change_map" in found else None
        self.keys: tuple[str, ...] = tuple(found) if found != [SIGNED] else ()

    def signed(self, key: str) -> tuple[NDArray[np.float32], Grid]:
        """Read a map with the sign of the change: in [-1, 1], float32 ``[z, y, x]``, denser now positive.

        Raises:
            InputError: a file cannot be read.
        """
        if key == SIGNED:
            hu, grid = read_array(self._folder / FILES[SIGNED])
            signed = hu.astype(np.float32)
            signed /= np.float32(FULL_SCALE_HU)
            return np.clip(signed, -1.0, 1.0, out=signed), grid
        change, grid = read_array(self._folder / FILES[key])
        return signed_map(change, read_array(self._folder / FILES[SIGNED])[0], in_place=True), grid
