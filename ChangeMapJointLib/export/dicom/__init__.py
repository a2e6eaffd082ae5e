"""DICOM objects of a result: segmentation, measurement report, parametric map, registrations, pages.

Needs the extra ``dicom`` (highdicom); nothing else in the library imports this package.
"""
