"""Archives of images (PACS): find, fetch and store, by DIMSE or DICOMweb."""
