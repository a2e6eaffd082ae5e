"""Pairs with known truth: known motion and known lesions, put into real scans."""
