"""Comparison of results with a known truth: detection, FROC, validation of the network."""
