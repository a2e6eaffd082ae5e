"""Reading DICOM series as hospitals and archives export them."""
