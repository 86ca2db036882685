"""Result objects and their deliveries in the ledger; the objects' bytes lie in ``<storage>/outbox``.

An object's bytes are written and synced before any row speaks of them, and are sent again unchanged until confirmed.
The file's name holds the hash of its content, so nothing is ever overwritten; one UID never names two contents.
Functions take the caller's connection, so that a state change and the work it causes are one transaction.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path, PurePosixPath

import pydicom
from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from sqlalchemy import ColumnElement, Connection, RowMapping, func, insert, select, update

from node.config import StorageSettings
from node.errors import Corrupt
from node.store.ledger_tables import commitments, deliveries, objects
from node.store.spool import sync_folder
from node.study import ConfirmedBy, DeliveryState, ObjectKind, check_transition

OUTBOX = "outbox"
WITHDRAWN = "void"  # status of a delivery that was given up on purpose: `falx retry` leaves it alone
"""In place of a DIMSE status: given up on purpose (replaced, retracted), so not a fault and never retried."""
_RANK = {ObjectKind.SR: 0, ObjectKind.KO: 1, ObjectKind.SC: 2, ObjectKind.PM: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxObject:
    """One stored result object. ``path`` is relative to the storage folder; ``sha256`` is of the whole file."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    task_id: int
    kind: ObjectKind
    role: str
    profile: str
    path: str
    sha256: str


def store_object(
    storage: StorageSettings,
    dataset: Dataset,
    *,
    kind: str,
    role: str,
    profile: str,
    task_id: int,
    content: bytes | None = None,
) -> OutboxObject:
    """Write a data set as a durable Part 10 file of the outbox; ``content`` are its bytes when they are made already.

    Raises
    ------
    OSError
        The disk is full or not writable; nothing is left behind.
    """
    if content is None:
        buffer = BytesIO()
        dcmwrite(buffer, dataset, enforce_file_format=True)
        content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    name = hashlib.sha256(str(dataset.SOPInstanceUID).encode()).hexdigest()[:32]
    path = PurePosixPath(OUTBOX, name[:2], f"{name}-{sha256[:16]}.dcm")
    _write(storage.folder, path, content)
    return OutboxObject(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        task_id=task_id,
        kind=ObjectKind(kind),
        role=role,
        profile=profile,
        path=str(path),
        sha256=sha256,
    )


