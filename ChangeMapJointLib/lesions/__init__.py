"""One lesion in one scan: segmentation, volume, diameters, growth."""
