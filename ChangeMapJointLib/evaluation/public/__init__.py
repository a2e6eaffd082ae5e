"""Loaders of public data sets with a known truth: each makes tables of pairs and of what is known of them."""
