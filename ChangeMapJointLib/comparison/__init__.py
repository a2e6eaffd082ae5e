"""Comparing two scans: the stages of a run, the methods, and the result folder (Fig. 1 of Kohlbrandt et al. 2024)."""
