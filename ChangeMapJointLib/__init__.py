"""ChangeMapJoint: registration and change detection for follow-up chest CT.

    import ChangeMapJointLib as cmj

    result = cmj.compare("current/", "prior.nrrd")
    result.save("out/")

The library runs without 3D Slicer. Sub-packages, from the bottom of the import order to the top: ``core``, ``scan``,
``io``, ``gate``, ``lungs``, ``registration``, ``lesions``, ``change``, ``joint``, ``synthesis``, ``training``,
``evaluation``, ``export``, ``comparison``, ``background``, ``cohort``, ``scene``, ``web``, ``cli``. A package may
import only from those before it. The names below are imported on first use, so that importing the package alone is
fast.

Research use, not a medical device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ChangeMapJointLib.change.finding import Finding as Finding
    from ChangeMapJointLib.change.findings import FindingOptions as FindingOptions
    from ChangeMapJointLib.change.findings import Findings as Findings
    from ChangeMapJointLib.comparison.compare import compare as compare
    from ChangeMapJointLib.comparison.config import RunConfig as RunConfig
    from ChangeMapJointLib.comparison.inputs import Input as Input
    from ChangeMapJointLib.comparison.inputs import read as read
    from ChangeMapJointLib.comparison.load import SavedResult as SavedResult
    from ChangeMapJointLib.comparison.load import load_result as load_result
    from ChangeMapJointLib.comparison.result import Result as Result
    from ChangeMapJointLib.comparison.stages import ProgressEvent as ProgressEvent
    from ChangeMapJointLib.comparison.steps import Registered as Registered
    from ChangeMapJointLib.comparison.steps import find_changes as find_changes
    from ChangeMapJointLib.comparison.steps import register as register
    from ChangeMapJointLib.core.errors import Cancelled as Cancelled
    from ChangeMapJointLib.core.errors import InputError as InputError
    from ChangeMapJointLib.core.grid import Grid as Grid
    from ChangeMapJointLib.evaluation.cases import Case as Case
    from ChangeMapJointLib.evaluation.evaluate import Evaluation as Evaluation
    from ChangeMapJointLib.evaluation.evaluate import evaluate as evaluate
    from ChangeMapJointLib.evaluation.readers.study import ReaderStudy as ReaderStudy
    from ChangeMapJointLib.evaluation.readers.study import evaluate_readers as evaluate_readers
    from ChangeMapJointLib.lungs.segment import segment_lungs as segment_lungs
    from ChangeMapJointLib.registration.quality import Quality as Quality
    from ChangeMapJointLib.scan.deformation import Deformation as Deformation
    from ChangeMapJointLib.scan.lungs import Lungs as Lungs
    from ChangeMapJointLib.scan.pair import ScanPair as ScanPair
    from ChangeMapJointLib.scan.scan import Scan as Scan
    from ChangeMapJointLib.scan.volume import Volume as Volume

__version__ = "0.1.0"

_HOMES = {
    "FindingOptions": "change.findings",
    "Findings": "change.findings",
    "Finding": "change.finding",
    "Quality": "registration.quality",
    "ProgressEvent": "comparison.stages",
    "compare": "comparison.compare",
    "RunConfig": "comparison.config",
    "Input": "comparison.inputs",
    "SavedResult": "comparison.load",
    "load_result": "comparison.load",
    "Result": "comparison.result",
    "Registered": "comparison.steps",
    "find_changes": "comparison.steps",
    "register": "comparison.steps",
    "Cancelled": "core.errors",
    "InputError": "core.errors",
    "Grid": "core.grid",
    "Case": "evaluation.cases",
    "Evaluation": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "ReaderStudy": "evaluation.readers.study",
    "evaluate_readers": "evaluation.readers.study",
    "read": "comparison.inputs",
    "segment_lungs": "lungs.segment",
    "Deformation": "scan.deformation",
    "Lungs": "scan.lungs",
    "ScanPair": "scan.pair",
    "Scan": "scan.scan",
    "Volume": "scan.volume",
}
__all__ = [
    "Cancelled",
    "Case",
    "Deformation",
    "Evaluation",
    "Finding",
    "FindingOptions",
    "Findings",
    "Grid",
    "Input",
    "InputError",
    "Lungs",
    "ProgressEvent",
    "Quality",
    "ReaderStudy",
    "Registered",
    "Result",
    "RunConfig",
    "SavedResult",
    "Scan",
    "ScanPair",
    "Volume",
    "compare",
    "evaluate",
    "evaluate_readers",
    "find_changes",
    "load_result",
    "read",
    "register",
    "segment_lungs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