def _write(folder: Path, path: PurePosixPath, content: bytes) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_suffix(f".part{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    for parent in (target.parent, target.parent.parent, folder):
        sync_folder(parent)


def header_of(storage: StorageSettings, row: RowMapping) -> Dataset:
    """Return the header of a stored object, without its pixels."""
    return pydicom.dcmread(storage.folder / row["path"], stop_before_pixels=True)


def objects_of(connection: Connection, task_id: int, profile: str | None = None) -> Sequence[RowMapping]:
    """Return the objects of a task, of one profile or of all."""
    query = select(objects).where(objects.c.task_id == task_id)
    if profile is not None:
        query = query.where(objects.c.profile == profile)
    return connection.execute(query.order_by(objects.c.kind, objects.c.sop_instance_uid)).mappings().all()


def enqueue(
    connection: Connection, *, objects: Sequence[OutboxObject], destinations: Sequence[str], at: datetime
) -> None:
    """Queue objects for destinations; what is queued already stays as it is, so that a repeated step changes nothing.

    Raises
    ------
    Corrupt
        An object of this SOP Instance UID was queued before with other content.
    """
    for one in objects:
        _book(connection, one, at)
        for destination in destinations:
            known = connection.execute(
                select(deliveries.c.delivery_id).where(
                    deliveries.c.sop_instance_uid == one.sop_instance_uid, deliveries.c.destination == destination
                )
            ).first()
            if known is None:
                connection.execute(
                    insert(deliveries).values(
                        sop_instance_uid=one.sop_instance_uid,
                        study_instance_uid=one.study_instance_uid,
                        destination=destination,
                        rank=_RANK[one.kind],
                        state=DeliveryState.QUEUED,
                        run_after=at,
                        queued_at=at,
                    )
                )


def _book(connection: Connection, one: OutboxObject, at: datetime) -> None:
    known = connection.execute(
        select(objects.c.sha256).where(objects.c.sop_instance_uid == one.sop_instance_uid)
    ).scalar_one_or_none()
    if known is None:
        values = {name: getattr(one, name) for name in OutboxObject.__dataclass_fields__}
        connection.execute(insert(objects).values(**values, created_at=at))
    elif known != one.sha256:
        raise Corrupt(f"SOP Instance UID {one.sop_instance_uid} names other content already: report this as a fault")


def cancel(connection: Connection, task_id: int, *, why: str, at: datetime, destination: str | None = None) -> int:
    """Give up a task's deliveries that were not sent yet, with the reason; return how many."""
    theirs = select(objects.c.sop_instance_uid).where(objects.c.task_id == task_id)
    query = (
        update(deliveries)
        .where(deliveries.c.state == DeliveryState.QUEUED, deliveries.c.sop_instance_uid.in_(theirs))
        .values(state=DeliveryState.DEAD, status=WITHDRAWN, error=why, run_after=at)
    )
    if destination is not None:
        query = query.where(deliveries.c.destination == destination)
    return connection.execute(query).rowcount


def next_batch(
    connection: Connection, destination: str, at: datetime, longest_wait: timedelta | None = None
) -> Sequence[RowMapping]:
    """Return the due deliveries of the study that waits longest, SR first, with their objects.

    One that is put off for longer than ``longest_wait`` is due too: the clock was set back since.
    """
    due = _due(destination, DeliveryState.QUEUED, at, longest_wait)
    study = connection.scalar(
        select(deliveries.c.study_instance_uid)
        .where(due)
        .order_by(deliveries.c.queued_at, deliveries.c.delivery_id)
        .limit(1)
    )
    if study is None:
        return []
    return _with_objects(connection, due & (deliveries.c.study_instance_uid == study))


def unconfirmed(
    connection: Connection, destination: str, at: datetime, longest_wait: timedelta | None = None
) -> Sequence[RowMapping]:
    """Return the deliveries that were sent, are not confirmed, and are due for another look."""
    return _with_objects(connection, _due(destination, DeliveryState.SENT, at, longest_wait))


def _due(destination: str, state: DeliveryState, at: datetime, longest_wait: timedelta | None) -> ColumnElement[bool]:
    when = deliveries.c.run_after <= at
    if longest_wait is not None:
        when = when | (deliveries.c.run_after > at + longest_wait)
    return (deliveries.c.destination == destination) & (deliveries.c.state == state) & when


def in_transaction(connection: Connection, transaction_uid: str) -> Sequence[RowMapping]:
    """Return the deliveries that an open storage commitment asks about."""
    return _with_objects(
        connection,
        (deliveries.c.transaction_uid == transaction_uid) & (deliveries.c.state == DeliveryState.SENT),
    )


def sent_to(connection: Connection, destination: str, sop_instance_uids: Sequence[str]) -> Sequence[RowMapping]:
    """Return the deliveries of these objects to a destination that were sent and are not confirmed."""
    return _with_objects(
        connection,
        (deliveries.c.destination == destination)
        & (deliveries.c.sop_instance_uid.in_(sop_instance_uids))
        & (deliveries.c.state == DeliveryState.SENT),
    )


def commitment_destination(connection: Connection, transaction_uid: str) -> str | None:
    """Return whom a storage commitment request was sent to; None when it is not ours."""
    query = select(commitments.c.destination).where(commitments.c.transaction_uid == transaction_uid)
    return connection.execute(query).scalar_one_or_none()


def _with_objects(connection: Connection, where: ColumnElement[bool]) -> Sequence[RowMapping]:
    query = (
        select(
            deliveries,
            objects.c.sop_class_uid,
            objects.c.series_instance_uid,
            objects.c.kind,
            objects.c.path,
            objects.c.sha256,
        )
        .join(objects, objects.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        .where(where)
        .order_by(deliveries.c.study_instance_uid, deliveries.c.rank, deliveries.c.delivery_id)
    )
    return connection.execute(query).mappings().all()


def move(connection: Connection, delivery_id: int, new: DeliveryState, **values: object) -> bool:
    """Change a delivery's state by the table of transitions, with further columns; False when it is there already.

    Raises
    ------
    FalxError
        The transition is not allowed.
    """
    query = select(deliveries.c.state).where(deliveries.c.delivery_id == delivery_id).with_for_update()
    old = DeliveryState(connection.execute(query).scalar_one())
    if old == new:
        return False
    check_transition(old, new)
    connection.execute(update(deliveries).where(deliveries.c.delivery_id == delivery_id).values(state=new, **values))
    return True


def put_off(connection: Connection, delivery_id: int, **values: object) -> None:
    """Change columns of a delivery that keeps its state: its next time, its error, its count of attempts."""
    connection.execute(update(deliveries).where(deliveries.c.delivery_id == delivery_id).values(**values))


def confirm(connection: Connection, delivery_id: int, by: ConfirmedBy, at: datetime) -> None:
    """Mark a sent delivery confirmed; a second confirmation changes nothing."""
    move(
        connection,
        delivery_id,
        DeliveryState.CONFIRMED,
        confirmed_at=at,
        confirmed_by=by,
        transaction_uid="",
        error="",
    )


def retry(connection: Connection, study_instance_uid: str | None, at: datetime) -> int:
    """Queue the dead deliveries of one study, or of all, anew (not what was withdrawn); return how many."""
    where = (deliveries.c.state == DeliveryState.DEAD) & (deliveries.c.status != WITHDRAWN)
    if study_instance_uid is not None:
        where = where & (deliveries.c.study_instance_uid == study_instance_uid)
    values = {"state": DeliveryState.QUEUED, "attempt": 0, "run_after": at, "error": "", "transaction_uid": ""}
    return connection.execute(update(deliveries).where(where).values(**values)).rowcount


def open_commitment(
    connection: Connection, *, transaction_uid: str, destination: str, delivery_ids: Sequence[int], at: datetime
) -> None:
    """Note a storage commitment request before it is sent, so that its answer finds its deliveries."""
    connection.execute(
        insert(commitments).values(transaction_uid=transaction_uid, destination=destination, requested_at=at)
    )
    connection.execute(
        update(deliveries).where(deliveries.c.delivery_id.in_(delivery_ids)).values(transaction_uid=transaction_uid)
    )


def close_commitment(connection: Connection, transaction_uid: str, *, outcome: str, at: datetime) -> bool:
    """Note a request's outcome; False when it is unknown or was answered before."""
    query = (
        update(commitments)
        .where(commitments.c.transaction_uid == transaction_uid, commitments.c.answered_at.is_(None))
        .values(answered_at=at, outcome=outcome)
    )
    return connection.execute(query).rowcount == 1


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many deliveries each (destination, state) has."""
    query = select(deliveries.c.destination, deliveries.c.state, func.count()).group_by(
        deliveries.c.destination, deliveries.c.state
    )
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}
