"""Books received instances in the ledger, with their series and studies; inside the caller's transaction.

Taking over twice changes nothing, since a kill may come between the commit here and the reader's cursor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from node.store.ledger import record
from node.store.ledger_tables import instances, series, studies
from node.study import Priority, SeriesState, check_transition


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One received instance as the ledger takes it over from the intake."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    path: str
    sha256: str
    header: Mapping[str, Any]
    received_at: datetime
    intake_seq: int
    calling_ae: str
    for_analysis: bool
    modality: str = ""
    series_description: str = ""
    study_description: str = ""
    study_date: str = ""
    patient_name: str = ""
    patient_id: str = ""
    accession_number: str = ""
    priority: Priority = Priority.ROUTINE


def take_over(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    """Book new instances with their series and studies; a complete series becomes late."""
    for arrival in arrivals:
        known = connection.scalar(
            select(instances.c.sop_instance_uid).where(instances.c.sop_instance_uid == arrival.sop_instance_uid)
        )
        if known is not None:
            _renew_path(connection, arrival)
            continue
        _book_study(connection, arrival)
        _book_series(connection, arrival)
        connection.execute(
            insert(instances).values(
                sop_instance_uid=arrival.sop_instance_uid,
                series_instance_uid=arrival.series_instance_uid,
                study_instance_uid=arrival.study_instance_uid,
                path=arrival.path,
                sha256=arrival.sha256,
                header=dict(arrival.header),
                received_at=arrival.received_at,
                intake_seq=arrival.intake_seq,
            )
        )


def _renew_path(connection: Connection, arrival: Arrival) -> None:
    """An instance that was purged and has come again: same identity, perhaps a new place."""
    connection.execute(
        update(instances)
        .where(instances.c.sop_instance_uid == arrival.sop_instance_uid)
        .values(path=arrival.path, intake_seq=arrival.intake_seq)
    )
    connection.execute(
        update(studies)
        .where(studies.c.study_instance_uid == arrival.study_instance_uid)
        .values(purged_at=None, last_received_at=arrival.received_at)
    )


def _book_study(connection: Connection, arrival: Arrival) -> None:
    row = connection.execute(
        select(studies).where(studies.c.study_instance_uid == arrival.study_instance_uid)
    ).one_or_none()
    if row is None:
        connection.execute(
            insert(studies).values(
                study_instance_uid=arrival.study_instance_uid,
                first_received_at=arrival.received_at,
                last_received_at=arrival.received_at,
                priority=arrival.priority,
                patient_name=arrival.patient_name,
                patient_id=arrival.patient_id,
                accession_number=arrival.accession_number[:16],
                study_description=arrival.study_description[:64],
                study_date=arrival.study_date[:8],
            )
        )
        return
    values: dict[str, Any] = {"last_received_at": max(row.last_received_at, arrival.received_at), "purged_at": None}
    if arrival.priority == Priority.STAT:
        values["priority"] = Priority.STAT
    connection.execute(
        update(studies).where(studies.c.study_instance_uid == arrival.study_instance_uid).values(**values)
    )


def _book_series(connection: Connection, arrival: Arrival) -> None:
    where = series.c.series_instance_uid == arrival.series_instance_uid
    row = connection.execute(select(series).where(where)).one_or_none()
    if row is None:
        connection.execute(
            insert(series).values(
                series_instance_uid=arrival.series_instance_uid,
                study_instance_uid=arrival.study_instance_uid,
                state=SeriesState.RECEIVING,
                modality=arrival.modality[:16],
                description=arrival.series_description[:64],
                calling_ae=arrival.calling_ae,
                instances=1,
                for_analysis=arrival.for_analysis,
                first_received_at=arrival.received_at,
                last_received_at=arrival.received_at,
            )
        )
        return
    values: dict[str, Any] = {
        "instances": row.instances + 1,
        "last_received_at": max(row.last_received_at, arrival.received_at),
        "for_analysis": row.for_analysis or arrival.for_analysis,
        "calling_ae": arrival.calling_ae,
    }
    if row.state == SeriesState.COMPLETE:
        check_transition(SeriesState.COMPLETE, SeriesState.LATE)
        values["state"] = SeriesState.LATE
        record(connection, "series_late", row.study_instance_uid, at=arrival.received_at)
    connection.execute(update(series).where(where).values(**values))


def reopen(connection: Connection, series_instance_uid: str, *, why: str, at: datetime) -> bool:
    """Make a series late that was called whole, unless its study was purged; say whether it was one."""
    row = connection.execute(
        select(series.c.study_instance_uid)
        .join(studies)
        .where(
            series.c.series_instance_uid == series_instance_uid,
            series.c.state == SeriesState.COMPLETE,
            series.c.possibly_incomplete.is_(False),
            series.c.for_analysis,
            studies.c.purged_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return False
    where = series.c.series_instance_uid == series_instance_uid
    connection.execute(update(series).where(where).values(state=SeriesState.LATE))
    record(connection, "series_late", row.study_instance_uid, at=at, detail=why)
    return True
