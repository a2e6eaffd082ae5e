"""The table of a cohort: one row per pair, what needs attention first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from ChangeMapJointLib.cohort.place import PAIRS, RESULT, TABLE_CSV, TABLE_PARQUET
from ChangeMapJointLib.cohort.record import PairRecord
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.tables import csv_cell
from ChangeMapJointLib.io.run_files import REPORT
from ChangeMapJointLib.io.write import atomic_path

Attention = Literal["not compared", "do not use", "look closely", "findings", "nothing found"]
ATTENTION: tuple[Attention, ...] = ("not compared", "do not use", "look closely", "findings", "nothing found")
TYPES: dict[str, str] = {
    **dict.fromkeys(("id", "attention", "status", "message", "gate", "verdict", "reasons"), "string"),
    **dict.fromkeys(
        ("findings", "new", "grown", "shrunk", "resolved", "denser", "less_dense", "possible", "withheld"), "Int64"
    ),
    **dict.fromkeys(("highest_probability", "largest_growth_percent"), "Float64"),
    **dict.fromkeys(
        ("residual_hu", "folding_percent", "lung_dice", "inverse_consistency_mm", "keypoint_error_mm",
         "surface_p95_mm", "trusted_percent"),
        "Float64",
    ),
    **dict.fromkeys(("reference", "reference_date", "template", "template_date", "method", "device"), "string"),
    **dict.fromkeys(("started", "host"), "string"),
    "starts": "Int64",
    **dict.fromkeys(("time_s", "peak_memory_mb"), "Float64"),
    **dict.fromkeys(("version", "report"), "string"),
}  # fmt: skip
COLUMNS = tuple(TYPES)


def attention_of(record: PairRecord) -> Attention:
    """Return what a reader must do about a pair, by its status, verdict and findings."""
    if record.status != "done":
        return "not compared"
    verdict = record.figures.get("verdict")
    if verdict == "do not use":
        return "do not use"
    if verdict != "good":
        return "look closely"
    return "findings" if record.figures.get("findings") else "nothing found"


def by_attention(records: Iterable[PairRecord]) -> list[PairRecord]:
    """Sort records: what needs attention first, then by the most findings, the most probable, the name."""

    def rank(record: PairRecord) -> tuple[int, int, float, str]:
        figures = record.figures
        urgency = ATTENTION.index(attention_of(record))
        return urgency, -(figures.get("findings") or 0), -(figures.get("highest_probability") or 0.0), record.id

    return sorted(records, key=rank)


def row_of(record: PairRecord) -> dict[str, Any]:
    """Return the values of a pair by column; None where unknown."""
    own = {name: getattr(record, name) for name in COLUMNS if hasattr(record, name)}
    report = f"{PAIRS}/{record.id}/{RESULT}/{REPORT}" if record.status == "done" else None
    known: dict[str, Any] = {**record.figures, **own, "attention": attention_of(record), "report": report}
    return {name: known.get(name) for name in COLUMNS}


def write_cohort_table(out: Path, records: Sequence[PairRecord]) -> Path:
    """Write the table as CSV and as Parquet, each whole or not at all.

    Args:
        out: the cohort's folder.
        records: in any order.

    Returns:
        The CSV file.

    Raises:
        InputError: a file cannot be written, or pandas or pyarrow is not installed.
    """
    try:
        import pandas as pd
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise InputError(
            f"the Python package {error.name} is missing",
            remedy='install it with: pip install "changemapjoint[cohort]"',
        ) from error
    rows = [row_of(record) for record in by_attention(records)]
    frame = pd.DataFrame({name: pd.array([row[name] for row in rows], dtype=kind) for name, kind in TYPES.items()})
    texts = [name for name, kind in TYPES.items() if kind == "string"]
    safe = frame.assign(**{name: frame[name].map(csv_cell, na_action="ignore") for name in texts})
    with atomic_path(out / TABLE_CSV) as temporary:
        safe.to_csv(temporary, index=False, lineterminator="\n")
    with atomic_path(out / TABLE_PARQUET) as temporary:
        parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), temporary)
    return out / TABLE_CSV
