"""One lesion in one scan: segmentation, volume and diameters, and its growth between two scans."""
