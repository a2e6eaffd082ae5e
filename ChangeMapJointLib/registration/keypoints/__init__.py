"""Keypoints of the lungs and their matches in the other scan."""
