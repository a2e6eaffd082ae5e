"""Whether a picture of the panel still shows what the one in the repository shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

BLOCK_PX = 16
MOST_MEAN, MOST_OF_A_BLOCK, BLOCKS_SHARE = 6.0, 60.0, 0.01  # of 255


def difference(made: Path, kept: Path) -> str:
    """Return why two pictures differ; empty if they show the same.

    Both are averaged over blocks of 16 pixels: letters, rounding and antialiasing of another system vanish, while a
    section that has moved, a text that is longer by a line and a color that has changed remain. The mean over all
    blocks may differ by 6 of 255, and one block in a hundred by more than 60.
    """
    if not kept.is_file():
        return "is not in the repository"
    first, second = (Image.open(path).convert("RGB") for path in (made, kept))
    if first.size != second.size:
        return f"has {first.size} pixels instead of {second.size}"
    small = [np.asarray(one.reduce(BLOCK_PX), dtype=float) for one in (first, second)]
    apart = np.abs(small[0] - small[1]).max(axis=-1)
    if apart.mean() > MOST_MEAN:
        return f"differs by {apart.mean():.1f} of 255 on average, at most {MOST_MEAN:g} are usual"
    share = (apart > MOST_OF_A_BLOCK).mean()
    if share > BLOCKS_SHARE:
        return f"differs clearly in {share:.1%} of its area, at most {BLOCKS_SHARE:.0%} are usual"
    return ""
