"""C-MOVE of structured reports (PS3.4 C.4.2): the PACS sends them to a storage SCP that listens while falx asks."""

from __future__ import annotations

import threading
from types import TracebackType

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context

from node.config import QuerySettings
from node.dicom_net.acceptor import Server, quiet_library
from node.dicom_net.query import PENDING, PLAIN, REPORT_CLASSES, SUCCESS, report_series
from node.dicom_net.scu import AssociationLost, Peer, association
from node.dicom_net.uids import STUDY_ROOT_FIND, STUDY_ROOT_MOVE, VERIFICATION
from node.errors import Misconfigured, Transient

UNKNOWN_DESTINATION = 0xA801
_NOT_ASKED_FOR = 0x0124  # Refused: Not Authorised


class ReportMover:
    """Moves the reports of a study to a port of this host; a context manager that listens as long as it is open.

    Parameters
    ----------
    query
        The PACS that is asked.
    calling_ae
        AE title falx asks with.
    ae_title, port
        The move destination: how the PACS must know this host.
    host
        Address to listen on.
    """

    def __init__(self, query: QuerySettings, *, calling_ae: str, ae_title: str, port: int, host: str) -> None:
        self._query, self._calling_ae, self.ae_title, self.port = query, calling_ae, ae_title, port
        self._host = host
        self._wanted = ""
        self._received: list[Dataset] = []
        self._server: Server | None = None

    def __enter__(self) -> ReportMover:
        quiet_library()
        entity = ApplicationEntity(self.ae_title)
        entity.require_called_aet = True
        contexts = [build_context(uid, PLAIN) for uid in (VERIFICATION, *REPORT_CLASSES)]
        handlers = [(evt.EVT_C_ECHO, lambda _event: SUCCESS), (evt.EVT_C_STORE, self._on_store)]
        try:
            self._server = Server(entity, (self._host, self.port), contexts, handlers=handlers)
        except OSError as error:
            raise Misconfigured(
                f"port {self.port} for moved reports cannot be listened on ({error.strerror}): give the archive's "
                "option move_port a free port, and the PACS the same one"
            ) from None
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="moved-reports", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            for opened in self._server.active_associations:
                opened.abort()
            self._server.server_close()
            self._server = None

    def reports(self, study_instance_uid: str) -> list[Dataset]:
        """Have the structured reports of a study moved here.

        Raises
        ------
        Misconfigured
            The PACS does not know the move destination.
        Transient
            The PACS cannot be reached, or what it says that it sent did not arrive.
        """
        self._wanted, self._received = study_instance_uid, []
        peer = Peer.of(self._query)
        contexts = [build_context(STUDY_ROOT_FIND, PLAIN), build_context(STUDY_ROOT_MOVE, PLAIN)]
        with association(peer, contexts, calling_ae=self._calling_ae) as opened:
            for wanted in report_series(opened, study_instance_uid):
                for status, _identifier in opened.send_c_move(wanted, self.ae_title, STUDY_ROOT_MOVE):
                    self._judge(peer, status)
        return self._received

    def _judge(self, peer: Peer, status: Dataset) -> None:
        """Raise for an answer that means that something does not come."""
        code = status.get("Status")
        if code is None:
            raise AssociationLost(f"{peer}: no answer to C-MOVE")
        if code in PENDING:
            return
        here = f"AE title {self.ae_title} with this host's address and port {self.port}"
        if code == UNKNOWN_DESTINATION:
            raise Misconfigured(
                f"{peer}: move destination {self.ae_title} is unknown to it (status 0xA801); enter {here} in its list "
                "of DICOM nodes"
            )
        failed = int(status.get("NumberOfFailedSuboperations") or 0)
        if code != SUCCESS or failed:
            raise Transient(
                f"{peer}: C-MOVE to {self.ae_title} failed with status 0x{code:04X}, {failed} reports not sent; "
                f"check that its list of DICOM nodes (Orthanc: DicomModalities) has {here}, and that no firewall "
                "stands between"
            )
        told = int(status.get("NumberOfCompletedSuboperations") or 0)
        if told and not self._received:
            raise Transient(
                f"{peer}: says that it sent {told} reports to {self.ae_title}, but none came to port {self.port}: "
                f"its entry for {self.ae_title} points elsewhere; enter {here}"
            )

    def _on_store(self, event: evt.Event) -> int:
        dataset = event.dataset
        if str(dataset.get("StudyInstanceUID", "")) != self._wanted:
            return _NOT_ASKED_FOR
        dataset.file_meta = event.file_meta
        self._received.append(dataset)
        return SUCCESS
