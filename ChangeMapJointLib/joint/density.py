"""The lung's density follows its volume: the same tissue in less room is denser, and nothing has changed.

A vessel thinner than a voxel is denser with it, by hundreds of HU where the lung is compressed by half. Staring et al.
2014 (Towards local progression estimation of pulmonary emphysema using CT, Med Phys 41) correct for it likewise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ChangeMapJointLib.core.hu import AIR_HU, COMPRESSIBLE_HU

FACTORS = (0.3, 3.0)  # beyond them det grad y is an error of y rather than breathing


def scale_density(template_hu: Tensor, det: Tensor) -> Tensor:
    """T(y) as dense as its tissue is in R's room: ``HU' + 1000 = (HU + 1000) det`` in aerated lung.

    Blood and nodules do not compress: the factor fades to 1 between -500 and -100 HU. That ramp is the one of
    :func:`~ChangeMapJointLib.synthesis.acquisition.breathe_density`. Only HU tell what is lung: outside it, what lies
    between air and tissue is changed as well. Above a factor of 1.44 the brightest of the ramp overtakes -100 HU.

    Args:
        template_hu: T(y) in HU, ``[n, 1, z, y, x]``.
        det: det grad y there, ``[n, z, y, x]``; above 1 where the tissue fills more room in T, so that R is denser.

    Returns:
        HU, like ``template_hu``; no gradient reaches ``det``.
    """
    low, high = COMPRESSIBLE_HU
    share = ((high - template_hu) / (high - low)).clamp(0, 1)
    factor = det.detach().clamp(*FACTORS).unsqueeze(1) - 1
    return torch.addcmul(template_hu, template_hu - AIR_HU, share * factor)
