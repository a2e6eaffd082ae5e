"""Reading scans in all supported formats; writing volumes, displacement fields and transforms."""
