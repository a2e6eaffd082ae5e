"""Lung masks: the body first, then the lungs inside it, then a plausibility check of the result."""
