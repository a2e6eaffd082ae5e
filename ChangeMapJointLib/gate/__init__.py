"""May this scan, and this pair, be compared? Fine, look, or refuse, with reasons."""
