"""Try again where a connection failed in a way that may pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ChangeMapJointLib.io.archive.peer import ConnectionLost, Peer

if TYPE_CHECKING:
    from ChangeMapJointLib.io.archive.entries import Archive

RETRIES = 3
FIRST_WAIT_S = 1.0
T = TypeVar("T")


def archive_of(peer: Peer) -> Archive:
    """Return the client for an archive."""
    if peer.url:
        from ChangeMapJointLib.io.archive.web import WebArchive

        return WebArchive(peer)
    from ChangeMapJointLib.io.archive.dimse import DimseArchive

    return DimseArchive(peer)


def with_tries(
    peer: Peer, action: Callable[[], T], *, retries: int = RETRIES, outcome: Callable[[], str] = lambda: ""
) -> T:
    """Return what ``action`` returns; after a :class:`ConnectionLost` try again, after 1, 2, 4, ... s.

    Args:
        peer: named in the error.
        action: continues where the try before it ended.
        retries: tries after the first.
        outcome: a sentence on what was done so far, for the error.

    Raises:
        InputError: the last try failed as well.
    """
    for number in range(retries + 1):
        try:
            return action()
        except ConnectionLost as lost:
            if number == retries:
                done = outcome()
                tries = f" ({number + 1} tries)" if number else ""
                raise peer.error(
                    f"{lost}{tries}{f'; {done}' if done else ''}",
                    remedy="check that the archive is running, then give the same command: it goes on from here",
                ) from lost
            time.sleep(FIRST_WAIT_S * 2**number)
    raise AssertionError("unreachable")
