"""Storage commitment on the receiving side: reading a destination's answer, and answering for what falx holds.

As SCP it is off by default (``reception.commit_for_others``): falx is not an archive and purges by rule. Switched on,
it commits only to instances that lie in the spool and whose configured retention is a day or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from sqlalchemy import Engine, select

from node.config import Settings
from node.dicom_net import tls
from node.dicom_net.uids import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from node.dicom_net.upper_layer import EventAssociation
from node.errors import Corrupt
from node.store import intake_tables as tables
from node.store.database import reading

log = structlog.get_logger()
SUCCESS = 0x0000
INVALID_ARGUMENT = 0x0115
NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
RESOURCE_LIMITATION = 0x0213
_LEAST_RETENTION_DAYS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The content of a Storage Commitment N-EVENT-REPORT (PS3.4 table J.3-2)."""

    transaction_uid: str
    committed: list[str]
    failed: dict[str, int]  # SOP Instance UID -> Failure Reason (0008,1197)


def read_report(event: evt.Event) -> Report:
    """Read an N-EVENT-REPORT; raise Corrupt when it names no transaction or an instance without UID."""
    try:
        information = event.event_information
        failed = information.get("FailedSOPSequence") or []
        committed = information.get("ReferencedSOPSequence") or []
        return Report(
            transaction_uid=str(information.TransactionUID),
            committed=[str(item.ReferencedSOPInstanceUID) for item in committed],
            failed={
                str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or NO_SUCH_INSTANCE)
                for item in failed
            },
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise Corrupt(f"storage commitment report: {type(error).__name__}") from error


class CommitmentScp:
    """Answers storage commitment requests for received instances."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine

    def on_request(self, event: evt.Event) -> int:
        """Accept an N-ACTION, whose N-EVENT-REPORT follows its response; return the response's status."""
        try:
            information = event.action_information
            transaction = str(information.TransactionUID)
            wanted = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in information.ReferencedSOPSequence
            ]
        except AttributeError:
            return INVALID_ARGUMENT
        report = self.judge(transaction, wanted)
        association = cast(EventAssociation, event.assoc)
        association.after_answer.append(lambda: self._send(association, report))
        return SUCCESS

    def judge(self, transaction_uid: str, wanted: Sequence[tuple[str, str]]) -> Dataset:
        """Return the Event Information for the instances asked about, each (SOP class, SOP instance)."""
        storage = self._settings.storage
        found = tables.instances.c
        committed, failed = [], []
        with reading(self._engine) as connection:
            for sop_class, sop_instance in wanted:
                row = connection.execute(
                    select(found.sop_class_uid, found.path, found.for_analysis).where(
                        found.sop_instance_uid == sop_instance
                    )
                ).one_or_none()
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
                if row is None or not (storage.folder / row.path).exists():
                    item.FailureReason = NO_SUCH_INSTANCE
                elif row.sop_class_uid != sop_class:
                    item.FailureReason = CLASS_INSTANCE_CONFLICT
                else:
                    days = storage.keep_received_days if row.for_analysis else storage.keep_unanalysed_days
                    if days >= _LEAST_RETENTION_DAYS:
                        committed.append(item)
                        continue
                    item.FailureReason = RESOURCE_LIMITATION
                failed.append(item)
        report = Dataset()
        report.TransactionUID = transaction_uid
        if committed:
            report.ReferencedSOPSequence = DicomSequence(committed)
        if failed:
            report.FailedSOPSequence = DicomSequence(failed)
        return report

    def _send(self, association: Any, report: Dataset) -> None:
        kind = 2 if "FailedSOPSequence" in report else 1
        caller = association.requestor.ae_title.strip()
        if association.is_established and self._report(association, report, kind):
            return
        for destination in self._settings.destinations:
            if destination.ae_title != caller:
                continue
            entity = ApplicationEntity(self._settings.reception.ae_title)
            entity.add_requested_context(STORAGE_COMMITMENT)
            role = SCP_SCU_RoleSelectionNegotiation()
            role.sop_class_uid, role.scu_role, role.scp_role = STORAGE_COMMITMENT, False, True
            context = tls.client_context(destination.tls)
            fresh = entity.associate(
                destination.host,
                destination.port,
                ae_title=destination.ae_title,
                ext_neg=[role],
                tls_args=(context, destination.host) if context else None,
            )
            if fresh.is_established:
                answered = self._report(fresh, report, kind)
                fresh.release()
                if answered:
                    return
        log.warning("commitment_answer_not_delivered", calling_ae=caller)

    @staticmethod
    def _report(association: Any, report: Dataset, kind: int) -> bool:
        try:
            status, _reply = association.send_n_event_report(
                report, kind, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
            )
        except (RuntimeError, ValueError):  # the association ended, or was not negotiated for this
            return False
        return "Status" in status and status.Status == SUCCESS
