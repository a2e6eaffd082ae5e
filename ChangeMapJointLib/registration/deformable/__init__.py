"""Deformable registration: Eq. (1) of Kohlbrandt et al. 2024 over B-splines."""
