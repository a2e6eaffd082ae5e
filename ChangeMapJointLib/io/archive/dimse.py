"""An archive that speaks DIMSE: C-FIND, C-GET or C-MOVE, and C-STORE, by pynetdicom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from ChangeMapJointLib.core.errors import Argument
from ChangeMapJointLib.io.archive.entries import (
    ArchiveSeries,
    Sent,
    Study,
    checked_uid,
    count_frames,
    series_of,
    study_of,
)
from ChangeMapJointLib.io.archive.peer import CONNECT_S, ConnectionLost, Peer, check_reachable
from ChangeMapJointLib.io.archive.receive import IMAGES, Receiver, listening
from ChangeMapJointLib.io.archive.transfer import PLAIN, coding_of, decompressed, is_compressed

ANSWER_S = 60.0  # without an answer the connection is given up
PENDING, SUCCESS, WARNINGS = (0xFF00, 0xFF01), 0x0000, (0xB000, 0xB006, 0xB007)
FULL = range(0xA700, 0xA800)
UNKNOWN_DESTINATION = 0xA801
ELSE = "give the archive's DICOMweb address"
FEW = 64  # images asked for one by one, where a series is nearly complete


class _NothingAccepted(Exception):
    """The archive answers, but agrees to none of what it was asked for."""


class DimseArchive:
    """See :class:`~ChangeMapJointLib.io.archive.entries.Archive`."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def studies(self, *, patient: str = "", study: str = "") -> list[Study]:
        """Find studies with CT of a patient, or one study."""
        query = _query("STUDY", StudyInstanceUID=study, PatientID=patient, StudyDate="", StudyTime="")
        query.ModalitiesInStudy = "" if study else "CT"
        return [study_of(answer) for answer in self._find(query)]

    def series(self, study: Study) -> list[ArchiveSeries]:
        """List the series of a study."""
        keys = dict.fromkeys(("SeriesInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined"), "")
        keys |= dict.fromkeys(("ProtocolName", "NumberOfSeriesRelatedInstances"), "")
        return [series_of(a, study) for a in self._find(_query("SERIES", StudyInstanceUID=study.uid, **keys))]

    def instances(self, series: ArchiveSeries) -> list[str]:
        """List the SOPInstanceUIDs of a series."""
        query = _query("IMAGE", StudyInstanceUID=series.study.uid, SeriesInstanceUID=series.uid, SOPInstanceUID="")
        return sorted({checked_uid(answer.SOPInstanceUID) for answer in self._find(query)})

    def frames(self, series: ArchiveSeries) -> int:
        """Count the images of a series' multi-frame CT files."""
        keys = dict.fromkeys(("SOPInstanceUID", "SOPClassUID", "NumberOfFrames"), "")
        query = _query("IMAGE", StudyInstanceUID=series.study.uid, SeriesInstanceUID=series.uid, **keys)
        return count_frames(self._find(query))

    def header(self, series: ArchiveSeries, instance: str, folder: Path) -> Dataset:
        """Fetch one image and read its header."""
        self.fetch(series, [instance], folder, lambda: None)
        path = folder / f"{instance}.dcm"
        if not path.is_file():
            raise ConnectionLost("the archive did not send the image that it lists")
        return dcmread(path, stop_before_pixels=True)

    def fetch(self, series: ArchiveSeries, instances: Sequence[str], folder: Path, got: Callable[[], None]) -> None:
        """Fetch images by C-GET, or by C-MOVE where the peer has a port for it."""
        receiver = Receiver(folder, instances, got)
        queries = _image_queries(series, instances)
        if self.peer.listen:
            self._move(queries, receiver)
        else:
            self._get(queries, receiver)

    def _get(self, queries: Sequence[Dataset], receiver: Receiver) -> None:
        model = StudyRootQueryRetrieveInformationModelGet
        contexts = [build_context(model), *(build_context(uid, list(AllTransferSyntaxes)) for uid in IMAGES)]
        roles = [build_role(uid, scp_role=True) for uid in IMAGES]
        handlers = [(evt.EVT_C_STORE, receiver.take)]
        remedy = ("receive by C-MOVE: give ", Argument("listen"), f", or {ELSE}")
        with self._association(contexts, ext_neg=roles, evt_handlers=handlers) as association:
            if not _takes(association, model):
                raise self.peer.error("does not offer C-GET", remedy=remedy)
            for query in queries:
                self._follow(association, association.send_c_get(query, model), receiver, "C-GET")

    def _move(self, queries: Sequence[Dataset], receiver: Receiver) -> None:
        model = StudyRootQueryRetrieveInformationModelMove
        try:
            with listening(self.peer, receiver), self._association([build_context(model)]) as association:
                for query in queries:
                    answers = association.send_c_move(query, self.peer.calling, model)
                    self._follow(association, answers, receiver, "C-MOVE")
        except _NothingAccepted:
            raise self.peer.error("does not offer C-MOVE", remedy=ELSE) from None

    def _follow(self, association: Any, answers: Iterable[tuple[Dataset, Any]], receiver: Receiver, way: str) -> None:
        """Follow the answers of an archive while it sends images."""
        peer = self.peer
        hint = f"; it has to know {peer.calling} at this computer's port {peer.listen}" if peer.listen else ""
        for status, _ in answers:
            if receiver.failure is not None:
                association.abort()
                raise receiver.failure
            if not status:
                raise ConnectionLost(f"the connection broke while images were fetched{hint}")
            if status.Status == UNKNOWN_DESTINATION:
                raise peer.error(
                    f"does not know the AE title {peer.calling} as a destination",
                    remedy=f"enter it there, with this computer's name or address and port {peer.listen}",
                )
            if status.Status not in (*PENDING, SUCCESS, *WARNINGS) and receiver.missing:
                raise ConnectionLost(f"the archive ended {way} with status 0x{status.Status:04X}{hint}")

    def store(self, files: Sequence[Path], sent: Sent) -> None:
        """Send files by C-STORE."""
        metas = {path: coding_of(path) for path in files}
        contexts = [build_context(*kind) for kind in dict.fromkeys(metas.values())]
        contexts += [build_context(kind, list(PLAIN)) for kind in dict.fromkeys(kind for kind, _ in metas.values())]
        try:
            self._store(contexts, metas, sent)
        except _NothingAccepted:
            for path, (kind, syntax) in metas.items():
                sent(path, _not_taken(kind, syntax))

    def _store(self, contexts: list[Any], metas: Mapping[Path, tuple[str, str]], sent: Sent) -> None:
        """Send files, each as the archive agreed to take it."""
        with self._association(contexts) as association:
            for path, (kind, syntax) in metas.items():
                plain = any(_takes(association, kind, one) for one in PLAIN)
                if not plain and not _takes(association, kind, syntax):
                    sent(path, _not_taken(kind, syntax))
                    continue
                unpack = is_compressed(syntax) and not _takes(association, kind, syntax)
                status = association.send_c_store(decompressed(path) if unpack else path)
                if not status:
                    raise ConnectionLost("the connection broke while objects were sent")
                if status.Status in FULL:
                    raise ConnectionLost(f"the archive is out of resources (status 0x{status.Status:04X})")
                good = status.Status == SUCCESS or status.Status in WARNINGS
                comment = str(status.get("ErrorComment", "") or "").strip()
                sent(path, "" if good else f"refused it with status 0x{status.Status:04X} {comment}".strip())

    def _find(self, query: Dataset) -> list[Dataset]:
        answers = []
        try:
            with self._association([build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
                for status, answer in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
                    if not status:
                        raise ConnectionLost("the connection broke during a query")
                    if status.Status not in (*PENDING, SUCCESS):
                        raise self.peer.error(f"refuses the query (status 0x{status.Status:04X})")
                    if status.Status in PENDING and answer is not None:
                        answers.append(answer)
        except _NothingAccepted:
            raise self.peer.error("does not offer C-FIND", remedy=ELSE) from None
        return answers

    @contextmanager
    def _association(self, contexts: list[Any], **options: Any) -> Iterator[Any]:
        """An association; raises what says best why there is none."""
        check_reachable(self.peer)
        entity = AE(ae_title=self.peer.calling)
        entity.acse_timeout = entity.connection_timeout = CONNECT_S
        entity.dimse_timeout = entity.network_timeout = ANSWER_S
        if self.peer.tls is not None:
            options["tls_args"] = (self.peer.tls.context(), self.peer.host)
        association = entity.associate(
            self.peer.host, self.peer.port, contexts=contexts, ae_title=self.peer.title, **options
        )
        if association.is_rejected:
            primitive = association.acceptor.primitive
            if primitive is not None and primitive.result == 2:
                raise ConnectionLost(f"the association was rejected for now ({primitive.reason_str})")
            why = "" if primitive is None else f" ({primitive.reason_str.lower()})"
            raise self.peer.error(
                f"refuses the association{why}",
                remedy=f"have it accept the AE title {self.peer.calling}, and check its own ({self.peer.title})",
            )
        if association.rejected_contexts and not association.accepted_contexts:
            raise _NothingAccepted  # pynetdicom has aborted the association
        if not association.is_established:
            raise ConnectionLost("no association: the answer is not that of a DICOM archive, or it was aborted")
        try:
            yield association
        finally:
            if association.is_established:
                association.release()


def _query(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(query, name, value)
    return query


def _image_queries(series: ArchiveSeries, instances: Sequence[str]) -> list[Dataset]:
    """The series as a whole, or its images one by one where few are wanted."""
    place = {"StudyInstanceUID": series.study.uid, "SeriesInstanceUID": series.uid}
    if len(instances) > FEW or len(instances) == series.count:
        return [_query("SERIES", **place)]
    return [_query("IMAGE", **place, SOPInstanceUID=uid) for uid in instances]


def _takes(association: Any, kind: str, syntax: str = "") -> bool:
    """Whether the archive agreed to a kind of object or query, in this transfer syntax."""
    return any(
        context.abstract_syntax == kind and (not syntax or syntax in context.transfer_syntax)
        for context in association.accepted_contexts
    )


def _not_taken(kind: str, syntax: str) -> str:
    return f"does not take {UID(kind).name} as {UID(syntax).name}"
