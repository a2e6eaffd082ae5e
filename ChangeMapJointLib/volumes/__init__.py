"""Scans: reading, writing, input checks and lung masks."""
