"""A small PACS for `make demo` where Orthanc is not installed: Storage, Query and Storage Commitment SCP on a folder.

For demonstrations and tests only: it keeps files, knows no users, and forgets nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydicom
import structlog
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context

from node.dicom_net.acceptor import Server, quiet_library
from node.dicom_net.callers import Permission
from node.dicom_net.presentation import accepted_contexts
from node.dicom_net.query import PLAIN
from node.dicom_net.scu import DestinationFault, Peer, association
from node.dicom_net.uids import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, STUDY_ROOT_FIND

log = structlog.get_logger()
_LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_NO_SUCH_INSTANCE = 0x0112
_SAFE = re.compile(r"[^0-9A-Za-z._-]")


class EmbeddedPacs:
    """Keeps what it is sent below ``folder/<study>/<series>/``, answers queries, and commits to what it keeps.

    Parameters
    ----------
    folder
        Created when absent; what lies there already is known.
    ae_title, port
        How it is called; port 0 takes a free one, see ``port``.
    peers
        AE title -> (host, port): where commitment answers go. Callers that are not listed get none.
    """

    def __init__(self, folder: Path, ae_title: str, port: int, peers: Mapping[str, tuple[str, int]]) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port = port
        self._peers = dict(peers)
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Path, Dataset]] = {}
        self._server: Server | None = None

    def start(self) -> None:
        """Listen in a thread."""
        quiet_library()
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("*/*/*.dcm")):
            self._note(path)
        entity = ApplicationEntity(self.ae_title)
        entity.maximum_pdu_size = 131072
        handlers: list[tuple[Any, ...]] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_C_ECHO, lambda _event: 0x0000),
            (evt.EVT_C_STORE, self.keep),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_N_ACTION, self._on_action),
        ]
        self._server = Server(entity, ("127.0.0.1", self.port), [], handlers=handlers)
        self.port = self._server.port
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="embedded-pacs", daemon=True).start()

    def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._server is not None:
            self._server.shutdown()
            for opened in self._server.active_associations:
                opened.abort()
            self._server = None

    def datasets(self) -> list[Dataset]:
        """Return the headers of everything kept."""
        with self._lock:
            return [header for _path, header in self._kept.values()]

    def forget(self, sop_instance_uid: str) -> None:
        """Lose an instance, as a failing PACS would."""
        with self._lock:
            path, _header = self._kept.pop(sop_instance_uid)
        path.unlink()

    def contexts(self, proposed: list[PresentationContext]) -> list[PresentationContext]:
        """Return what is supported of the proposed contexts."""
        found = accepted_contexts(proposed, Permission.EVERYTHING)
        if any(context.abstract_syntax == STUDY_ROOT_FIND for context in proposed):
            found.append(build_context(STUDY_ROOT_FIND, PLAIN))
        return found

    def _on_requested(self, event: evt.Event) -> None:
        requested = event.assoc.requestor.primitive
        if requested is not None:
            event.assoc.acceptor.supported_contexts = self.contexts(requested.presentation_context_definition_list)

    def keep(self, event: evt.Event) -> int:
        """Store one instance; the C-STORE status."""
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        names = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, f"{dataset.SOPInstanceUID}.dcm")
        path = self.folder.joinpath(*(_SAFE.sub("_", str(name)) for name in names))
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        self._note(path)
        return 0x0000

    def _note(self, path: Path) -> None:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        with self._lock:
            self._kept[str(header.SOPInstanceUID)] = (path, header)

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        keys = event.identifier
        level = str(keys.get("QueryRetrieveLevel", ""))
        if level not in _LEVELS:
            yield 0xA900, None
            return
        seen = set()
        for header in self.datasets():
            uid = str(header.get(_LEVELS[level], ""))
            if uid in seen or not _matches(header, keys):
                continue
            seen.add(uid)
            yield 0xFF00, self._answer(header, keys, level)
        yield 0x0000, None

    def _answer(self, header: Dataset, keys: Dataset, level: str) -> Dataset:
        answer = Dataset()
        for element in keys:
            answer[element.tag] = header.get(element.tag, element)
        answer.QueryRetrieveLevel = level
        if "NumberOfSeriesRelatedInstances" in keys:
            series = header.get("SeriesInstanceUID")
            answer.NumberOfSeriesRelatedInstances = sum(h.SeriesInstanceUID == series for h in self.datasets())
        return answer

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        """Accept the request; the answer goes out on an association of its own, as most PACSs do."""
        caller = event.assoc.requestor.ae_title.strip()
        thread = threading.Thread(target=self._report, args=(caller, event.action_information), daemon=True)
        thread.start()
        return 0x0000, None

    def report_of(self, request: Dataset) -> Dataset:
        """Return the Event Information that answers a request."""
        with self._lock:
            kept = set(self._kept)
        committed, failed = [], []
        for item in request.ReferencedSOPSequence:
            answer = Dataset()
            answer.ReferencedSOPClassUID = item.ReferencedSOPClassUID
            answer.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
            if item.ReferencedSOPInstanceUID in kept:
                committed.append(answer)
            else:
                answer.FailureReason = _NO_SUCH_INSTANCE
                failed.append(answer)
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        if committed:
            report.ReferencedSOPSequence = DicomSequence(committed)
        if failed:
            report.FailedSOPSequence = DicomSequence(failed)
        return report

    def _report(self, caller: str, request: Dataset) -> None:
        if caller not in self._peers:
            log.warning("commitment_caller_unknown", calling_ae=caller)
            return
        report = self.report_of(request)
        host, port = self._peers[caller]
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = UID(STORAGE_COMMITMENT), False, True
        contexts = [build_context(STORAGE_COMMITMENT, PLAIN)]
        peer = Peer(ae_title=caller, host=host, port=port)
        try:
            with association(peer, contexts, calling_ae=self.ae_title, negotiation=[role]) as opened:
                kind = 2 if "FailedSOPSequence" in report else 1
                opened.send_n_event_report(report, kind, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        except DestinationFault as error:
            log.warning("commitment_answer_not_delivered", error=str(error))


def _matches(header: Dataset, keys: Dataset) -> bool:
    """Single value matching, wild cards, lists of UIDs and ranges of dates (PS3.4 C.2.2.2); empty matches all."""
    for element in keys:
        wanted = element.value
        if element.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet", "") or wanted in (None, ""):
            continue
        if element.keyword.startswith("NumberOf"):
            continue
        have = str(header.get(element.tag, Dataset()).value if element.tag in header else "")
        if element.keyword == "ModalitiesInStudy":
            have = str(header.get("Modality", ""))
        if not _value_matches(have, wanted, element.VR):
            return False
    return True


def _value_matches(have: str, wanted: Any, vr: str) -> bool:
    if vr == "UI" or not isinstance(wanted, str):
        return have in ([str(wanted)] if isinstance(wanted, str) else [str(one) for one in wanted])
    if vr == "DA" and "-" in wanted:
        first, _, last = wanted.partition("-")
        return (not first or have >= first) and (not last or have <= last)
    pattern = re.escape(wanted).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, have) is not None
