"""DICOM series as hospitals and archives hand them out."""
