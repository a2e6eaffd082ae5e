"""The sample pair in Slicer's Sample Data module; it ships with the extension, nothing is downloaded."""

from __future__ import annotations

import hashlib
from typing import Any

import slicer
from slicer.i18n import tr as _

SAMPLE = "ChangeMapJointSamplePair"  # its name in the module Sample Data
NAMES = ("ChangeMapJoint reference (current)", "ChangeMapJoint template (prior)")


def registerSampleData() -> None:
    """Add the pair to the Sample Data module, if this Slicer has one.

    The pair is synthetic change on a real CT (LIDC-IDRI-1011, CC BY 3.0).
    """
    try:
        import SampleData
    except ImportError:
        return
    from ChangeMapJointLib.core.resources import resource

    files = [resource("SamplePair", f"{side}.nrrd") for side in ("reference", "template")]
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_("Change Map Joint"),
        sampleName=SAMPLE,
        thumbnailFileName=str(resource("SamplePair", "thumbnail.png")),
        uris=[path.as_uri() for path in files],
        fileNames=[f"ChangeMapJoint-{path.name}" for path in files],
        nodeNames=list(NAMES),
        checksums=["SHA256:" + hashlib.sha256(path.read_bytes()).hexdigest() for path in files],  # a new pair is loaded
        loadFileType=["VolumeFile", "VolumeFile"],
    )


def loadSamplePair() -> tuple[Any, Any]:
    """Load the pair; return reference and template as volume nodes."""
    from ChangeMapJointLib.core.resources import resource

    reference, template = (
        slicer.util.loadVolume(str(resource("SamplePair", f"{side}.nrrd")), {"name": name})
        for side, name in zip(("reference", "template"), NAMES, strict=True)
    )
    return reference, template


def isSynthetic(node: Any) -> bool:
    """Return whether a volume node holds a scan of the sample pair, whatever its name."""
    from ChangeMapJointLib.core.sample_pair import is_sample

    return node.GetImageData() is not None and is_sample(slicer.util.arrayFromVolume(node))
