"""Synthetic pairs with known truth: real scans with known motion and known lesions."""
