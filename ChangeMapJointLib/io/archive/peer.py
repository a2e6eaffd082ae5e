"""Where an archive is, and how the connection to it is protected."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from ChangeMapJointLib.core.errors import InputError, Remedy
from ChangeMapJointLib.io.sources import reason_of

CONNECT_S = 10.0
CALLING = "CHANGEMAP"  # our own AE title
FORMS = "AE@HOST:PORT, or the address of a DICOMweb service (https://...)"
_DIMSE = re.compile(r"(?P<title>[^@\\]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:/\s]+):(?P<port>\d{1,5})")


class ConnectionLost(Exception):
    """The connection failed in a way that may pass: trying again is worth it."""


@dataclass(frozen=True)
class Tls:
    """How a connection is encrypted.

    Attributes:
        ca: file of certificates that the archive's must be signed by; the system's if None.
        certificate: our own certificate, where the archive asks for one.
        key: its key; in the same file if None.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self, *, serving: bool = False) -> ssl.SSLContext:
        """Return the context; hosts and certificates are always checked.

        Args:
            serving: for connections that the archive opens to us; it has to show a certificate, too.

        Raises:
            InputError: a file is missing or holds no certificate or key.
        """
        for name, path in (("tls_ca", self.ca), ("tls_certificate", self.certificate), ("tls_key", self.key)):
            if path is not None and not path.is_file():
                raise InputError("no such file", field=(name, path))
        try:
            purpose = ssl.Purpose.CLIENT_AUTH if serving else ssl.Purpose.SERVER_AUTH
            result = ssl.create_default_context(purpose, cafile=self.ca)
        except (ssl.SSLError, OSError) as error:
            raise InputError(
                f"no certificate ({reason_of(error)})", field=("tls_ca", self.ca or Path()), expected="a PEM file"
            ) from error
        if serving:
            result.verify_mode = ssl.CERT_REQUIRED
        if self.certificate is not None:
            try:
                result.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise InputError(
                    f"no certificate with its key ({reason_of(error)})",
                    field=("tls_certificate", self.certificate),
                    expected="PEM files, the key without a password",
                ) from error
        return result


def _no_password() -> str:
    """Keep OpenSSL from asking on the terminal."""
    raise ValueError("the key needs a password")


@dataclass(frozen=True)
class Peer:
    """An archive.

    Attributes:
        name: as the user gave it.
        argument: the argument that gave it, named in errors.
        url: of a DICOMweb service; empty for DIMSE.
        title: AE title of the archive.
        host: name or address.
        port: TCP port.
        calling: our own AE title.
        tls: None for a connection in the clear.
        listen: TCP port at which the archive sends us what we ask for by C-MOVE; 0 for C-GET.
    """

    name: str
    argument: str = "to"
    url: str = ""
    title: str = ""
    host: str = ""
    port: int = 0
    calling: str = CALLING
    tls: Tls | None = None
    listen: int = 0

    def error(self, found: str, *, expected: str = "", remedy: Remedy = "") -> InputError:
        """Return an error that names the archive."""
        return InputError(found, field=self.argument, value=self.name, expected=expected, remedy=remedy)


def parse_peer(
    text: str, argument: str = "to", *, calling: str = CALLING, tls: Tls | None = None, listen: int = 0
) -> Peer:
    """Return the archive at ``AE@HOST:PORT`` or ``http(s)://...``.

    Args:
        text: the address.
        argument: named in errors.
        calling: our own AE title, at most 16 characters.
        tls: how the connection is encrypted; with an https address the default is the system's certificates.
        listen: port for C-MOVE; 0 for C-GET.

    Raises:
        InputError: it is not an address, or a needed package is missing.

    Examples:
        >>> peer = parse_peer("ORTHANC@localhost:4242")
        >>> peer.title, peer.host, peer.port
        ('ORTHANC', 'localhost', 4242)
        >>> parse_peer("https://pacs.example/dicom-web").url
        'https://pacs.example/dicom-web'
    """
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]{1,16}", calling):
        raise InputError(field="aet", value=calling, expected="an AE title of at most 16 characters")
    if text.startswith(("http://", "https://")):
        _need("dicomweb_client")
        parts = urlsplit(text)
        if parts.username or parts.password:
            raise InputError(
                "holds a password", field=argument, remedy="put it into ~/.netrc, where no other program lists it"
            )
        if not parts.hostname:
            raise InputError(field=argument, value=text, expected=FORMS)
        secure = parts.scheme == "https"
        if tls is not None and not secure:
            raise InputError("is not encrypted", field=argument, value=text, expected="https://...")
        if listen:
            raise InputError("is for AE@HOST:PORT", field="listen", value=listen, remedy="leave it out")
        return Peer(text, argument, text.rstrip("/"), calling=calling, tls=(tls or Tls()) if secure else None)
    match = _DIMSE.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise InputError(field=argument, value=text, expected=FORMS)
    _need("pynetdicom")
    host = match["host"].strip("[]")
    return Peer(text, argument, "", match["title"].strip(), host, int(match["port"]), calling, tls, listen)


def _need(package: str) -> None:
    if find_spec(package) is None:
        name = package.replace("_", "-")
        raise InputError(
            f"the Python package {name} is missing", remedy='install it with: pip install "changemapjoint[dicom]"'
        )


def check_reachable(peer: Peer) -> None:
    """Connect once, and with TLS agree on it, to learn why it fails: an association says only that it did.

    Raises:
        InputError: the name is unknown, or the archive's certificate or ours is not accepted.
        ConnectionLost: nobody answers, which may pass.
    """
    try:
        with socket.create_connection((peer.host, peer.port), CONNECT_S) as connection:
            if peer.tls is None:
                return
            with peer.tls.context().wrap_socket(connection, server_hostname=peer.host):
                return
    except socket.gaierror as error:
        raise peer.error(f"no host is called {peer.host}", remedy="check the name") from error
    except ssl.SSLCertVerificationError as error:
        raise peer.error(
            f"its certificate is not accepted ({error.verify_message})",
            remedy="give the certificate that signs it, as a PEM file, or use the name that it was made for",
        ) from error
    except ssl.SSLError as error:
        raise peer.error(
            f"TLS failed ({(error.reason or str(error)).lower().replace('_', ' ')})",
            remedy="check whether the port speaks TLS, and whether it asks for a certificate of yours",
        ) from error
    except (OSError, TimeoutError) as error:
        raise ConnectionLost(reason_of(error)) from error
