"""Receives images that an archive sends: on its own connection (C-GET), or on one that it opens to us (C-MOVE)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
from pynetdicom import AE, evt

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io.archive.entries import checked_uid, missing_files, write_whole
from ChangeMapJointLib.io.archive.peer import Peer
from ChangeMapJointLib.io.sources import reason_of

IMAGES: tuple[UID, ...] = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SUCCESS, NOT_ASKED_FOR, OUT_OF_RESOURCES = 0x0000, 0x0124, 0xA700


class Receiver:
    """Writes images as they come in, those that were asked for and no others.

    Attributes:
        failure: why an image could not be written; None so far.
    """

    def __init__(self, folder: Path, wanted: Iterable[str], got: Callable[[], None]) -> None:
        """Receive into a folder.

        Args:
            folder: gets ``UID.dcm``.
            wanted: SOPInstanceUIDs.
            got: called after each image.
        """
        self._folder, self._wanted, self._got = folder, frozenset(wanted), got
        self.failure: OSError | None = None

    def take(self, event: Any) -> int:
        """Answer a C-STORE with a status."""
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid not in self._wanted:  # of a series that was fetched half, or never asked for
            return SUCCESS if self._holds(uid) else NOT_ASKED_FOR
        try:
            write_whole(self._folder / f"{checked_uid(uid)}.dcm", event.encoded_dataset())
        except OSError as error:
            self.failure = error
            return OUT_OF_RESOURCES
        self._got()
        return SUCCESS

    @property
    def missing(self) -> bool:
        """Whether an image that was asked for is not there yet."""
        return bool(missing_files(self._folder, self._wanted))

    def _holds(self, uid: str) -> bool:
        try:
            return (self._folder / f"{checked_uid(uid)}.dcm").is_file()
        except ValueError:
            return False


@contextmanager
def listening(peer: Peer, receiver: Receiver) -> Iterator[None]:
    """Let an archive open connections to us, at the port that its answers to C-MOVE go to.

    Raises:
        InputError: the port cannot be used, or a certificate of ours is missing.
    """
    entity = AE(ae_title=peer.calling)
    entity.require_called_aet = True
    for uid in IMAGES:
        entity.add_supported_context(uid, list(AllTransferSyntaxes))
    context = _context(peer)
    handlers: Any = [(evt.EVT_C_STORE, receiver.take)]
    try:
        server = entity.start_server(("", peer.listen), block=False, evt_handlers=handlers, ssl_context=context)
    except OSError as error:
        raise InputError(
            f"cannot be used ({reason_of(error)})",
            field="listen",
            value=peer.listen,
            expected="a free port",
            remedy="give another one, and enter it at the archive",
        ) from error
    assert server is not None  # it does not block
    try:
        yield
    finally:
        server.shutdown()


def _context(peer: Peer) -> ssl.SSLContext | None:
    """The archive's connections to us are encrypted where ours to it are, and its certificate is checked."""
    if peer.tls is None:
        return None
    if peer.tls.certificate is None:
        raise InputError(
            "needs a certificate of ours, by which the archive knows us",
            field="listen",
            value=peer.listen,
            remedy=("give ", Argument("tls_certificate"), ", or leave out ", Argument("listen")),
        )
    return peer.tls.context(serving=True)
