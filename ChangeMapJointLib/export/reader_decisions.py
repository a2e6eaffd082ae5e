"""What the reader decided, for the report: accepted and rejected findings, comments, verdict on the registration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReaderLine:
    """The reader's decision on one change.

    Attributes:
        name: of the change, for example ``3, new, L 86``.
        decision: ``accepted``, ``rejected``, or empty for a comment alone.
        comment: of the reader; empty without one.
        finding: number of the finding; None for a region that is not a finding.
        reader: who decided last; empty where that is not recorded.
        time: when, as ``2026-05-06 10:30:00`` in UTC; empty where that is not recorded.
    """

    name: str
    decision: str
    comment: str = ""
    finding: int | None = None
    reader: str = ""
    time: str = ""


@dataclass(frozen=True)
class ReaderDecisions:
    """All decisions of a reader on one comparison.

    Attributes:
        lines: decisions and comments, in the order of the list.
        registration: the reader's verdict on the registration: ``fine``, ``doubtful``, ``wrong``, or empty.
        threshold: of the change map when the report was made; None without a map.
        listed: number of findings that could be decided on; None where that is not known.
    """

    lines: tuple[ReaderLine, ...] = ()
    registration: str = ""
    threshold: float | None = None
    listed: int | None = None

    @property
    def summary(self) -> str:
        """Return how many findings were accepted and rejected, in one sentence.

        Examples:
            >>> ReaderDecisions((ReaderLine("1, new", "accepted", finding=1),), listed=3).summary
            '1 of 3 findings accepted, 0 rejected, 2 not judged.'
            >>> ReaderDecisions((ReaderLine("1, new", "rejected", finding=1),)).summary
            '0 findings accepted, 1 rejected.'
        """
        decided = [line.decision for line in self.lines if line.finding is not None and line.decision]
        accepted, rejected = decided.count("accepted"), decided.count("rejected")
        if self.listed is None:
            return f"{accepted} {'finding' if accepted == 1 else 'findings'} accepted, {rejected} rejected."
        words = "finding" if self.listed == 1 else "findings"
        left = max(self.listed - accepted - rejected, 0)
        return f"{accepted} of {self.listed} {words} accepted, {rejected} rejected, {left} not judged."
