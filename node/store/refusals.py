"""Instances that were offered for a series and not kept, until they come (ADR 50).

Reception's one writer notes and forgets them inside its transactions; the assembly reads them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, delete, func, insert, select

from node.store.database import reading
from node.store.intake_tables import instances, refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One instance that was offered for a series and not kept. ``why``: a DIMSE status, or "ended early"."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    calling_ae: str
    why: str
    refused_at: datetime


def note(connection: Connection, refusal: Refusal) -> None:
    """Note a refusal once; not when the instance is here, so that nothing is missing."""
    uid = refusal.sop_instance_uid
    here = connection.execute(select(instances.c.seq).where(instances.c.sop_instance_uid == uid)).first()
    noted = connection.execute(select(refusals.c.refusal_id).where(refusals.c.sop_instance_uid == uid)).first()
    if here is None and noted is None:
        connection.execute(insert(refusals).values(**asdict(refusal)))


def forget(connection: Connection, sop_instance_uid: str) -> None:
    """The instance has come."""
    connection.execute(delete(refusals).where(refusals.c.sop_instance_uid == sop_instance_uid))


def noted(connection: Connection) -> set[str]:
    """Return the SOP Instance UIDs of all open refusals."""
    return set(connection.execute(select(refusals.c.sop_instance_uid)).scalars())


def missing(engine: Engine, series_instance_uid: str) -> frozenset[str]:
    """Return the SOP Instance UIDs that were refused of a series and have not come since."""
    query = select(refusals.c.sop_instance_uid).where(refusals.c.series_instance_uid == series_instance_uid)
    with reading(engine) as connection:
        return frozenset(connection.scalars(query))


def after(engine: Engine, refusal_id: int, limit: int = 1000) -> list[tuple[int, str]]:
    """Return (number, Series Instance UID) of at most ``limit`` open refusals after ``refusal_id``, oldest first."""
    found = refusals.c
    query = select(found.refusal_id, found.series_instance_uid).where(found.refusal_id > refusal_id)
    with reading(engine) as connection:
        return [(n, uid) for n, uid in connection.execute(query.order_by(found.refusal_id).limit(limit))]


def count(engine: Engine) -> int:
    """Return how many instances were refused and have not come since."""
    with reading(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(refusals)).scalar_one())
