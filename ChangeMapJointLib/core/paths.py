"""Paths as a caller of the library gives them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError


def as_path(value: object, argument: str) -> Path:
    """Return a path that a caller gives.

    Args:
        value: what was given.
        argument: what messages call it.

    Raises:
        InputError: it is neither a text nor a path, is empty, holds a null character, or is too long for this system.

    Examples:
        >>> as_path("out", "out").name
        'out'
        >>> as_path(3, "out")
        Traceback (most recent call last):
        ChangeMapJointLib.core.errors.InputError: out: found int, expected a path
    """
    if not isinstance(value, (str, Path)):
        raise InputError(f"found {type(value).__name__}", field=argument, expected="a path")
    if value == "":
        raise InputError("found an empty path", field=argument, expected="the name of a file or folder")
    if "\0" in str(value):
        raise InputError("found a null character", field=argument, expected="a path")
    try:
        os.lstat(value)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            found = f"found a name of {len(str(value))} characters"
            raise InputError(found, field=argument, expected="one that this system takes") from error
    except UnicodeEncodeError:
        pass  # who opens it says what is wrong with the name
    return Path(value)
