"""Grids and frames, displacement fields, resampling, filters, HU constants, options, errors, progress, processes."""
