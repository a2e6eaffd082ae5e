"""The joint method: a network that predicts deformation and change together, Eq. (2) of Kohlbrandt et al. 2024."""
