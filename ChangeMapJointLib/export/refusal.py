"""The picture that is written when a scan is refused: what was taken for lungs, in three planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ChangeMapJointLib.export.pictures import WARNING, Pixels, font, lung_window
from ChangeMapJointLib.io.write import atomic_path

SCALE = 2  # pixels for each voxel of 2 mm
STRENGTH = 0.4
NAMES = ("axial, right side on the left", "coronal, right side on the left", "sagittal, front on the left")


def refusal_picture(hu: NDArray[np.float32], labels: NDArray[np.uint8]) -> Pixels:
    """Draw the axial, coronal and sagittal planes that halve the mask, with the mask in red.

    Args:
        hu: ``[z, y, x]`` with isotropic voxels, +z towards the head, +x towards the patient's left.
        labels: above 0 in the mask, on the same grid.

    Returns:
        RGB ``[rows, columns, 3]``.
    """
    mask = labels > 0
    planes = []
    for axis in range(3):
        along = np.cumsum(mask.sum(axis=tuple(a for a in range(3) if a != axis)))
        middle = int(np.searchsorted(along, along[-1] / 2))
        grey, inside = lung_window(np.take(hu, middle, axis=axis)), np.take(mask, middle, axis=axis)
        red = np.where(inside[..., None], (1 - STRENGTH) * grey + STRENGTH * np.array(WARNING), grey)
        picture = np.rint(red).astype(np.uint8)[:: 1 if axis == 0 else -1]  # the head at the top
        planes.append(picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1))
    height, gap = max(len(plane) for plane in planes), 8
    page = Image.new("RGB", (sum(plane.shape[1] + gap for plane in planes) - gap, height + 24))
    draw, x = ImageDraw.Draw(page), 0
    for plane, name in zip(planes, NAMES, strict=True):
        page.paste(Image.fromarray(plane), (x, 24))
        draw.text((x + 4, 4), f"{name}; red: taken for lung", fill="white", font=font(13))
        x += plane.shape[1] + gap
    return np.array(page)


def write_refusal(path: Path, hu: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Write :func:`refusal_picture` as a PNG file, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(refusal_picture(hu, labels)).save(temporary, "PNG")
