"""What a document says, from the records of a run, the decisions of a reader, and the pictures of the HTML report."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ChangeMapJointLib.export.finding_text import (
    Entry,
    dictation,
    finding_text,
    interval_days,
    scan_dates,
)
from ChangeMapJointLib.export.list_words import list_words_of_records, rejected_words
from ChangeMapJointLib.export.unseen import unseen_of_records
from ChangeMapJointLib.gate.answer import SCANS, GateReason
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.reading_file import ReadingFile
from ChangeMapJointLib.io.run_records import read_records
from ChangeMapJointLib.io.run_seal import file_sha256

RESEARCH = "Research use, not a medical device"
MOST_PICTURED = 8
ROLES = ("Reference (current)", "Template (prior), warped", "Template (prior), as acquired", "Reference with change")


@dataclass(frozen=True)
class Identity:
    """Whose scans these are, as the headers say; all empty where nobody asked for it.

    Attributes:
        name: PatientName, with spaces.
        number: PatientID.
        born: birth date, ISO.
        sex: PatientSex.
        accession: AccessionNumber of the current scan.
        study: StudyInstanceUID of the current scan.
    """

    name: str = ""
    number: str = ""
    born: str = ""
    sex: str = ""
    accession: str = ""
    study: str = ""

    @property
    def line(self) -> str:
        """What is known, in one line.

        Examples:
            >>> Identity("Muster Erika", "4711", born="1950-01-02").line
            'Patient: Muster Erika, ID 4711, born 1950-01-02'
        """
        words = [self.name, f"ID {self.number}" if self.number else "", f"born {self.born}" if self.born else ""]
        words += [f"sex {self.sex}" if self.sex else "", f"accession {self.accession}" if self.accession else ""]
        known = ", ".join(word for word in words if word)
        return f"Patient: {known}" if known else ""


@dataclass(frozen=True)
class Decision:
    """What the reader decided on a finding: ``accepted``, ``rejected`` or empty, and a comment."""

    word: str = ""
    comment: str = ""


@dataclass(frozen=True)
class DocumentReading:
    """A reader's decisions by number of the finding, and the verdict on the registration; empty without one."""

    decisions: Mapping[int, Decision]
    registration: str = ""


