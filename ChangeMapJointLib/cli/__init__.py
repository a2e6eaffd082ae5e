"""The command line ``changemap``."""
