"""The comparison of two scans: stages in the order of Fig. 1, methods, and the folder of a run."""
