"""A report as a parsed page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
from test_pictures import decoded

from ChangeMapJointLib.export.panels import Picture
from ChangeMapJointLib.export.pictures import WARNING

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []  # tag, name, value
        self.images: list[dict[str, str]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.raw: dict[str, str] = {"style": "", "script": ""}
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]] += data
            return
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    def table(self, heading: str) -> list[list[str]]:
        """Cells, blanks tidied, of the table with ``heading`` in its first row."""
        (found,) = [table for table in self.tables if heading in table[0]]
        return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in found]


def has_band(image: dict[str, str]) -> bool:
    pixels = decoded(Picture("", "", image["src"], int(image["width"]), int(image["height"])))
    middle = pixels.shape[1] // 2
    return bool(np.abs(pixels[4, middle - 60 : middle + 60].astype(int) - WARNING).max(axis=-1).mean() < 40)
