"""Forgetting what was received: studies on request, quarantined objects and refusals by age.

Runs in the intake's one writer.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath

import structlog
from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.exc import SQLAlchemyError

from node.store import intake_tables as tables
from node.store.database import now, reading
from node.store.spool import Spool

log = structlog.get_logger()


def carry_out_purges(engine: Engine, spool: Spool) -> None:
    """Do what ``purge_requests`` asks, and let quarantined objects go after ``spool.keep_quarantine``.

    Files first, then rows and request in one transaction: a killed process repeats it. A fault is logged and the rest
    stays for the next time.
    """
    try:
        before = now() - spool.keep_quarantine
        if _is_anything_due(engine, before):
            with engine.begin() as connection:
                _purge_studies(connection, spool)
                _expire_quarantine(connection, spool, before)
                connection.execute(delete(tables.refusals).where(tables.refusals.c.refused_at < before))
    except (SQLAlchemyError, OSError) as error:
        log.error("purge_failed", error=type(error).__name__)


def _is_anything_due(engine: Engine, before: datetime) -> bool:
    with reading(engine) as connection:
        return any(
            connection.execute(query.limit(1)).first() is not None
            for query in (
                select(tables.purge_requests.c.request_id),
                select(tables.quarantine.c.quarantine_id).where(tables.quarantine.c.received_at < before),
                select(tables.refusals.c.refusal_id).where(tables.refusals.c.refused_at < before),
            )
        )


def _purge_studies(connection: Connection, spool: Spool) -> None:
    requests, found = tables.purge_requests, tables.instances.c
    for request in connection.execute(select(requests)).all():
        chosen = (found.study_instance_uid == request.study_instance_uid) & (found.seq <= request.up_to_seq)
        paths = connection.execute(select(found.path).where(chosen)).scalars().all()
        for path in paths:
            spool.remove(PurePosixPath(path))
        connection.execute(delete(tables.instances).where(chosen))
        connection.execute(
            delete(tables.refusals).where(tables.refusals.c.study_instance_uid == request.study_instance_uid)
        )
        connection.execute(delete(requests).where(requests.c.request_id == request.request_id))
        log.info("purged", study_instance_uid=request.study_instance_uid, instances=len(paths))


def _expire_quarantine(connection: Connection, spool: Spool, before: datetime) -> None:
    kept = tables.quarantine
    for row in connection.execute(select(kept.c.quarantine_id, kept.c.path).where(kept.c.received_at < before)).all():
        spool.remove(PurePosixPath(row.path))
        connection.execute(delete(kept).where(kept.c.quarantine_id == row.quarantine_id))
        log.info("quarantine_expired", quarantine_id=row.quarantine_id)
