"""An archive that speaks DICOMweb: QIDO, WADO and STOW, by dicomweb-client."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter

from ChangeMapJointLib.io.archive.entries import (
    ArchiveSeries,
    Sent,
    Study,
    checked_uid,
    count_frames,
    series_of,
    study_of,
    write_whole,
)
from ChangeMapJointLib.io.archive.peer import CONNECT_S, ConnectionLost, Peer
from ChangeMapJointLib.io.archive.transfer import coding_of, decompressed, is_compressed

ANSWER_S = 60.0
PASSING = {408, 429, 500, 502, 503, 504, 507}  # HTTP statuses after which another try may help
SYNTAX = (("application/dicom", "*"),)  # as it is stored


class _Timed(HTTPAdapter):
    """Requests that end, and whose certificates are checked as the user says.

    requests takes the file that REQUESTS_CA_BUNDLE names before that of the session.
    """

    def __init__(self, ca: str | None = None) -> None:
        super().__init__()
        self._ca = ca

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        options["timeout"] = options.get("timeout") or (CONNECT_S, ANSWER_S)
        return super().send(request, **{**options, **({} if self._ca is None else {"verify": self._ca})})


class WebArchive:
    """See :class:`~ChangeMapJointLib.io.archive.entries.Archive`."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        session = requests.Session()
        given = None if peer.tls is None or peer.tls.ca is None else str(peer.tls.ca)
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Timed(given))
        if peer.tls is not None:
            peer.tls.context()  # which says what is wrong with the files
            if peer.tls.certificate is not None:
                certificate, key = str(peer.tls.certificate), peer.tls.key
                session.cert = certificate if key is None else (certificate, str(key))
        self._client = DICOMwebClient(peer.url, session=session)
        self._client.set_http_retry_params(retry=False)  # the caller tries again, and says so

    def studies(self, *, patient: str = "", study: str = "") -> list[Study]:
        """Find studies with CT of a patient, or one study."""
        filters = {"StudyInstanceUID": study} if study else {"PatientID": patient, "ModalitiesInStudy": "CT"}
        with self._answered():
            answers = _every(partial(self._client.search_for_studies, search_filters=filters), "StudyInstanceUID")
            return [study_of(answer) for answer in answers]

    def series(self, study: Study) -> list[ArchiveSeries]:
        """List the series of a study."""
        fields = ["SeriesDescription", "BodyPartExamined", "ProtocolName", "NumberOfSeriesRelatedInstances", "Modality"]
        with self._answered():
            answers = _every(partial(self._client.search_for_series, study.uid, fields=fields), "SeriesInstanceUID")
            return [series_of(answer, study) for answer in answers]

    def instances(self, series: ArchiveSeries) -> list[str]:
        """List the SOPInstanceUIDs of a series."""
        with self._answered():
            search = partial(self._client.search_for_instances, series.study.uid, series.uid)
            return sorted(checked_uid(answer.SOPInstanceUID) for answer in _every(search, "SOPInstanceUID"))

    def frames(self, series: ArchiveSeries) -> int:
        """Count the images of a series' multi-frame CT files."""
        fields = ["SOPClassUID", "NumberOfFrames"]
        with self._answered():
            search = partial(self._client.search_for_instances, series.study.uid, series.uid, fields=fields)
            return count_frames(_every(search, "SOPInstanceUID"))

    def header(self, series: ArchiveSeries, instance: str, folder: Path) -> Dataset:
        """Read the header of one image; no pixels are transferred."""
        del folder
        with self._answered():
            answer = self._client.retrieve_instance_metadata(series.study.uid, series.uid, instance)
            return Dataset.from_json(answer, bulk_data_uri_handler=lambda *_: b"")  # no pixels

    def fetch(self, series: ArchiveSeries, instances: Sequence[str], folder: Path, got: Callable[[], None]) -> None:
        """Fetch images one by one."""
        for uid in instances:
            with self._answered():
                image = self._client.retrieve_instance(series.study.uid, series.uid, uid, media_types=SYNTAX)
            buffer = io.BytesIO()
            image.save_as(buffer, enforce_file_format=True)
            write_whole(folder / f"{uid}.dcm", buffer.getvalue())
            got()

    def store(self, files: Sequence[Path], sent: Sent) -> None:
        """Send files one by one."""
        for path in files:
            why = self._store(dcmread(path))
            if why and is_compressed(coding_of(path)[1]):
                why = self._store(decompressed(path))
            sent(path, why)

    def _store(self, dataset: Dataset) -> str:
        """Send an object; why it was refused, or nothing."""
        try:
            with self._answered():
                answer = self._client.store_instances([dataset])
        except _HttpRefused as error:
            return str(error)
        failed = answer.get("FailedSOPSequence")
        return f"refused it with status 0x{int(failed[0].get('FailureReason', 0)):04X}" if failed else ""

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Turn what requests raises into what may pass and what does not."""
        try:
            yield
        except requests.exceptions.SSLError as error:
            raise self.peer.error(
                f"TLS failed ({_innermost(error)})",
                remedy="give the certificate that signs the archive's, as a PEM file",
            ) from error
        except requests.exceptions.HTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            if code in PASSING:
                raise ConnectionLost(f"HTTP status {code}") from error
            if code in (401, 403):
                raise self.peer.error(
                    f"HTTP status {code}: not allowed", remedy="put name and password into ~/.netrc"
                ) from error
            if code in (400, 409, 413, 415):
                raise _HttpRefused(f"refused it with HTTP status {code}") from error
            raise self.peer.error(
                f"HTTP status {code}", expected="a DICOMweb service", remedy="check the address"
            ) from error
        except requests.exceptions.RequestException as error:
            raise ConnectionLost(_innermost(error)) from error
        except ValueError as error:
            raise self.peer.error(f"answers what is not DICOMweb ({error})", remedy="check the address") from error


def _every(search: Callable[..., list[dict[str, Any]]], key: str) -> list[Dataset]:
    """All answers of a query, which may come in parts; some archives give the first part again for ever."""
    found: dict[str, Dataset] = {}
    while True:
        answers = [Dataset.from_json(answer) for answer in search(offset=len(found))]
        new = {str(answer[key].value): answer for answer in answers}
        if not new.keys() - found.keys():
            return list(found.values())
        found |= new


class _HttpRefused(Exception):
    """The archive does not take one object."""


def _innermost(error: BaseException) -> str:
    """The last cause in words, without the address, which may hold a patient's number."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or type(error).__name__)
