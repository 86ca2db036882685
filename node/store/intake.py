"""Reading the intake: which instances came, from whom, what is in quarantine. Never waits for reception.

Reception's own writing is ``intake_writer``. A purge is asked for here and carried out there, so that the files and
rows of one instance have one owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, insert, select

from node.store import intake_tables as tables
from node.store.database import reading


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRow:
    """One received instance. ``path`` is relative to the storage folder; ``sha256`` is of the data set's bytes."""

    seq: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    path: str
    size_bytes: int
    sha256: str
    calling_ae: str
    called_ae: str
    remote_host: str
    received_at: datetime
    for_analysis: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One object that was kept but not taken in. ``code``: ``unreadable`` or ``different-content``."""

    quarantine_id: int
    received_at: datetime
    code: str
    reason: str
    path: str
    study_instance_uid: str
    sop_instance_uid: str
    size_bytes: int
    sha256: str
    calling_ae: str
    remote_host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentEvent:
    """One N-EVENT-REPORT of the Storage Commitment Push Model (PS3.4 J.3.3)."""

    event_id: int
    transaction_uid: str
    committed: Sequence[str]
    failed: Mapping[str, int]  # SOP Instance UID -> Failure Reason (0008,1197)
    calling_ae: str
    received_at: datetime


def generation(engine: Engine) -> str:
    """Return which index this is: a cursor over ``seq`` or ``event_id`` belongs to one generation.

    After the intake was rebuilt from the spool, rows have new numbers; a reader keeps its cursor under a name that
    holds the generation, so it reads all of them again and finds nothing new.
    """
    with reading(engine) as connection:
        return str(connection.execute(select(tables.generation.c.generation)).scalar_one())


def rows_after(engine: Engine, seq: int, limit: int = 1000) -> list[IntakeRow]:
    """Return at most ``limit`` instances committed after ``seq``, in the order they were committed."""
    query = select(tables.instances).where(tables.instances.c.seq > seq).order_by(tables.instances.c.seq).limit(limit)
    with reading(engine) as connection:
        return [IntakeRow(**row._mapping) for row in connection.execute(query)]


def open_callers(engine: Engine) -> set[str]:
    """Return the calling AE titles that have an association open on which they stored something."""
    with reading(engine) as connection:
        return set(connection.execute(select(tables.associations.c.calling_ae)).scalars())


def quarantined(engine: Engine, limit: int = 1000) -> list[Quarantined]:
    """Return what is in quarantine, newest first."""
    query = select(tables.quarantine).order_by(tables.quarantine.c.quarantine_id.desc()).limit(limit)
    with reading(engine) as connection:
        return [Quarantined(**row._mapping) for row in connection.execute(query)]


def commitment_events_after(engine: Engine, event_id: int, limit: int = 1000) -> list[CommitmentEvent]:
    """Return at most ``limit`` storage commitment answers received after ``event_id``, oldest first."""
    events = tables.commitment_events
    query = select(events).where(events.c.event_id > event_id).order_by(events.c.event_id).limit(limit)
    with reading(engine) as connection:
        return [CommitmentEvent(**row._mapping) for row in connection.execute(query)]


def announced(engine: Engine, series_instance_uid: str) -> frozenset[str]:
    """Return the SOP Instance UIDs that MPPS or IAN said a series has; empty when nobody said anything."""
    query = select(tables.announcements.c.instances).where(
        tables.announcements.c.series_instance_uid == series_instance_uid
    )
    with reading(engine) as connection:
        return frozenset(uid for listed in connection.scalars(query) for uid in listed)


def has_newer(engine: Engine, series_instance_uid: str, seq: int) -> bool:
    """Say whether an instance of the series was committed after ``seq``."""
    found = tables.instances.c
    query = select(found.seq).where(found.seq > seq, found.series_instance_uid == series_instance_uid).limit(1)
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def request_purge(engine: Engine, study_instance_uid: str, *, up_to_seq: int, at: datetime) -> None:
    """Ask reception to delete a study's instances up to ``up_to_seq``, files and rows; later ones stay."""
    with engine.begin() as connection:
        connection.execute(
            insert(tables.purge_requests).values(
                study_instance_uid=study_instance_uid, up_to_seq=up_to_seq, requested_at=at
            )
        )


def open_purges(engine: Engine) -> int:
    """Return how many purges were asked for and are not done yet."""
    with reading(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(tables.purge_requests)).scalar_one())
