"""`falx retract`: withdraws a study's results, with a rejection note where the destination takes one (IHE RAD IOCM)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
from sqlalchemy import Engine, RowMapping, select, update

from dicom_sr.build import build_rejection_note
from dicom_sr.check import checked_bytes
from inference.result import ModelId
from node.config import Settings
from node.errors import Rejected
from node.pipeline import profile_of, rejected_objects
from node.store import ledger, outbox
from node.store.database import now, reading
from node.store.ledger_tables import studies, tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraction:
    """What was done: objects withdrawn, who was told by a note, who must be told by a person."""

    objects: int
    notified: tuple[str, ...]
    not_notified: tuple[str, ...]


def retract(settings: Settings, engine: Engine, study_instance_uid: str, reason: str, actor: str) -> Retraction:
    """Withdraw every current result of a study. Raises Rejected when it has none."""
    with reading(engine) as connection:
        query = select(tasks).where(
            tasks.c.study_instance_uid == study_instance_uid, ~tasks.c.shadow, tasks.c.superseded_by.is_(None)
        )
        current = connection.execute(query).mappings().all()
    if not current:
        raise Rejected("no_result", f"study {study_instance_uid} has no result to retract; `falx status` lists studies")
    count, told = 0, set()
    for task in current:
        for destination in settings.destinations:
            profile = profile_of(destination, settings.models.by_purpose[task["model"]]).id
            count += _withdraw(settings, engine, task, destination.name, profile, destination.rejection_notes, reason)
            if destination.rejection_notes:
                told.add(destination.name)
    with engine.begin() as connection:
        where = studies.c.study_instance_uid == study_instance_uid
        connection.execute(update(studies).where(where).values(retracted_at=now()))
        ledger.record(connection, "retracted", study_instance_uid, at=now(), actor=actor, detail=reason)
    names = {d.name for d in settings.destinations}
    return Retraction(objects=count, notified=tuple(sorted(told)), not_notified=tuple(sorted(names - told)))


def _withdraw(
    settings: Settings, engine: Engine, task: RowMapping, destination: str, profile: str, note: bool, reason: str
) -> int:
    at = now()
    with reading(engine) as connection:
        rows = [r for r in outbox.objects_of(connection, task["task_id"], profile) if r["role"] != "rejection-note"]
    stored = []
    if note and rows:
        model = ModelId(name=task["model_name"], version=task["model_version"], weights_sha256=task["model_sha256"])
        header = pydicom.dcmread(settings.storage.folder / Path(rows[0]["path"]), stop_before_pixels=True)
        made = build_rejection_note(
            header=header, rejected=rejected_objects(rows), model=model, text=reason, rejected_at=at
        )
        content = checked_bytes(made.dataset)
        stored.append(
            outbox.store_object(
                settings.storage,
                made.dataset,
                kind=made.kind,
                role=made.role,
                profile=profile,
                task_id=task["task_id"],
                content=content,
            )
        )
    with engine.begin() as connection:
        outbox.cancel(connection, task["task_id"], why="retracted", at=at, destination=destination)
        outbox.enqueue(connection, objects=stored, destinations=[destination], at=at)
    return len(rows)
