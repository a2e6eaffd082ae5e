"""Typefaces for every letter that a name may have: Latin, Greek, Cyrillic, Hebrew, Arabic, Chinese, Japanese, Korean.

DejaVu Sans comes with matplotlib and is embedded. Chinese, Japanese and Korean are set in typefaces that viewers have
(CID fonts), since an embedded one would be larger than the document.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

BODY, BOLD = "Body", "Body-Bold"
# the first whose coding has all letters is taken: kana are Japanese before anything else, Hangul only Korean
ASIAN = (
    ("HeiseiKakuGo-W5", "cp932"),
    ("MSung-Light", "big5"),
    ("STSong-Light", "gbk"),
    ("HYGothic-Medium", "euc_kr"),
)
UNKNOWN = "?"
LOST = " (other letters: see the header of the scan)"
_SIGNS = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u2009": " ", "\u2013": "-", "\u2014": "-"})
_RIGHT_TO_LEFT = ("R", "AL")


@cache
def body_signs() -> frozenset[int]:
    """Register the typefaces; return the characters that the one for text can show."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfbase.ttfonts import TTFont

    plain, bold = _files()
    face = TTFont(BODY, plain)
    pdfmetrics.registerFont(face)
    pdfmetrics.registerFont(TTFont(BOLD, bold))
    pdfmetrics.registerFontFamily(BODY, normal=BODY, bold=BOLD, italic=BODY, boldItalic=BOLD)
    for name, _ in ASIAN:
        pdfmetrics.registerFont(UnicodeCIDFont(name))
        pdfmetrics.registerFontFamily(name, normal=name, bold=name, italic=name, boldItalic=name)
    return frozenset(face.face.charToGlyph)


def _files() -> tuple[str, str]:
    """DejaVu Sans, or without matplotlib what comes with reportlab and has Latin letters alone."""
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
        files = folder / "DejaVuSans.ttf", folder / "DejaVuSans-Bold.ttf"
        if all(file.is_file() for file in files):
            return str(files[0]), str(files[1])
    return "Vera.ttf", "VeraBd.ttf"


def markup(text: str, *, width: float = 0.0, size: float = 0.0) -> str:
    """Return text for a paragraph: each letter in a typeface that has it, and markup in it escaped.

    Args:
        text: any text, in the order in which it is spoken.
        width: of the paragraph in points; text from right to left is broken into lines of it before it is turned round.
        size: of the letters in points.
    """
    lines = _lines(_plain(text), width, size) if _turns(text) else [_plain(text)]
    parts, lost = [], False
    for line in lines:
        marked = []
        for face, signs in runs(line):
            lost = lost or face == UNKNOWN
            shown = escape(UNKNOWN * len(signs) if face == UNKNOWN else signs)
            marked.append(shown if face in (BODY, UNKNOWN) else f'<font name="{face}">{shown}</font>')
        parts.append("".join(marked))
    return "<br/>".join(parts) + (LOST if lost else "")


def draw_line(canvas: Any, x: float, y: float, text: str, size: float) -> None:
    """Write a line on a canvas, each letter in a typeface that has it."""
    for face, signs in runs(_plain(text)):
        name, shown = (BODY, UNKNOWN * len(signs)) if face == UNKNOWN else (face, signs)
        canvas.setFont(name, size)
        canvas.drawString(x, y, shown)
        x += canvas.stringWidth(shown, name, size)


def runs(line: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a line with the typeface of each, in the order in which they are drawn.

    What none has comes with :data:`UNKNOWN` as its typeface, and so do letters from right to left where they cannot be
    turned round: a name that reads backward would be another one.
    """
    known, turnable = body_signs(), _can_turn()

    def is_in_body(sign: str) -> bool:
        return sign.isspace() or (ord(sign) in known and (turnable or not _turns(sign)))

    for in_body, group in groupby(_in_visual_order(line), is_in_body):
        signs = "".join(group)
        whole = BODY if in_body else _asian(signs)
        if whole != UNKNOWN:
            yield whole, signs
        else:
            for face, some in groupby(signs, _asian):
                yield face, "".join(some)


def _asian(signs: str) -> str:
    """The first typeface that has all the signs."""
    for name, coding in ASIAN:
        try:
            signs.encode(coding)
        except UnicodeEncodeError:
            continue
        return name
    return UNKNOWN


def _plain(text: str) -> str:
    """Text with composed accents, and without signs that only look different."""
    return unicodedata.normalize("NFC", text).translate(_SIGNS)


def _can_turn() -> bool:
    """Whether the packages are there; Slicer has neither."""
    return find_spec("bidi") is not None and find_spec("arabic_reshaper") is not None


def _turns(text: str) -> bool:
    return any(unicodedata.bidirectional(sign) in _RIGHT_TO_LEFT for sign in text)


def _in_visual_order(line: str) -> str:
    """A line with the letters of Arabic joined, in the order from left to right; as it is without the packages."""
    if not _turns(line) or not _can_turn():
        return line
    from arabic_reshaper import reshape
    from bidi import get_display

    joined = str(reshape(line))
    if any(ord(sign) not in body_signs() for sign in joined if _turns(sign)):
        joined = line
    return str(get_display(joined))


def _lines(text: str, width: float, size: float) -> list[str]:
    """Break a text into lines as they are read."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (not width or _width(longer, size) <= width):
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _width(line: str, size: float) -> float:
    """Of a line in points."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    return sum(float(stringWidth(signs, BODY if face == UNKNOWN else face, size)) for face, signs in runs(line))
