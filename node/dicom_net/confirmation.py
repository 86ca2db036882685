"""How a delivery is confirmed: storage commitment, else C-FIND read-back, else acceptance alone.

What an answer means for a delivery is decided here; the ledger is changed in the caller's transaction. An answer that
comes twice, or after a repeated request, changes nothing more.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import generate_uid
from pynetdicom.association import Association
from sqlalchemy import Connection, Engine, RowMapping

from node.config import DestinationSettings
from node.dicom_net.query import find_instances
from node.dicom_net.scu import AssociationLost
from node.dicom_net.uids import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from node.errors import Transient
from node.store import outbox
from node.store.database import now
from node.study import ConfirmedBy, DeliveryState

log = structlog.get_logger()
NO_SUCH_INSTANCE = 0x0112
_NEVER = {0x0119: "class and instance conflict", 0x0122: "SOP class not supported"}
_RESENDS = 10  # an object that a peer accepts and loses so often is dead, even where destination faults never are
_READ_BACK_FOR = timedelta(minutes=10)
_READ_BACK_FIRST = timedelta(seconds=5)


def backoff(destination: DestinationSettings, attempt: int) -> timedelta:
    """Return how long to wait before the next try: doubling from ``retry_first_s`` to ``retry_max_s``, with jitter."""
    longest = min(destination.retry_max_s, destination.retry_first_s * 2.0 ** min(attempt - 1, 30))
    return timedelta(seconds=longest * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret


def may_resend(destination: DestinationSettings, row: RowMapping) -> bool:
    """Whether an object that the peer lost may be sent once more."""
    return int(row["attempt"]) < (destination.max_attempts or _RESENDS)


def request_commitment(
    opened: Association, engine: Engine, destination: DestinationSettings, rows: Sequence[RowMapping]
) -> bool:
    """Ask the peer to commit to sent objects (N-ACTION); False when it declines, so that a weaker way is tried.

    The transaction is in the ledger before the request leaves, since its answer may come at once and from elsewhere.

    Raises
    ------
    AssociationLost
        No answer came; the transaction stays open, and another is opened at the next look.
    """
    transaction, at = str(generate_uid(prefix=None)), now()
    with engine.begin() as connection:
        outbox.open_commitment(
            connection,
            transaction_uid=transaction,
            destination=destination.name,
            delivery_ids=[row["delivery_id"] for row in rows],
            at=at,
        )
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = DicomSequence([_reference(row) for row in rows])
    try:
        status, _reply = opened.send_n_action(request, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    except RuntimeError as error:
        raise AssociationLost("the association ended") from error
    code = status.get("Status")
    if code is None:
        raise AssociationLost("no answer to the storage commitment request")
    with engine.begin() as connection:
        if code == 0x0000:
            next_look = at + timedelta(seconds=destination.commitment_timeout_s)
            for row in outbox.in_transaction(connection, transaction):
                outbox.put_off(connection, row["delivery_id"], run_after=next_look)
            return True
        outbox.close_commitment(connection, transaction, outcome="declined", at=now())
        for row in outbox.in_transaction(connection, transaction):
            outbox.put_off(connection, row["delivery_id"], transaction_uid="")
    log.warning("commitment_declined", destination=destination.name, status=f"0x{code:04X}")
    return False


def _reference(row: RowMapping) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = row["sop_class_uid"], row["sop_instance_uid"]
    return item


def apply_report(
    connection: Connection,
    destinations: Mapping[str, DestinationSettings],
    *,
    transaction_uid: str,
    committed: Sequence[str],
    failed: Mapping[str, int],
    at: datetime,
) -> None:
    """Apply a storage commitment answer (N-EVENT-REPORT) to the deliveries it is about."""
    name = outbox.commitment_destination(connection, transaction_uid)
    if name is None or name not in destinations:
        log.warning("commitment_unknown", transaction_uid=transaction_uid)
        return
    outbox.close_commitment(connection, transaction_uid, outcome="failures" if failed else "committed", at=at)
    for row in outbox.sent_to(connection, name, committed):
        outbox.confirm(connection, row["delivery_id"], ConfirmedBy.STORAGE_COMMITMENT, at)
    for row in outbox.sent_to(connection, name, list(failed)):
        _not_committed(connection, destinations[name], row, failed[row["sop_instance_uid"]], at)


def _not_committed(
    connection: Connection, destination: DestinationSettings, row: RowMapping, reason: int, at: datetime
) -> None:
    """PS3.3 C.14.1.1: gone (send again), never (dead), or not now (ask again later)."""
    code = f"0x{reason:04X}"
    wait = backoff(destination, int(row["attempt"]))
    log.warning("not_committed", destination=destination.name, sop_instance_uid=row["sop_instance_uid"], reason=code)
    if reason in _NEVER:
        text = f"accepted, then not committed to: {_NEVER[reason]} ({code})"
        outbox.move(connection, row["delivery_id"], DeliveryState.DEAD, status=code, error=text, transaction_uid="")
    elif reason == NO_SUCH_INSTANCE:
        send_again(connection, destination, row, at=at, text=f"accepted, then no such instance ({code})", status=code)
    else:
        text = f"not committed to ({code}); asking again"
        outbox.put_off(connection, row["delivery_id"], transaction_uid="", run_after=at + wait, status=code, error=text)


def send_again(
    connection: Connection, destination: DestinationSettings, row: RowMapping, *, at: datetime, text: str, status: str
) -> None:
    """Queue a delivery anew that the peer had accepted but does not hold; dead after too many times."""
    if may_resend(destination, row):
        wait = backoff(destination, int(row["attempt"]))
        outbox.move(
            connection,
            row["delivery_id"],
            DeliveryState.QUEUED,
            run_after=at + wait,
            status=status,
            error=f"{text}; sending again",
            transaction_uid="",
        )
    else:
        outbox.move(
            connection,
            row["delivery_id"],
            DeliveryState.DEAD,
            status=status,
            error=f"{text}, {row['attempt']} times; look at the PACS, then `falx retry`",
            transaction_uid="",
        )


def read_back(
    opened: Association, engine: Engine, destination: DestinationSettings, rows: Sequence[RowMapping]
) -> None:
    """Look sent objects up at the peer by C-FIND (IMAGE level).

    Those not found within 10 minutes are sent again; when C-FIND itself fails for so long, acceptance has to do.
    """
    found: set[str] = set()
    trouble = ""
    try:
        for study, series in dict.fromkeys((r["study_instance_uid"], r["series_instance_uid"]) for r in rows):
            found |= find_instances(opened, study, series)
    except AssociationLost:
        raise
    except Transient as error:
        trouble = str(error)
    at = now()
    with engine.begin() as connection:
        for row in rows:
            since = at - row["sent_at"]
            if row["sop_instance_uid"] in found:
                outbox.confirm(connection, row["delivery_id"], ConfirmedBy.C_FIND, at)
            elif since < _READ_BACK_FOR:
                next_look = at + max(since, _READ_BACK_FIRST)
                outbox.put_off(connection, row["delivery_id"], run_after=next_look, error=trouble)
            elif trouble:
                outbox.confirm(connection, row["delivery_id"], ConfirmedBy.ACCEPTED, at)
            else:
                text = "accepted, but not found by C-FIND"
                send_again(connection, destination, row, at=at, text=text, status=row["status"])
