"""The parameter node: what the panel stores in the scene."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, METHODS, SMALLEST_REGION_VOX, MethodEntry
from ChangeMapJointLib.change.sections import DEFAULT_OPERATING_POINT
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE, DEFAULT_METHOD

DEFAULT_OPACITY = 0.7
LOWEST_THRESHOLD = 0.05


def methodEntry(method: str) -> MethodEntry:
    """Return the table's entry of a method; for an unknown name in a scene, that of the default method."""
    return METHODS.get(method, METHODS[DEFAULT_METHOD])  # type: ignore[call-overload]


def defaultThreshold(method: str) -> float:
    """Return the default threshold of the map that the method shows."""
    return methodEntry(method).threshold


@parameterNodeWrapper
class ChangeMapJointParameterNode:
    """Inputs, choices and display settings; saved with the scene.

    Choices are stored as fixed English keys, not as translated texts.
    """

    reference: vtkMRMLScalarVolumeNode
    template: vtkMRMLScalarVolumeNode
    method: str = DEFAULT_METHOD
    device: str = DEFAULT_DEVICE

    map: str = "change_map"
    threshold: Annotated[float, WithinRange(LOWEST_THRESHOLD, 1.0)] = DEFAULT_THRESHOLD
    showOverlay: bool = True
    increases: bool = True
    decreases: bool = True
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = DEFAULT_OPACITY
    listBy: str = DEFAULT_OPERATING_POINT
    unfolded: str = ""
    smallestVoxels: Annotated[int, WithinRange(1, 100000)] = SMALLEST_REGION_VOX

    edges: bool = False
    untrusted: bool = True
    checkOverlay: str = "none"
    prior: str = "acquired"  # its true shape: a warp may hide growth, or make it
    layout: str = "compare"
    window: str = "lung"
    readerVerdict: str = ""
    comparison: str = ""
