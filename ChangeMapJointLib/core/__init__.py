"""Grids, displacement fields, resampling, filters, progress and errors."""
