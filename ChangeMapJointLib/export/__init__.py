"""The HTML report, the tables of findings, and pictures."""
