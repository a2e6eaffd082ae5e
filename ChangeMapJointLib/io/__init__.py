"""Reading scans of any format and writing volumes and transforms."""
