"""From a pair of scans to one deformation, its quality, and the trust in it."""
