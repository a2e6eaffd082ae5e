"""The answer of the gate to whether two scans can be compared, with its reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.gate.rules import BY_NAME, RULES, Answer
from ChangeMapJointLib.scan.volume import both_scans

ORDER: tuple[Answer, ...] = ("fine", "look", "refuse")
SCANS = {"Reference": "Current scan", "Template": "Prior scan"}  # as a reader calls them
FINE = "Both scans are chest CT, and nothing speaks against comparing them."


@dataclass(frozen=True)
class GateReason:
    """One reason why the answer is not ``fine``.

    Attributes:
        rule: name of the rule.
        answer: ``look`` or ``refuse``.
        sentence: what was found.
        remedy: what to do; empty where the sentence says it.
        value: the measured value in the rule's unit; None where it is not a number.
        scan: ``Reference`` (the current scan) or ``Template`` (the prior) where only one of them is concerned, else
            empty.
    """

    rule: str
    answer: Answer
    sentence: str
    remedy: str = ""
    value: float | None = None
    scan: str = ""

    @property
    def text(self) -> str:
        """The reason and its remedy as one or two sentences."""
        prefix = f"{SCANS.get(self.scan, self.scan)}: " if self.scan else ""
        return f"{prefix}{self.sentence} {self.remedy}".strip()


@dataclass(frozen=True)
class GateAnswer:
    """Whether two scans can be compared.

    Attributes:
        answer: ``fine``; ``look`` (compared, but a reader must know the reasons); or ``refuse`` (not compared).
        reasons: empty when fine.
    """

    answer: Answer = "fine"
    reasons: tuple[GateReason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[GateReason | None]) -> GateAnswer:
        """Take the worst answer of all reasons; sort the reasons by the table and drop duplicates."""
        rank = {rule.name: number for number, rule in enumerate(RULES)}
        given = dict.fromkeys(reason for reason in reasons if reason is not None)
        ranked = sorted(given, key=lambda reason: rank[reason.rule])
        worst = max((ORDER.index(reason.answer) for reason in ranked), default=0)
        return cls(ORDER[worst], tuple(ranked))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The texts of the reasons."""
        return tuple(reason.text for reason in self.reasons)

    @property
    def text(self) -> str:
        """The whole answer as one paragraph."""
        return f"Inputs: {self.answer}. {' '.join(self.sentences) or FINE}"

    def raise_if_refused(self, current: PurePath, prior: PurePath) -> None:
        """Raise an error if the answer is ``refuse``.

        Args:
            current: how the error names the current scan.
            prior: likewise.

        Raises:
            InputError: the reasons for refusal, on one line.
        """
        refusals = [reason.text for reason in self.reasons if reason.answer == "refuse"]
        if refusals:
            raise InputError(f"{both_scans(current, prior)} cannot be compared: {' '.join(refusals)}")


ALL_FINE = GateAnswer()


def reason(rule: str, value: float, *, scan: str = "", **words: object) -> GateReason | None:
    """Apply a rule of :data:`RULES` to a measured value.

    Args:
        rule: name of the rule.
        value: the measured value in the rule's unit.
        scan: ``Reference`` or ``Template`` where only one of them is concerned.
        words: values for the fields in braces of the rule's sentence.

    Returns:
        The reason; None where the value is fine.
    """
    row = BY_NAME[rule]
    answer = row.answer(value)
    if answer == "fine":
        return None
    return GateReason(rule, answer, row.sentence.format(**words), row.remedy, round(float(value), 4), scan)
