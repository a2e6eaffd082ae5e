"""The document as a PDF of two to four pages, by reportlab: text can be selected, typefaces are embedded."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ChangeMapJointLib import __version__
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.document.content import RESEARCH, ROLES, Decision, DocumentContent
from ChangeMapJointLib.export.document.room import MOST_PAGES, ROOMS, Room, cut, fitted, ranges
from ChangeMapJointLib.export.document.time_points import TimePoints
from ChangeMapJointLib.export.document.typefaces import BODY, BOLD, body_signs, draw_line, markup
from ChangeMapJointLib.export.finding_text import (
    Entry,
    change_words,
    doubling_cell,
    lesions,
    mean_diameter_mm,
    size_words,
)
from ChangeMapJointLib.export.wording import KINDS
from ChangeMapJointLib.io.write import atomic_path

TITLE = "Change between two chest CTs"
MARGIN, FOOT = 42.0, 30.0  # points
LAST = 320.0  # points that the last part needs of a page that was begun
IN_HTML = "see the HTML report of this result"
BOXES = "[  ] accept   [  ] edit   [  ] reject"
COLOURS = {"good": "#1b7837", "look closely": "#b35806", "do not use": "#b2182b"}
NOTICE_COLOUR = "#b35806"
CAPTIONS = dict(zip(ROLES, ("current", "prior, warped", "prior, as acquired", "current with change"), strict=True))
_TOP = [("FONT", (0, 0), (-1, -1), BODY), ("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)]


def write_pdf(
    path: Path, content: DocumentContent, *, letter: bool = False, time_points: TimePoints | None = None
) -> None:
    """Write the document.

    Args:
        path: of the file; an existing one is replaced.
        content: what it says.
        letter: see :func:`make_pdf`.
        time_points: see :func:`make_pdf`.

    Raises:
        InputError: reportlab is missing, or the file cannot be written.
    """
    made = make_pdf(content, letter=letter, time_points=time_points)
    with atomic_path(path) as temporary:
        temporary.write_bytes(made)


def make_pdf(content: DocumentContent, *, letter: bool = False, time_points: TimePoints | None = None) -> bytes:
    """Return the document, of four pages at most; the same content gives the same bytes.

    Args:
        content: what it says.
        letter: on US Letter instead of A4.
        time_points: a table of several comparisons of the patient, on the last page.

    Raises:
        InputError: reportlab is missing.
    """
    if find_spec("reportlab") is None:
        raise InputError(
            "the Python package reportlab is missing", remedy='install it with: pip install "changemapjoint[dicom]"'
        )
    body_signs()
    for room in ROOMS:
        made, pages = _made(content, letter, time_points, room)
        if pages <= MOST_PAGES:
            break
    return made


def _made(content: DocumentContent, letter: bool, time_points: TimePoints | None, room: Room) -> tuple[bytes, int]:
    """The document, and the number of its pages."""
    from reportlab.lib import pagesizes
    from reportlab.platypus import SimpleDocTemplate

    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=pagesizes.letter if letter else pagesizes.A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN + FOOT,
        title=TITLE,
        author="ChangeMapJoint",
        subject=RESEARCH,
        creator=f"ChangeMapJoint {__version__}",
        invariant=1,
        lang="en",
    )
    page = _Page(document.width - 12, content, room)  # a frame has 6 points of padding on each side
    story = [*page.first(), *page.key_images(), *page.last(time_points)]
    document.build(story, canvasmaker=_numbered(content))
    return buffer.getvalue(), document.page


def _numbered(content: DocumentContent) -> type[Any]:
    """A canvas that writes the foot of each page when the number of pages is known."""
    from reportlab.pdfgen.canvas import Canvas

    class Numbered(Canvas):  # type: ignore[misc]
        """Keeps the pages until all are drawn."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "initialFontName": BODY})  # else Helvetica, not embedded
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, 1):
                self.__dict__.update(page)
                self.setFont(BODY, 6.5)
                self.setFillGray(0.35)
                count = f"Page {number} of {len(self._pages)}"
                who = content.identity.number
                self.drawString(MARGIN, FOOT + 9, f"{RESEARCH}. {content.version_line}, printed by {__version__}.")
                if who:
                    draw_line(self, MARGIN, FOOT, f"Patient ID {who}", 6.5)
                    self.setFont(BODY, 6.5)
                self.drawRightString(self._pagesize[0] - MARGIN, FOOT + 9, count)
                super().showPage()
            super().save()

    return Numbered


