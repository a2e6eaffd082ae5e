"""How the pixels of a file are coded, and the file without compression, which every archive takes."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)  # the second is what the standard asks every archive to take


def coding_of(path: Path) -> tuple[str, str]:
    """Return SOP class and transfer syntax of a file."""
    meta = dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def is_compressed(syntax: str) -> bool:
    """Return whether pixels are compressed in a transfer syntax."""
    return bool(UID(syntax).is_compressed)


def decompressed(path: Path) -> Dataset:
    """Return a file's content with its pixels as they are, in Explicit VR Little Endian; it is still the same instance.

    That its pixels once were compressed with a loss stays in its header.
    """
    dataset = dcmread(path)
    dataset.decompress(generate_instance_uid=False)
    return dataset
