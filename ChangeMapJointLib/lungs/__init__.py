"""Lung masks: the body first, then the lungs inside it, and a second look at the result."""
