"""The reception process: Verification, Storage and the answers to our storage commitments, written durably.

    C-STORE -> header read -> file written and synced -> committed with its row (group commit) -> 0x0000

Never imports torch, never decodes pixels, never waits for anything but the disk.
"""

from __future__ import annotations

import hashlib
import threading
import time
import traceback
from datetime import datetime
from io import BytesIO
from typing import Any, cast

import pydicom.config
import structlog
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from node.config import Settings
from node.dicom_net import callers, tls
from node.dicom_net.acceptor import Server, quiet_library
from node.dicom_net.announcements import Announcements
from node.dicom_net.callers import Permission
from node.dicom_net.commitment_scp import CommitmentScp, read_report
from node.dicom_net.presentation import accepted_contexts
from node.dicom_net.refusals import Refusals
from node.dicom_net.upper_layer import EventAssociation
from node.errors import Corrupt, Misconfigured
from node.store.adoption import adopt
from node.store.database import now, open_database
from node.store.intake_writer import Arrival, IntakeWriter, NotCommitted, Outcome
from node.store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, FileMeta, Names, read_names
from node.store.spool import Spool, StorageFull, instance_path

log = structlog.get_logger()
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
KEPT_THE_FIRST = 0xB000  # warning: the object was received and kept aside, another one of this UID counts
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110
DRAIN_S = 30.0
NOTE_S = 5.0

_PERMANENT, _SERVICE_USER = 0x01, 0x01
_CALLING_AE_NOT_RECOGNISED, _CALLED_AE_NOT_RECOGNISED = 0x03, 0x07


def run_reception(settings: Settings, stop: threading.Event) -> None:
    """Receive until ``stop`` is set, then let open associations end (at most DRAIN_S) and return.

    Raises
    ------
    Misconfigured
        The port cannot be had, TLS files are unusable, or another reception uses the storage folder.
    """
    quiet_library()
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    engine = open_database(settings.storage, "intake")
    try:
        with IntakeWriter(engine, Spool(settings.storage)) as writer:
            adopt(writer)
            server = start_server(settings, writer)
            stop.wait()
            _drain(server)
    finally:
        engine.dispose()


def start_server(settings: Settings, writer: IntakeWriter) -> Server:
    """Start listening in a thread of its own and return the server."""
    reception = settings.reception
    entity = ApplicationEntity(reception.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_associations = reception.max_associations
    entity.maximum_pdu_size = reception.max_pdu_bytes
    entity.network_timeout = reception.idle_timeout_s
    entity.acse_timeout = reception.handshake_timeout_s
    entity.dimse_timeout = reception.idle_timeout_s
    scp = StorageScp(settings, writer)
    try:
        server = Server(
            entity,
            (reception.host, reception.port),
            [],
            handlers=scp.handlers,
            tls=tls.server_context(reception.tls),
            handshake_timeout_s=reception.handshake_timeout_s,
            pdu_timeout_s=reception.idle_timeout_s,
            longest_object_bytes=reception.max_object_mb * 1_000_000,
        )
    except OSError as error:
        raise Misconfigured(
            f"reception.port {reception.port} on {reception.host}: {error.strerror}; choose another or end its user"
        ) from None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="accept", daemon=True).start()
    log.info("reception_ready", ae_title=reception.ae_title, port=server.port, tls=reception.tls.enabled)
    return server


def _drain(server: Server) -> None:
    server.shutdown()
    end = time.monotonic() + DRAIN_S
    while server.active_associations and time.monotonic() < end:
        time.sleep(0.05)
    for association in server.active_associations:
        association.abort()
    while server.active_associations and time.monotonic() < end + NOTE_S:
        time.sleep(0.05)  # each notes what it was in the middle of


