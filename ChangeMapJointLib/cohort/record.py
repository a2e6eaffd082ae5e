"""The record of one pair: what it was made of, how it ended, and the figures of the cohort's table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ChangeMapJointLib.change.kinds import KIND_WORDS
from ChangeMapJointLib.cohort.identity import InputIdentity
from ChangeMapJointLib.comparison.load import load_result
from ChangeMapJointLib.export.tables import json_value
from ChangeMapJointLib.io.write import atomic_path

SCHEMA = "changemap.pair/1"
Status = Literal["done", "refused", "fault", "lost"]
"""How a pair ended:

- ``done``: its result is complete;
- ``refused``: its scans cannot be read or compared, and trying again gives the same;
- ``fault``: an error of the program; a rerun tries it again;
- ``lost``: its worker died as often as is allowed; a rerun tries it again.
"""
STATUSES: tuple[Status, ...] = get_args(Status)
FIGURES = ("residual_hu", "folding_percent", "lung_dice", "inverse_consistency_mm", "keypoint_error_mm",
           "surface_p95_mm", "trusted_percent")  # fmt: skip


@dataclass(frozen=True)
class PairRecord:
    """How one pair ended.

    Attributes:
        id: of the pair.
        status: see :data:`Status`.
        message: the reason in one line where it is not done.
        inputs: reference and template; None where one of them could not be found.
        options_sha256: of all options.
        version: of the library.
        outputs: size in bytes and SHA-256 of each file of the result.
        starts: how often it was started, in all sessions.
        host: that worked on it.
        time_s: wall time in seconds.
        peak_memory_mb: of the worker so far, in MB; None where unknown.
        figures: of the table, by column.
    """

    id: str
    status: Status
    message: str = ""
    inputs: tuple[InputIdentity, InputIdentity] | None = None
    options_sha256: str = ""
    version: str = ""
    outputs: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    starts: int = 1
    host: str = ""
    time_s: float = 0.0
    peak_memory_mb: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the record as JSON, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        with atomic_path(path) as temporary:
            text = json.dumps({"schema": SCHEMA, **asdict(self)}, ensure_ascii=True, allow_nan=False)
            temporary.write_text(text + "\n", "utf-8")


def read_record(path: Path) -> PairRecord | None:
    """Read a record; None where there is none, or none that this version understands."""
    try:
        values = json.loads(path.read_text("utf-8"))
        if values.pop("schema") != SCHEMA or values["status"] not in STATUSES:
            return None
        inputs = values.pop("inputs")
        outputs = {str(name): (int(size), str(sha)) for name, (size, sha) in values.pop("outputs").items()}
        for one in inputs or ():
            one.pop("name", None)  # which earlier versions kept
        pair = None if inputs is None else (InputIdentity(**inputs[0]), InputIdentity(**inputs[1]))
        record = PairRecord(**values, inputs=pair, outputs=outputs)
        return record if isinstance(record.figures, dict) and isinstance(record.message, str) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def figures_of(folder: Path) -> dict[str, Any]:
    """Return the figures of a finished run for the cohort's table.

    Args:
        folder: of the run.

    Raises:
        InputError: it is not a finished run.
    """
    saved = load_result(folder)
    record, findings = saved.record, saved.findings
    values: dict[str, Any] = {
        "gate": saved.gate.answer,
        "verdict": saved.quality.verdict,
        "reasons": " ".join(saved.quality.reasons),
        "findings": None if findings is None else len(findings.items),
        "withheld": None if findings is None else findings.withheld,
    }
    items = () if findings is None else findings.items
    for kind, word in KIND_WORDS.items():
        values[word.replace(" ", "_")] = sum(item.kind == kind for item in items)
    values["possible"] = 0 if findings is None else len(findings.section("possible"))
    values["highest_probability"] = max(
        (item.probability for item in items if item.probability is not None), default=None
    )
    growth = [item.volume_change_percent for item in items if item.volume_change_percent is not None]
    values["largest_growth_percent"] = max(growth, default=None)
    values |= {name: getattr(saved.quality, name) for name in FIGURES}
    for side in ("reference", "template"):
        values[side] = record.get(side, {}).get("name")
        values[f"{side}_date"] = (record.get(side, {}).get("acquisition") or {}).get("date")
    values["method"] = record.get("configuration", {}).get("method")
    values["device"] = (record.get("device") or {}).get("type")
    values["started"] = record.get("started")
    figures = json_value(values)
    assert isinstance(figures, dict)
    return figures
