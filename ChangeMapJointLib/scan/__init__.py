"""A scan in memory: voxels with their grid, its lungs, and what of it no scanner measured."""
