"""MIND-SSC: what a voxel's neighbours are like among themselves, which no change of intensity alters.

Heinrich et al., "Towards Realtime Multimodal Fusion for Image-Guided Interventions Using Self-similarities",
MICCAI 2013 (doi:10.1007/978-3-642-40811-3_24).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

AROUND = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])
PAIRS = [(a, b) for a, b in combinations(range(6), 2) if ((AROUND[a] - AROUND[b]) ** 2).sum() == 2]  # twelve


def mind_ssc(image: NDArray[np.floating], distance_vox: int = 1, sigma_vox: float = 1.0) -> NDArray[np.float32]:
    """Twelve self-similarities of every voxel.

    Args:
        image: ``[z, y, x]``, any unit.
        distance_vox: from the voxel to its six neighbours.
        sigma_vox: of the Gaussian over which squared differences are gathered.

    Returns:
        float32 ``[z, y, x, 12]`` in (0, 1]; the most similar pair of neighbours has 1. Unchanged when the image is
        multiplied by a number or one is added (up to the limits of the variance, which are those of the whole image).
    """
    values = np.asarray(image, dtype=np.float32)
    padded = np.pad(values, distance_vox, mode="edge")

    def neighbour(which: int) -> NDArray[np.float32]:
        start = distance_vox * (1 + AROUND[which])
        return padded[tuple(slice(a, a + n) for a, n in zip(start, values.shape, strict=True))]

    apart = [
        ndimage.gaussian_filter((neighbour(a) - neighbour(b)) ** 2, sigma_vox, mode="nearest", truncate=3.0)
        for a, b in PAIRS
    ]
    least = np.minimum.reduce(apart)
    above = np.stack([d - least for d in apart], axis=-1)
    variance = above.mean(axis=-1)
    typical = float(variance.mean())
    if typical <= 0:
        return np.ones_like(above)
    variance = np.clip(variance, 0.001 * typical, 1000 * typical)
    descriptor: NDArray[np.float32] = np.exp(-above / variance[..., None]).astype(np.float32)
    return descriptor
