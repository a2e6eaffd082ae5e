"""What the panel remembers, in the scene: the parameter node."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

DEFAULT_THRESHOLD = 0.68  # 714 HU: the paper's operating point
JOINT_THRESHOLD = 0.3  # of CM_comb, a product
DEFAULT_OPACITY = 0.7
DEFAULT_VOXELS = 5  # the paper drops smaller regions
LOWEST_THRESHOLD = 0.05


def defaultThreshold(method: str) -> float:
    """Of the map that the method shows."""
    return JOINT_THRESHOLD if method == "joint" else DEFAULT_THRESHOLD


@parameterNodeWrapper
class ChangeMapJointParameterNode:
    """Inputs, choices and display settings; saved with the scene.

    Choices are kept by their fixed English keys, never by their translated texts.
    """

    reference: vtkMRMLScalarVolumeNode
    template: vtkMRMLScalarVolumeNode
    method: str = "sequential"
    device: str = "auto"
    preset: str = "default"

    map: str = "change_map"
    threshold: Annotated[float, WithinRange(LOWEST_THRESHOLD, 1.0)] = DEFAULT_THRESHOLD
    showOverlay: bool = True
    increases: bool = True
    decreases: bool = True
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = DEFAULT_OPACITY
    smallestVoxels: Annotated[int, WithinRange(1, 100000)] = DEFAULT_VOXELS

    edges: bool = False
    untrusted: bool = True
    checkOverlay: str = "none"
    prior: str = "warped"
    layout: str = "compare"
    window: str = "lung"
    readerVerdict: str = ""
