"""``changemap readers``: evaluate the reading logs of a reader study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ChangeMapJointLib.comparison.stages import Listener, Stages, ignore_progress
from ChangeMapJointLib.core.extras import require_packages
from ChangeMapJointLib.evaluation.readers.log import MARGIN_MM

PACKAGES = ("pandas", "statsmodels", "matplotlib", "openpyxl")


@dataclass(frozen=True)
class ReadersRequest:
    """Inputs and options of the command.

    Attributes:
        logs: reading logs, or folders of them.
        out: folder to create.
        truth: table of cases or lesions; None for reading times alone.
        margin_mm: how far outside a lesion a mark may lie.
        seed: of the bootstrap.
        overwrite: replace an earlier evaluation in ``out``.
    """

    logs: tuple[Path, ...]
    out: Path
    truth: Path | None = None
    margin_mm: float = MARGIN_MM
    seed: int = 0
    overwrite: bool = False


def run_readers(request: ReadersRequest, listener: Listener = ignore_progress) -> list[str]:
    """Evaluate the study and write its folder.

    Returns:
        Lines that say the main result.

    Raises:
        InputError: a log or the truth cannot be used, the folder exists, or packages are missing.
    """
    require_packages("evaluate", *PACKAGES)
    from ChangeMapJointLib.evaluation.readers.folder import check_study_folder
    from ChangeMapJointLib.evaluation.readers.study import evaluate_readers

    check_study_folder(request.out, overwrite=request.overwrite)
    stages = Stages({"score": 3.0, "write": 2.0}, listener)
    with stages.stage("score"):
        study = evaluate_readers(request.logs, request.truth, margin_mm=request.margin_mm, seed=request.seed)
    with stages.stage("write"):
        study.save(request.out, overwrite=request.overwrite)
    document = study.document
    lines = [f"{len(document['readers'])} readers, {len(document['cases'])} cases, {document['readings']} readings"]
    for arm, measures in document["by_arm"].items():
        words = [f"{arm}: {measures['seconds']['value']:.1f} s"]
        words += [
            f"{n} {measures[n]['value']:.2f}" for n in ("recall", "precision") if measures.get(n, {}).get("value")
        ]
        lines.append(", ".join(words))
    return lines
