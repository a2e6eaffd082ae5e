"""Rigid alignment, and whether the two scans show the same chest."""