class _Page:
    """Makes the parts of the document for a width in points."""

    def __init__(self, width: float, content: DocumentContent, room: Room) -> None:
        from reportlab.lib.styles import ParagraphStyle

        self.width, self.content, self.room = width, content, room
        self.body = ParagraphStyle("body", fontName=BODY, fontSize=8.5, leading=11.5)
        self.small = ParagraphStyle("small", parent=self.body, fontSize=7, leading=9, textColor="#444444")
        self.heading = ParagraphStyle(
            "heading",
            parent=self.body,
            fontName=BOLD,
            fontSize=11,
            leading=14,
            spaceBefore=9,
            spaceAfter=3,
            keepWithNext=1,
        )
        self.title = ParagraphStyle("title", parent=self.heading, fontSize=15, leading=19, spaceBefore=0)

    def first(self) -> Iterator[Any]:
        """Identity, verdict, list and overview."""
        from reportlab.platypus import Paragraph

        content = self.content
        yield Paragraph(TITLE, self.title)
        yield self.text(f"<b>{RESEARCH}.</b> To be confirmed by a reader.", raw=True)
        for notice in content.notices:
            yield self.text(f'<font color="{NOTICE_COLOUR}"><b>{markup(notice)}</b></font>', raw=True)
        if content.identity.line:
            yield self.text(content.identity.line)
        yield from self.grid(
            [["", "Date", "Scan", "Voxels", "Voxel size (mm)"], *map(self.scan, ("reference", "template"))]
        )
        yield Paragraph("Registration", self.heading)
        colour = COLOURS.get(content.verdict, "#000000")
        yield self.text(f'<font color="{colour}"><b>Verdict: {markup(content.verdict)}</b></font>', raw=True)
        reasons = [*content.gate, *content.quality.get("reasons", []), *content.notes]
        for reason in reasons[: self.room.reasons]:
            yield self.text(f"- {cut(str(reason), self.room.reason_length)}")
        if len(reasons) > self.room.reasons:
            yield self.text(f"And {len(reasons) - self.room.reasons} more: {IN_HTML}.")
        if content.registration:
            yield self.text(f"The reader's verdict on the registration: {content.registration}")
        yield from self.listed()
        yield self.pictures(
            [(picture, "") for picture in content.overview], most_high=230 if len(content.entries) < 10 else 150
        )

    def scan(self, side: str) -> list[str]:
        """The row of one scan."""
        scan = self.content.records["run"].get(side) or {}
        date = (scan.get("acquisition") or {}).get("date") or "not stated"
        spacing = " x ".join(f"{float(h):.2f}" for h in scan.get("spacing_mm", []))
        size = " x ".join(str(n) for n in scan.get("size", []))
        return ["Current" if side == "reference" else "Prior", str(date), str(scan.get("name", "")), size, spacing]

    def listed(self) -> Iterator[Any]:
        """The list of the findings."""
        from reportlab.platypus import Paragraph

        content, entries = self.content, self.content.entries
        count = str(len(entries)) if content.has_map else "none can be listed"
        yield Paragraph(f"Findings: {count}", self.heading)
        for words in content.about_list:
            yield self.text(words)
        if entries:
            head = ["No.", "Kind", "Lung", "Mean diameter now", "before", "Volume change (95 %)", "Doubling", "Reader"]
            yield from self.grid([head, *map(self.row, entries[: self.room.listed])])
        further = entries[self.room.listed :]
        if further:
            words = "; ".join(self.short(entry) for entry in further[: self.room.named])
            yield self.text(f"And {len(further)} more (mean diameters): {words}.", style=self.small)
        unnamed = len(further) - self.room.named
        if unnamed > 0:
            yield self.text(f"{unnamed} of these are not named here: {IN_HTML}.")

    def short(self, entry: Entry) -> str:
        """One finding among many."""
        kind, side = str(KINDS.get(entry["kind"], entry["kind"])).lower(), str(entry.get("lung") or "")
        size = size_words(entry).replace("\u2192", "to")
        return " ".join(filter(None, [f"{entry['id']} {kind}", side, size, change_words(entry, short=True)]))

    def row(self, entry: Entry) -> list[str]:
        """The row of one finding."""
        now, before = (
            "-" if lesion is None else f"{mean_diameter_mm(lesion):.1f} mm, {1000 * lesion['volume_ml']:.0f} mm3"
            for lesion in lesions(entry)
        )
        place = f"{entry.get('lung') or ''} {entry.get('third') or ''}".strip()
        decision = self.content.decisions.get(int(entry["id"]))
        return [
            str(entry["id"]),
            str(KINDS.get(entry["kind"], entry["kind"])),
            place,
            now,
            before,
            change_words(entry) or "-",
            doubling_cell(entry, self.content.days) or "-",
            (decision.word if decision else "") or "not judged",
        ]

    def key_images(self) -> Iterator[Any]:
        """The findings with their pictures, four on a page."""
        from reportlab.platypus import KeepTogether, PageBreak, Paragraph

        content = self.content
        pictured = [entry for entry in content.entries if content.pictures.get(int(entry["id"]))]
        pictured = pictured[: self.room.pictured]
        if pictured:
            yield PageBreak()
            yield Paragraph("Key images, axial", self.heading)
        for entry in pictured:
            found = content.pictures[int(entry["id"])]
            row = [(found[role], CAPTIONS[role]) for role in ROLES if role in found]
            yield KeepTogether([self.text(content.sentence(entry)), self.pictures(row, most_high=112)])
        others = [int(entry["id"]) for entry in content.entries if entry not in pictured]
        if pictured and others:
            yield self.text(f"Without a picture here: {ranges(others)}; {IN_HTML}.")

    def last(self, time_points: TimePoints | None) -> Iterator[Any]:
        """What was not seen, the reader's decisions and signature, versions."""
        from reportlab.platypus import CondPageBreak, HRFlowable, KeepTogether, PageBreak, Paragraph, Spacer

        content = self.content
        pictured = any(content.pictures.get(int(entry["id"])) for entry in content.entries)
        yield CondPageBreak(LAST) if pictured else PageBreak()
        if time_points is not None:
            yield Paragraph("Time points", self.heading)
            rows, sentences = fitted(time_points, self.room.tracks)
            yield from self.grid(rows)
            yield from (self.text(line) for line in sentences)
        yield Paragraph("What this comparison cannot see", self.heading)
        for sentence in content.unseen or (
            "Nothing is stated: no change was looked for, or an older version made this.",
        ):
            yield self.text(f"- {sentence}")
        yield Paragraph("Decisions of the reader", self.heading)
        rows = [
            [f"Finding {entry['id']}", *self.boxes(int(entry["id"]))] for entry in content.entries[: self.room.listed]
        ]
        signed: list[Any] = []  # what must not stand on another page than the signature
        if rows:
            tables = self.grid([["", "Decision", "Comment"], *rows], wide=2, last=3)
            yield from tables[:-1]
            signed += [tables[-1], *self.further()]
        else:
            yield self.text("There is no finding to decide on.")
        signed += [
            Spacer(1, 34),
            HRFlowable(width="100%", thickness=0.7, color="#000000"),
            Paragraph("Read by (name), date, signature", self.small),
            Paragraph("Versions", self.heading),
        ]
        versions = content.records["run"].get("versions") or {}
        signed.append(self.text(", ".join(f"{name} {version}" for name, version in versions.items()), style=self.small))
        sealed = f"SHA-256 of run.json, which holds those of all files: {content.sha256}"
        signed.append(self.text(sealed if content.sha256 else "Made before the result was saved.", style=self.small))
        yield KeepTogether(signed)

    def boxes(self, number: int) -> list[str]:
        """What was decided, or boxes to tick."""
        decision = self.content.decisions.get(number, Decision())
        return [decision.word or BOXES, cut(decision.comment, self.room.comment_length)]

    def further(self) -> Iterator[Any]:
        """What was decided on the findings without a row, which have no boxes to tick either."""
        numbers = [int(entry["id"]) for entry in self.content.entries[self.room.listed :]]
        decided = [(number, self.content.decisions[number]) for number in numbers if number in self.content.decisions]
        for word in ("accepted", "rejected"):
            some = [number for number, decision in decided if decision.word == word]
            if some:
                yield self.text(f"Also {word}: {ranges(some)}.", style=self.small)
        comments = [f"{number}: {decision.comment}" for number, decision in decided if decision.comment]
        if comments:
            yield self.text(cut("; ".join(comments), 2 * self.room.comment_length), style=self.small)
        open_ones = [number for number in numbers if not self.content.decisions.get(number, Decision()).word]
        if open_ones:
            yield self.text(f"Not judged, without a row here: {ranges(open_ones)}.", style=self.small)

    def text(self, text: str, *, raw: bool = False, style: Any = None, width: float = 0.0) -> Any:
        """A paragraph; ``raw`` for text with markup of our own, ``width`` if it is not as wide as the page."""
        from reportlab.platypus import Paragraph

        style = style or self.body
        return Paragraph(text if raw else markup(text, width=width or self.width, size=style.fontSize), style)

    def grid(self, rows: Sequence[Sequence[str]], *, wide: int | None = None, last: int = 0) -> list[Any]:
        """A table with a head, as wide as the page, with columns as wide as they need.

        Args:
            rows: the head, and the others.
            wide: column that gets what is left.
            last: rows in a table of their own, so that they can be kept with what follows.
        """
        from reportlab.pdfbase.pdfmetrics import stringWidth
        from reportlab.platypus import Table

        def width(cell: str, row: int) -> float:
            return float(stringWidth(cell, BODY if row else BOLD, 7.0))

        wanted = [
            min(max(width(str(cell), row) for row, cell in enumerate(column)) + 13, 150.0)  # padding, and a half point
            for column in zip(*rows, strict=True)
        ]
        if wide is not None:
            wanted[wide] = max(self.width - (sum(wanted) - wanted[wide]), wanted[wide])
        most = 150.0
        while sum(wanted) > self.width and most > 20.0:  # the widest are broken into lines first, dates last
            most -= 5.0
            wanted = [min(one, most) for one in wanted]
        scale = self.width / sum(wanted)
        widths = [w * scale for w in wanted]
        cells = [
            [self.text(str(cell), style=self.small, width=w - 12) for cell, w in zip(row, widths, strict=True)]
            for row in rows
        ]
        cells[0] = [self.text(f"<b>{markup(str(cell))}</b>", raw=True, style=self.small) for cell in rows[0]]
        lines = [("LINEBELOW", (0, 0), (-1, -1), 0.25, "#bbbbbb"), ("TOPPADDING", (0, 0), (-1, -1), 1.5)]
        cut = len(cells) - last if 0 < last < len(cells) - 1 else 0
        parts = [cells[:cut], cells[cut:]] if cut else [cells]
        return [Table(part, widths, repeatRows=not number, style=[*_TOP, *lines]) for number, part in enumerate(parts)]

    def pictures(self, row: Sequence[tuple[bytes, str]], *, most_high: float) -> Any:
        """Pictures side by side with captions."""
        from reportlab.lib.utils import ImageReader
        from reportlab.platypus import Image, Spacer, Table

        if not row:
            return Spacer(1, 1)
        wide = self.width / len(row) - 6
        images = []
        for content, _ in row:
            w, h = ImageReader(io.BytesIO(content)).getSize()
            scale = min(wide / w, most_high / h)
            images.append(Image(io.BytesIO(content), w * scale, h * scale))
        captions = [self.text(caption, style=self.small) for _, caption in row]
        cells = [images, captions] if any(caption for _, caption in row) else [images]
        return Table(cells, [wide + 6] * len(row), style=_TOP)
