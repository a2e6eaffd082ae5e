"""The report and the tables."""
