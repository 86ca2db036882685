"""What may be deleted: received instances of finished studies, and falx's own objects once nobody needs them. Pure.

falx is not an archive, but it never deletes the only proof of a result: received instances stay until every delivery of
their study is confirmed (decision 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from node.config import StorageSettings
from node.study import DeliveryState, SeriesState, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStudy:
    """What the ledger knows of a study for this decision; times are aware UTC.

    ``objects_created_at`` is the newest object's time, None when falx made none; ``for_analysis`` holds when any
    series is.
    """

    study_instance_uid: str
    last_received_at: datetime
    for_analysis: bool
    series: Sequence[SeriesState]
    tasks: Sequence[TaskState]
    deliveries: Sequence[DeliveryState]
    held: bool = False
    objects_created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """May the received instances go, may falx's objects go, and why (or why not)."""

    instances: bool
    objects: bool
    why: str


def purgeable(study: StoredStudy, now: datetime, settings: StorageSettings, low_space: bool = False) -> Purge:
    """Decide for one study.

    ``low_space`` (free space below ``purge_below_free_mb``) lifts the age limits, never the need for confirmation.
    A clock that was set back makes everything look young: nothing is deleted early.
    """
    obstacle = _obstacle(study, now)
    if obstacle:
        return Purge(instances=False, objects=False, why=obstacle)
    keep_days = settings.keep_received_days if study.for_analysis else settings.keep_unanalysed_days
    old = now - study.last_received_at >= timedelta(days=keep_days)
    made_at = study.objects_created_at
    objects_old = made_at is not None and now - made_at >= timedelta(days=settings.keep_objects_days)
    if old:
        why = f"older than {keep_days:g} days"
    elif low_space:
        why = "disk space is low"
    else:
        why = f"kept for {keep_days:g} days"
    return Purge(instances=old or low_space, objects=objects_old, why=why)


def _obstacle(study: StoredStudy, now: datetime) -> str:
    """What forbids deletion at any age, or "".

    A study that is still without a task after a day will never get one: its model is switched off.
    """
    if study.held:
        return "held for a person to look at"
    if not study.for_analysis:
        return ""
    unconfirmed = sum(state is not DeliveryState.CONFIRMED for state in study.deliveries)
    obstacles = {
        "still being received": any(state is not SeriesState.COMPLETE for state in study.series),
        "not yet judged": not study.tasks and now - study.last_received_at < timedelta(days=1),
        "waits for analysis": TaskState.WAITING in study.tasks,
        "analysis failed; `falx retry` repeats it": TaskState.FAILED in study.tasks,
        f"{unconfirmed} deliveries not confirmed": unconfirmed > 0,
    }
    return next((text for text, holds in obstacles.items() if holds), "")
