"""Checks whether a scan, or a pair of scans, can be compared: fine, look or refuse, with reasons."""
