"""A scan in memory: voxels with their grid, its lungs, and the voxels that no scanner measured."""
