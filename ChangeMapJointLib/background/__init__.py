"""Comparisons in a separate process: request, job and worker."""
