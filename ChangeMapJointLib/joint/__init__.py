"""The joint method: a network that gives deformation and change at once, Eq. (2) of Kohlbrandt et al. 2024."""
