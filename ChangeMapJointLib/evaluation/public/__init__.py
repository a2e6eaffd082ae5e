"""Loaders of public data sets with a known truth: each makes tables for ``changemap cohort`` and ``changemap evaluate``."""