class StorageScp:
    """What happens on an association; one instance serves all of them."""

    def __init__(self, settings: Settings, writer: IntakeWriter) -> None:
        self._settings = settings
        self._writer = writer
        self._commitment = CommitmentScp(settings, writer.engine)
        self._announcements = Announcements(writer)
        self._refusals = Refusals(writer)

    @property
    def handlers(self) -> list[tuple[Any, ...]]:
        """The event handlers to bind."""
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            (evt.EVT_C_STORE, self.on_store),
            (evt.EVT_N_EVENT_REPORT, self.on_event_report),
            (evt.EVT_N_ACTION, self.on_action),
            (evt.EVT_N_CREATE, self._announcements.on_create),
            (evt.EVT_N_SET, self._announcements.on_set),
        ]

    def on_requested(self, event: evt.Event) -> None:
        """Admit or reject the caller, and set what it may use."""
        association = cast(EventAssociation, event.assoc)
        requested = cast(A_ASSOCIATE, association.requestor.primitive)
        calling, host = requested.calling_ae_title.strip(), association.requestor.address
        granted = callers.permission(self._settings, calling, host)
        association.permission, association.on_end = granted, self.on_end
        if requested.called_ae_title.strip() != self._settings.reception.ae_title.strip():
            self._reject(association, _CALLED_AE_NOT_RECOGNISED, "called_ae_not_recognised", calling, host)
        elif granted is Permission.NOTHING:
            self._reject(association, _CALLING_AE_NOT_RECOGNISED, "caller_not_allowed", calling, host)
        else:
            association.acceptor.supported_contexts = accepted_contexts(
                requested.presentation_context_definition_list, granted
            )

    @staticmethod
    def _reject(association: EventAssociation, reason: int, why: str, calling: str, host: str) -> None:
        log.warning("association_rejected", why=why, calling_ae=calling, host=host)
        association.acse.send_reject(_PERMANENT, _SERVICE_USER, reason)
        association.kill()

    def on_store(self, event: evt.Event) -> int:
        """Keep one instance; the status says what became of it, and the assembly is told what was not kept."""
        association, request = cast(EventAssociation, event.assoc), cast(C_STORE, event.request)
        data_set = cast(BytesIO, request.DataSet)
        data_set.seek(0)
        meta = FileMeta(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae=association.requestor.ae_title.strip(),
            called_ae=self._settings.reception.ae_title,
            remote_host=association.requestor.address,
        )
        names, fault, status = None, "", PROCESSING_FAILURE
        try:
            try:
                names = read_names(data_set, meta.transfer_syntax_uid)
            except Corrupt as error:
                fault = str(error)
            status = self._keep(association, names, meta, data_set, fault)
        except Exception as error:  # the SCP's edge: whatever it is, the sender must be told it is not kept
            # without the message, which may quote attribute values
            log.error("store_failed", error=type(error).__name__, stack=traceback.format_tb(error.__traceback__))
        if status not in (SUCCESS, KEPT_THE_FIRST):
            self._refusals.refused(association, names, meta.sop_instance_uid, f"0x{status:04X}")
        return status

    def _keep(
        self, association: EventAssociation, names: Names | None, meta: FileMeta, data_set: BytesIO, fault: str
    ) -> int:
        try:
            with data_set.getbuffer() as content:
                if names is None:
                    return self._keep_aside(meta, content, fault, CANNOT_UNDERSTAND)
                if names.made_by_falx:
                    log.info("own_result_ignored", sop_instance_uid=names.sop_instance_uid, calling_ae=meta.calling_ae)
                    return SUCCESS
                if (names.sop_instance_uid, names.sop_class_uid) != (meta.sop_instance_uid, meta.sop_class_uid):
                    why = "SOP Class or Instance UID differ between the C-STORE request and the data set"
                    return self._keep_aside(meta, content, why, DOES_NOT_MATCH)
                return self._take_in(association, names, meta, content)
        except (StorageFull, NotCommitted, OSError) as error:
            log.error("refused_out_of_resources", calling_ae=meta.calling_ae, error=str(error)[:200])
            return OUT_OF_RESOURCES

    def _take_in(self, association: EventAssociation, names: Names, meta: FileMeta, content: memoryview) -> int:
        arrival = self._write(names, meta, content, association.token)
        association.has_stored = True
        try:
            outcome = self._writer.commit(arrival)
        except NotCommitted:
            self._writer.spool.remove(arrival.file)
            raise
        if outcome is Outcome.CONFLICT:
            log.warning("same_uid_other_content", sop_instance_uid=names.sop_instance_uid, calling_ae=meta.calling_ae)
            return KEPT_THE_FIRST
        self._refusals.kept(association, names)
        return SUCCESS

    def _keep_aside(self, meta: FileMeta, content: memoryview, why: str, status: int) -> int:
        names = Names(
            study_instance_uid="",
            series_instance_uid="",
            sop_instance_uid=meta.sop_instance_uid,
            sop_class_uid=meta.sop_class_uid,
            modality="",
            made_by_falx=False,
        )
        arrival = self._write(names, meta, content, "")
        try:
            self._writer.quarantine(arrival, why)
        except NotCommitted:
            self._writer.spool.remove(arrival.file)
            raise
        log.warning("quarantined", sop_instance_uid=meta.sop_instance_uid, calling_ae=meta.calling_ae, why=why)
        return status

    def _write(self, names: Names, meta: FileMeta, content: memoryview, association: str) -> Arrival:
        received_at: datetime = now()
        path = instance_path(names.study_instance_uid, names.series_instance_uid, names.sop_instance_uid)
        sha256 = hashlib.sha256(content).hexdigest()
        file = self._writer.spool.write(path, meta.encode(content.nbytes, sha256), content)
        return Arrival(
            file=file,
            names=names,
            meta=meta,
            size_bytes=content.nbytes,
            sha256=sha256,
            received_at=received_at,
            association=association,
        )

    def on_event_report(self, event: evt.Event) -> tuple[int, None]:
        """A destination answers a storage commitment: kept durably first; the service process applies it."""
        try:
            report = read_report(event)
            self._writer.record_commitment(
                transaction_uid=report.transaction_uid,
                committed=report.committed,
                failed=report.failed,
                calling_ae=event.assoc.requestor.ae_title.strip(),
                at=now(),
            )
        except (Corrupt, NotCommitted) as error:
            log.error("commitment_report_not_kept", error=str(error)[:200])
            return PROCESSING_FAILURE, None
        return SUCCESS, None

    def on_action(self, event: evt.Event) -> tuple[int, None]:
        """Somebody asks falx to commit to what it received: off by default, since falx is not an archive."""
        allowed = cast(EventAssociation, event.assoc).permission is Permission.EVERYTHING
        if not allowed or not self._settings.reception.commit_for_others:
            return NOT_AUTHORISED, None
        return self._commitment.on_request(event), None

    def on_end(self, association: EventAssociation) -> None:
        """The association is over, however it ended: completion may count on silence from here."""
        self._refusals.ended(association)
        if association.has_stored:
            self._writer.association_closed(association.token)
