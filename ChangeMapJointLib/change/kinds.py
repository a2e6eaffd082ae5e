"""The kinds of change, and the words that users see for them."""

from __future__ import annotations

from typing import Literal

Kind = Literal["new", "grown", "shrunk", "resolved", "increase", "decrease"]
KIND_WORDS: dict[Kind, str] = {
    "new": "new",
    "grown": "grown",
    "shrunk": "shrunk",
    "resolved": "resolved",
    "increase": "denser",
    "decrease": "less dense",
}
DENSER_KINDS = ("new", "grown", "increase")  # R is denser than T(y) there
