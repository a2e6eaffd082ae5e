"""Single values of a DICOM header: text, numbers, dates, and who the patient is without naming them."""

from __future__ import annotations

import hashlib
import re
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.multival import MultiValue

from ChangeMapJointLib.core.errors import InputError

_KEY_SALT = secrets.token_bytes(16)  # of this process: a key cannot be looked up or compared later
MAX_QUOTED = 200  # characters of a value in a message
LONGEST_LO = 64  # characters of a value of type LO
_NO_CONTRAST = ("", "N", "NO", "NONE", "NO CONTRAST")


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """Whatever pydicom raises on a damaged file becomes one InputError that names it, and its warnings are dropped.

    Their texts are left out: they may quote the header, and with it the patient.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are common; what matters is checked where it is used
            yield
    except InputError as error:
        raise error.at(Path(name)) from error
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"damaged DICOM file ({kind})", field=Path(name), remedy="export the series again") from error


def as_text(value: Any) -> str:
    """A value as plain text on one line; several values are joined by backslashes, as in the file."""
    if value is None:
        return ""
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(as_text(item) for item in value)
    return on_one_line(str(value).strip("\0 \t\r\n"))


def on_one_line(text: str) -> str:
    """``text`` with a space for whatever cannot be printed."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def as_integer(value: Any) -> int | None:
    """A whole number, or None when it is absent or something else."""
    text = as_text(value)
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else None


def as_numbers(value: Any, count: int, name: str) -> tuple[float, ...] | None:
    """``count`` finite numbers, or None when the element is absent or empty.

    Raises:
        InputError: for anything else; calls the element ``name``.
    """
    text = as_text(value)
    if not text:
        return None
    try:
        found = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        found = ()
    if len(found) != count or not np.isfinite(found).all():
        raise InputError(f"{name} is '{text[:MAX_QUOTED]}'", expected=f"{count} finite number(s)")
    return found


def as_number(value: Any, default: float, name: str) -> float:
    """One finite number, or ``default`` when the element is absent or empty.

    Raises:
        InputError: for anything else; calls the element ``name``.
    """
    found = as_numbers(value, 1, name)
    return found[0] if found else default


def as_iso_date(value: Any) -> str | None:
    """``YYYY-MM-DD`` of a DICOM date, date-time or ACR-NEMA date; None when it is none."""
    match = re.match(r"(\d{4})[.]?(\d\d)[.]?(\d\d)", as_text(value))
    try:
        return date(*(int(part) for part in match.groups())).isoformat() if match else None
    except ValueError:
        return None


def as_iso_time(value: Any, name: str = "Time") -> str | None:
    """``HH:MM:SS`` of a DICOM time, an ACR-NEMA time, or a date-time (by its ``name``); None when it is none."""
    text = as_text(value)
    match = re.match(r"(\d\d):?(\d\d):?(\d\d)?", text[8:] if name.endswith("DateTime") else text)
    try:
        hour, minute, second = (int(part or 0) for part in match.groups()) if match else (24, 0, 0)
        return time(hour, minute, second).isoformat()
    except ValueError:
        return None


def positive(value: Any) -> float | None:
    """A number above 0, or None for whatever else is there: of things that are only told, not reckoned with."""
    try:
        number = float(as_text(value) or "nan")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def contrast_agent(text: str) -> str | None:
    """The agent's name; None when the text says that there was none."""
    return None if text.upper() in _NO_CONTRAST else text


def patient_key(patient_id: str, name: str = "") -> str | None:
    """A salted SHA-256 of the patient's number and name, to compare two scans read by this process.

    The salt is new in every process: a stored key is worthless, and none should be stored.
    None when both are empty.
    """
    words = _words((patient_id, name))
    return hashlib.sha256(_KEY_SALT + "\0".join(words).encode()).hexdigest() if words else None


def without_identity(text: str, identity: Iterable[str]) -> str:
    """``text``, or nothing when somebody typed the patient's name or number into it.

    Nothing as well when it is longer than its kind of element may be: a damaged length swallows the elements behind it,
    the patient's among them.
    """
    if len(text) > LONGEST_LO:
        return ""
    upper = text.upper()
    tokens = set(re.split(r"[\W_]+", upper))
    found = any(
        (len(word) > 3 and word in upper) or (len(word) > 1 and word.isalpha() and word in tokens)
        for word in _words(identity)
    )
    return "" if found else text


def one_line(error: BaseException) -> str:
    """The message of an error, on one line that is not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _words(identity: Iterable[str]) -> list[str]:
    return [word for text in identity for word in re.split(r"[\^=\s,]+", text.upper()) if word]
