"""Deletes what nobody needs any more, by the rules of retention; and `falx purge`.

Received files and their intake rows are deleted by reception, their only writer, on request; falx's own objects here.
"""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, func, select, update

from node import log
from node.config import Settings, StorageSettings
from node.rules.retention import Purge, StoredStudy, purgeable
from node.store import intake, ledger
from node.store.database import now, open_database, reading
from node.store.ledger_tables import deliveries, instances, objects, series, studies, tasks
from node.store.outbox import WITHDRAWN
from node.study import DeliveryState, SeriesState, TaskState

EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgedStudy:
    """What is deleted of one study, and why."""

    study_instance_uid: str
    instances: int
    objects: int
    why: str


def run_purge(settings: Settings, stop: threading.Event) -> None:
    """The purge loop of the service process."""
    ledger_engine, intake_engine = (open_database(settings.storage, name) for name in ("ledger", "intake"))
    while not stop.wait(EVERY_S):
        for purged in purge(settings.storage, ledger_engine, intake_engine):
            log.get().info("purged", study_instance_uid=purged.study_instance_uid, instances=purged.instances)


def purge(
    storage: StorageSettings, ledger_engine: Engine, intake_engine: Engine, *, dry_run: bool = False
) -> list[PurgedStudy]:
    """Delete, or with ``dry_run`` only list, what the rules let go."""
    at = now()
    low = shutil.disk_usage(storage.folder).free < storage.purge_below_free_mb * 2**20
    with reading(ledger_engine) as connection:
        stored = _stored_studies(connection)
    done = []
    for study in stored:
        verdict = purgeable(study, at, storage, low)
        if not (verdict.instances or verdict.objects):
            continue
        purged = _count(ledger_engine, study.study_instance_uid, verdict)
        if purged.instances == 0 and purged.objects == 0:
            continue
        done.append(purged)
        if not dry_run:
            _delete(storage, ledger_engine, intake_engine, purged, verdict, at)
    return done


def _stored_studies(connection: Connection) -> list[StoredStudy]:
    series_states: dict[str, list[SeriesState]] = defaultdict(list)
    for_analysis: dict[str, bool] = defaultdict(bool)
    for row in connection.execute(select(series.c.study_instance_uid, series.c.state, series.c.for_analysis)):
        series_states[row.study_instance_uid].append(SeriesState(row.state))
        for_analysis[row.study_instance_uid] |= row.for_analysis
    task_states: dict[str, list[TaskState]] = defaultdict(list)
    current = select(tasks.c.study_instance_uid, tasks.c.state).where(tasks.c.superseded_by.is_(None))
    for uid, state in connection.execute(current):
        task_states[uid].append(TaskState(state))
    delivery_states: dict[str, list[DeliveryState]] = defaultdict(list)
    wanted = select(deliveries.c.study_instance_uid, deliveries.c.state).where(deliveries.c.status != WITHDRAWN)
    for uid, state in connection.execute(wanted):
        delivery_states[uid].append(DeliveryState(state))
    newest = select(objects.c.study_instance_uid, func.max(objects.c.created_at)).group_by(objects.c.study_instance_uid)
    made: dict[str, datetime] = {row[0]: row[1] for row in connection.execute(newest)}
    return [
        StoredStudy(
            study_instance_uid=row.study_instance_uid,
            last_received_at=row.last_received_at,
            for_analysis=for_analysis[row.study_instance_uid],
            series=series_states[row.study_instance_uid],
            tasks=task_states[row.study_instance_uid],
            deliveries=delivery_states[row.study_instance_uid],
            held=bool(row.held_reason),
            objects_created_at=made.get(row.study_instance_uid),
        )
        for row in connection.execute(select(studies).where(studies.c.purged_at.is_(None)))
    ]


def _count(engine: Engine, study_instance_uid: str, verdict: Purge) -> PurgedStudy:
    with reading(engine) as connection:
        counted = {
            table.name: connection.scalar(
                select(func.count()).select_from(table).where(table.c.study_instance_uid == study_instance_uid)
            )
            for table in (instances, objects)
        }
    return PurgedStudy(
        study_instance_uid=study_instance_uid,
        instances=(counted["instances"] or 0) if verdict.instances else 0,
        objects=(counted["objects"] or 0) if verdict.objects else 0,
        why=verdict.why,
    )


def _delete(
    storage: StorageSettings,
    ledger_engine: Engine,
    intake_engine: Engine,
    purged: PurgedStudy,
    verdict: Purge,
    at: datetime,
) -> None:
    uid = purged.study_instance_uid
    with ledger_engine.begin() as connection:
        up_to = connection.scalar(select(func.max(instances.c.intake_seq)).where(instances.c.study_instance_uid == uid))
        paths = connection.scalars(select(objects.c.path).where(objects.c.study_instance_uid == uid)).all()
        if verdict.instances:
            connection.execute(update(studies).where(studies.c.study_instance_uid == uid).values(purged_at=at))
        ledger.record(connection, "purged", uid, at=at, detail=purged.why)
    if verdict.instances and up_to is not None:
        intake.request_purge(intake_engine, uid, up_to_seq=up_to, at=at)
    if verdict.objects:
        for path in paths:
            (storage.folder / path).unlink(missing_ok=True)
