"""From two scans to one displacement field, and how far it can be believed."""
