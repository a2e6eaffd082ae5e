"""What a comparison cannot see, as sentences for the report and the panel: always said, whatever was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ChangeMapJointLib.change.sections import NOTHING_SEEN
from ChangeMapJointLib.core.hu import FULL_SCALE_HU

UNSEEN_TITLE = "What this comparison cannot see"
_ALL = 99.5  # percent; more than this is all


def unseen_sentences(
    stated: Sequence[str] = (),
    *,
    lowest: float | None = None,
    overlap: float | None = None,
    trusted_percent: float | None = None,
) -> tuple[str, ...]:
    """What a comparison cannot see, one sentence each.

    Args:
        stated: the sentences of the run itself; where it has some, they are the answer.
        lowest: value of the change map from which regions were looked at, in (0, 1]; None without a map.
        overlap: fraction of the current scan's lungs that the prior scan shows; None where unknown.
        trusted_percent: percentage of the lungs that is registered with confidence; None where unknown.

    Examples:
        >>> unseen_sentences(["Solid nodules below about 3 mm."])
        ('Solid nodules below about 3 mm.',)
        >>> unseen_sentences(lowest=0.4, overlap=1.0, trusted_percent=94.0)[0]
        'Changes of less than about 420 HU, as most ground glass makes them, and very small nodules.'
    """
    if stated:
        return tuple(stated)
    sentences = []
    if lowest is not None:
        sentences.append(
            f"Changes of less than about {lowest * FULL_SCALE_HU:.0f} HU, as most ground glass makes them, and very "
            "small nodules."
        )
    if overlap is not None and 100 * overlap < _ALL:
        sentences.append(f"{100 - 100 * overlap:.0f} % of the current scan's lungs: the prior scan does not show them.")
    if trusted_percent is not None and trusted_percent < _ALL:
        sentences.append(
            f"Small changes in {100 - trusted_percent:.0f} % of the lungs, where the registration is uncertain."
        )
    return (*sentences, "Anything outside the lungs: mediastinum, hila, chest wall, bones.")


def unseen_of_records(records: Mapping[str, Any]) -> tuple[str, ...]:
    """As :func:`unseen_sentences`, for the JSON files of a run by name without suffix; empty where it has no map.

    A result that is not to be used has seen nothing, whatever an older version stated.

    Args:
        records: ``quality``, ``findings`` and ``candidates``, as far as the run has them.
    """
    if "findings" not in records:
        return ()
    quality = records.get("quality", {})
    if quality.get("quality", {}).get("verdict") == "do not use":
        return (NOTHING_SEEN,)
    stated = quality.get("not_seen") or ()
    sentences = [str(one["sentence"]) for one in stated if isinstance(one, Mapping) and one.get("sentence")]
    figures = quality.get("quality", {})
    judged = records["findings"].get("operating_point")
    source = records.get("candidates", {}) if judged else records["findings"]
    return unseen_sentences(
        sentences,
        lowest=source.get("threshold"),
        overlap=figures.get("overlap"),
        trusted_percent=figures.get("trusted_percent"),
    )
