"""From a pair of scans to one deformation, and how far it can be believed."""
