"""Single values of a DICOM header: text, numbers, dates, and an anonymous key of the patient."""

from __future__ import annotations

import hashlib
import re
import secrets
import warnings
from collections.abc import Iterable, Iterator, MutableSequence
from contextlib import contextmanager
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np

from ChangeMapJointLib.core.errors import InputError

_KEY_SALT = secrets.token_bytes(16)  # new in every process, so that keys cannot be looked up or compared later
MAX_QUOTED = 200  # characters of a value in a message
LONGEST_LO = 64  # characters in a value of type LO
# transfer syntaxes: JPEG of 8 and of 12 bits, near-lossless JPEG-LS; JPEG 2000 may be lossless under either UID
_ALWAYS_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """Turn anything that pydicom raises on a damaged file into an InputError that names the file; drop its warnings.

    The texts of its errors are not shown, since they may quote the header and so identify the patient.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are common; values are checked where they are used
            yield
    except InputError as error:
        raise error.at(Path(name)) from error
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"damaged DICOM file ({kind})", field=Path(name), remedy="export the series again") from error


def as_text(value: Any) -> str:
    """Return a value as plain text on one line; multiple values are joined by backslashes, as in the file."""
    if value is None:
        return ""
    if isinstance(value, MutableSequence | tuple):
        return "\\".join(as_text(item) for item in value)
    return on_one_line(str(value).strip("\0 \t\r\n"))


def on_one_line(text: str) -> str:
    """Return ``text`` with a space for every unprintable character."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def as_integer(value: Any) -> int | None:
    """Return a whole number, or None if the value is missing or anything else."""
    text = as_text(value)
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else None


def as_numbers(value: Any, count: int, name: str) -> tuple[float, ...] | None:
    """Return ``count`` finite numbers, or None if the element is missing or empty.

    Raises:
        InputError: the value is anything else; the message calls it ``name``.
    """
    text = as_text(value)
    if not text:
        return None
    try:
        numbers = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(
            f"{name} is '{text[:MAX_QUOTED]}'", expected=f"{count} finite number(s)", remedy="export the series again"
        )
    return numbers


def as_number(value: Any, default: float, name: str) -> float:
    """Return one finite number, or ``default`` if the element is missing or empty.

    Raises:
        InputError: the value is anything else; the message calls it ``name``.
    """
    numbers = as_numbers(value, 1, name)
    return numbers[0] if numbers else default


def as_iso_date(value: Any) -> str | None:
    """Return a DICOM date, date-time or ACR-NEMA date as ``YYYY-MM-DD``; None if it is not a date."""
    match = re.match(r"(\d{4})[.]?(\d\d)[.]?(\d\d)", as_text(value))
    try:
        return date(*(int(part) for part in match.groups())).isoformat() if match else None
    except ValueError:
        return None


def as_iso_time(value: Any, name: str = "Time") -> str | None:
    """Return a DICOM time, ACR-NEMA time, or date-time (by its ``name``) as ``HH:MM:SS``; None if it is not a time."""
    text = as_text(value)
    match = re.match(r"(\d\d):?(\d\d):?(\d\d)?", text[8:] if name.endswith("DateTime") else text)
    try:
        hour, minute, second = (int(part or 0) for part in match.groups()) if match else (24, 0, 0)
        return time(hour, minute, second).isoformat()
    except ValueError:
        return None


def as_finite(value: Any) -> float | None:
    """Return a finite number, or None for any other value; for values that are not used for the geometry."""
    try:
        number = float(as_text(value) or "nan")
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def positive(value: Any) -> float | None:
    """Return a number above 0, or None for any other value; for values that are only reported, not used."""
    number = as_finite(value)
    return number if number is not None and number > 0 else None


def lossy_ratio(flag: str, ratios: str, syntax: str = "") -> float | None:
    """Return the ratio of a compression that lost detail, the largest of all steps; 1 where none is given.

    Args:
        flag: LossyImageCompression.
        ratios: LossyImageCompressionRatio, one number per step, separated by backslashes.
        syntax: UID of the transfer syntax; some lose detail even where the header does not say so.

    Returns:
        The ratio; None without such a compression.

    Examples:
        >>> lossy_ratio("01", "9.5"), lossy_ratio("01", ""), lossy_ratio("00", "9.5")
        (9.5, 1.0, None)
    """
    if flag != "01" and syntax not in _ALWAYS_LOSSY:
        return None
    return max(positive(step) or 1.0 for step in ratios.split("\\"))


def patient_key(patient_id: str, name: str = "") -> str | None:
    """Return a salted SHA-256 of the patient's number and name, to compare two scans read by this process.

    The salt is new in every process, so a stored key would be useless; do not store it.

    Returns:
        The key; None if number and name are empty.
    """
    words = _words((patient_id, name))
    return hashlib.sha256(_KEY_SALT + "\0".join(words).encode()).hexdigest() if words else None


def without_identity(text: str, identity: Iterable[str]) -> str:
    """Return ``text``, or an empty string if it contains the patient's name or number.

    Also empty if the text is longer than its type of element allows: with a damaged length, it may include the elements
    that follow, and with them the patient.
    """
    if len(text) > LONGEST_LO:
        return ""
    upper = text.upper()
    tokens = set(re.split(r"[\W_]+", upper))
    identifies = any(
        (len(word) > 3 and word in upper) or (len(word) > 1 and word.isalpha() and word in tokens)
        for word in _words(identity)
    )
    return "" if identifies else text


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line of at most 200 characters, without a traceback that it includes."""
    return " ".join(str(error).partition("Traceback (")[0].split())[:200] or type(error).__name__


def _words(identity: Iterable[str]) -> list[str]:
    return [word for text in identity for word in re.split(r"[\^=\s,]+", text.upper()) if word]


def shown_name(name: str) -> str:
    """Return a PatientName as people read it: spaces between its parts, an equals sign between its spellings.

    Examples:
        >>> shown_name("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=")
        'Yamada Tarou = \u5c71\u7530 \u592a\u90ce'
    """
    spellings = (" ".join(spelling.split()) for spelling in name.replace("^", " ").split("="))
    return " = ".join(filter(None, spellings))
