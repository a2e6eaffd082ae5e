"""Correction of lung density for breathing: the same tissue in a smaller volume is denser, without any real change.

The effect also reaches vessels thinner than a voxel: where the lung is compressed by half they gain hundreds of HU.
Staring et al. 2014 (Towards local progression estimation of pulmonary emphysema using CT, Med Phys 41) use the same
kind of correction.
"""

from __future__ import annotations

from ChangeMapJointLib.core.hu import AIR_HU, COMPRESSIBLE_HU
from ChangeMapJointLib.core.lazy_torch import Tensor, torch

FACTORS = (0.3, 3.0)  # det grad y outside this range is a registration error rather than breathing


def scale_density(template_hu: Tensor, det: Tensor) -> Tensor:
    """Scale the density of T(y) to the local volume in R: ``HU' + 1000 = (HU + 1000) det`` in aerated lung.

    Blood and nodules do not compress, so the factor fades to 1 between -500 and -100 HU, as in
    :func:`~ChangeMapJointLib.synthesis.acquisition.breathe_density`. The HU alone decide what counts as lung: values
    between air and tissue outside the lungs are scaled as well. With a factor above 1.44 the upper end of the ramp
    exceeds -100 HU.

    Args:
        template_hu: T(y) in HU, ``[n, 1, z, y, x]``.
        det: det grad y, ``[n, z, y, x]``; above 1 where the tissue has a larger volume in T, so that R is denser. It is
            limited to :data:`FACTORS`.

    Returns:
        HU, shaped as ``template_hu``; no gradient flows into ``det``.
    """
    low, high = COMPRESSIBLE_HU
    compressible = ((high - template_hu) / (high - low)).clamp(0, 1)
    factor = det.detach().clamp(*FACTORS).unsqueeze(1)
    return torch.addcmul(template_hu, template_hu - AIR_HU, compressible * (factor - 1))