@dataclass(frozen=True)
class DocumentContent:
    """What a document says.

    Attributes:
        records: ``run``, ``quality``, ``findings`` and ``candidates`` by name.
        sha256: of ``run.json``, which holds the hashes of all other files; empty where the result was not saved.
        identity: of the patient, where asked for.
        decisions: by number of the finding.
        registration: the reader's verdict on the registration; empty without one.
        overview: pictures of both lungs (PNG or JPEG).
        pictures: axial pictures of each finding, in the order of :data:`ROLES`, as far as the report shows them.
    """

    records: Mapping[str, Any]
    sha256: str
    identity: Identity = Identity()
    decisions: Mapping[int, Decision] = field(default_factory=dict)
    registration: str = ""
    overview: tuple[bytes, ...] = ()
    pictures: Mapping[int, Mapping[str, bytes]] = field(default_factory=dict)

    @property
    def quality(self) -> Mapping[str, Any]:
        """The verdict on the registration with its reasons."""
        return dict(self.records["quality"].get("quality", {}))

    @property
    def verdict(self) -> str:
        """``good``, ``look closely`` or ``do not use``."""
        return str(self.quality.get("verdict", "not measured"))

    @property
    def entries(self) -> list[Entry]:
        """The findings; none where the registration failed."""
        listed: list[Entry] = list(self.records.get("findings", {}).get("findings", []))
        return [] if self.verdict == "do not use" else listed

    @property
    def kept(self) -> list[Entry]:
        """The findings that the reader did not reject."""
        return [entry for entry in self.entries if self._decision(entry).word != "rejected"]

    @property
    def kept_records(self) -> Mapping[str, Any]:
        """The records, without the findings that the reader rejected."""
        if "findings" not in self.records:
            return self.records
        return {**self.records, "findings": {**self.records["findings"], "findings": self.kept}}

    @property
    def has_map(self) -> bool:
        """Whether changes were looked for and could be listed."""
        return "findings" in self.records and self.verdict != "do not use"

    @property
    def dates(self) -> tuple[str | None, str | None]:
        """Dates of the current and the prior scan, ISO."""
        return scan_dates(self.records)

    @property
    def days(self) -> int | None:
        """Days between the scans."""
        return interval_days(*self.dates)

    @property
    def version(self) -> str:
        """Of the program that compared the scans."""
        return str(self.records["run"].get("versions", {}).get("changemapjoint", "unknown"))

    @property
    def unseen(self) -> tuple[str, ...]:
        """What the comparison cannot see, one sentence each."""
        stated = self.records["quality"].get("not_seen") or []
        sentences = tuple(str(entry["sentence"]) for entry in stated if isinstance(entry, dict) and "sentence" in entry)
        return sentences or unseen_of_records(self.records)

    @property
    def about_list(self) -> tuple[str, ...]:
        """What is said of the list as a whole, as on the HTML page, one paragraph each."""
        return list_words_of_records(self.records, self.verdict)

    @property
    def gate(self) -> tuple[str, ...]:
        """Why the two scans have to be looked at with care; empty where they are fine."""
        answer = self.records["quality"].get("gate") or {}
        reasons = answer.get("reasons") or []
        known = [one.name for one in fields(GateReason)]
        given = [
            reason for reason in reasons if isinstance(reason, dict) and {"rule", "answer", "sentence"} <= {*reason}
        ]
        found = [GateReason(**{name: one[name] for name in known if name in one}) for one in given]
        return tuple(replace(one, scan=SCANS.get(one.scan, one.scan)).text for one in found)

    @property
    def notices(self) -> tuple[str, ...]:
        """What stands above everything else, for example that the change is synthetic."""
        return tuple(map(str, self.records["run"].get("notices") or ()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run noted on scans and lungs, without the gate's reasons."""
        reasons = (self.records["quality"].get("gate") or {}).get("reasons") or []
        said = tuple(str(one["sentence"]) for one in reasons if isinstance(one, dict) and one.get("sentence"))
        notes = [str(note) for note in self.records["run"].get("notes") or ()]
        return tuple(_by_scan(note) for note in notes if not any(sentence in note for sentence in said))

    def sentence(self, entry: Entry) -> str:
        """Return a finding as one paragraph."""
        return finding_text(entry, number=int(entry["id"]), days=self.days)

    def text(self) -> str:
        """Return the whole document as plain text for a dictation; findings that the reader rejected are left out."""
        kept = self.kept
        rejected = len(self.entries) - len(kept)
        notes = [*self.notices, *([self.identity.line] if self.identity.line else [])]
        notes += [f"Before you rely on it: {reason}" for reason in self.gate]
        notes += [str(reason) for reason in self.quality.get("reasons", [])]
        notes += self.notes
        if rejected:
            notes.append(rejected_words(rejected))
        if self.registration:
            notes.append(f"The reader's verdict on the registration: {self.registration}.")
        current, prior = self.dates
        lines = dictation(
            [self._with_comment(entry) for entry in kept],
            current=current,
            prior=prior,
            registration=self.verdict,
            notes=[*notes, *self.about_list],
        )
        unseen = [f"Not seen: {sentence}" for sentence in self.unseen]
        return "\n".join([lines, *unseen, f"{self.version_line}."]) + "\n"

    @property
    def version_line(self) -> str:
        """Version and hash, as they stand on every page."""
        return f"ChangeMapJoint {self.version}, result {self.sha256[:16] or 'not saved'}"

    def _decision(self, entry: Entry) -> Decision:
        return self.decisions.get(int(entry["id"]), Decision())

    def _with_comment(self, entry: Entry) -> str:
        comment = self._decision(entry).comment
        return f"{self.sentence(entry)} Reader: {comment}" if comment else self.sentence(entry)


def _by_scan(note: str) -> str:
    """Return a note with its scan as a document calls it."""
    name, colon, rest = note.partition(":")
    return f"{SCANS[name]}{colon}{rest}" if colon and name in SCANS else note


def read_document(folder: Path, identity: Identity = Identity()) -> DocumentContent:
    """Collect what a document says from the folder of a run.

    Args:
        folder: of a finished run; pictures are those of its HTML report, decisions those of its ``reading.json``.
        identity: of the patient, which no run holds.

    Raises:
        InputError: the folder is not that of a run, or one of its files is damaged.
    """
    records = read_records(folder)
    reading = ReadingFile(folder).read()
    decisions = {}
    for entry in reading["findings"].values():
        if isinstance(entry, dict) and isinstance(entry.get("id"), int):
            decisions[entry["id"]] = Decision(str(entry.get("decision") or ""), str(entry.get("comment") or ""))
    overview, pictures = pictures_of(folder / run_files.REPORT)
    return DocumentContent(
        records,
        file_sha256(folder / run_files.RUN),
        identity,
        decisions,
        str(reading["registration"].get("verdict") or ""),
        overview,
        pictures,
    )


class _Pictures(HTMLParser):
    """The pictures of a report with their alternative texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, bytes]] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        kind, _, content = (values.get("src") or "").partition(";base64,")
        if tag != "img" or not kind.startswith("data:image/"):
            return
        try:
            self.found.append((values.get("alt") or "", base64.b64decode(content, validate=True)))
        except binascii.Error:
            return


def pictures_of(report: Path) -> tuple[tuple[bytes, ...], dict[int, dict[str, bytes]]]:
    """Return the overviews, and the axial pictures of each finding by role; nothing where there is no report."""
    parser = _Pictures()
    try:
        parser.feed(report.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return (), {}
    # "of both lungs" in reports of earlier versions
    overview = tuple(content for alt, content in parser.found if "projection of " in alt)
    pictures: dict[int, dict[str, bytes]] = {}
    for alt, content in parser.found:
        match = re.match(r"axial plane, (.+), finding (\d+),", alt)
        if match and match[1] in ROLES:
            pictures.setdefault(int(match[2]), {}).setdefault(match[1], content)
    return overview, pictures
