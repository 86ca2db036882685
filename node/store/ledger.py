"""Series, tasks and audit in the ledger: every function works inside the caller's transaction.

One transaction holds a state change and the work it causes (decision 3). Knows no DICOM, no rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, case, func, insert, or_, select, update

from node.store.ledger_tables import audit, cursors, instances, series, studies, tasks
from node.study import SeriesState, TaskState, check_transition

_KEPT_BY_RETRY = (
    "study_instance_uid",
    "model",
    "shadow",
    "series_instance_uid",
    "series_version",
    "choice",
    "possibly_incomplete",
    "urgency",
    "last_instance_at",
)
LEASE = timedelta(minutes=15)
MAX_ATTEMPTS = 3


def cursor(connection: Connection, name: str) -> int:
    """How far a follower has read."""
    return int(connection.scalar(select(cursors.c.value).where(cursors.c.name == name)) or 0)


def set_cursor(connection: Connection, name: str, value: int) -> None:
    """Move a cursor."""
    if connection.execute(update(cursors).where(cursors.c.name == name).values(value=value)).rowcount == 0:
        connection.execute(insert(cursors).values(name=name, value=value))


def open_series(connection: Connection) -> Sequence[RowMapping]:
    """Series that are still receiving, or late again; ``reopened_at`` is when the first late instance came."""
    states = (SeriesState.RECEIVING, SeriesState.LATE)
    late = instances.c.received_at > series.c.completed_at
    first_late = (
        select(func.min(instances.c.received_at))
        .where(instances.c.series_instance_uid == series.c.series_instance_uid, late)
        .scalar_subquery()
    )
    reopened_at = case((series.c.completed_at.is_not(None), first_late)).label("reopened_at")
    query = select(series, studies.c.last_received_at.label("study_last_received_at"), reopened_at).join(studies)
    return connection.execute(query.where(series.c.state.in_(states))).mappings().all()


def instances_of(connection: Connection, series_instance_uid: str) -> Sequence[RowMapping]:
    """The booked instances of a series, in order of arrival."""
    query = select(instances).where(instances.c.series_instance_uid == series_instance_uid)
    return connection.execute(query.order_by(instances.c.intake_seq)).mappings().all()


def booked(connection: Connection, series_instance_uid: str) -> frozenset[str]:
    """The SOP Instance UIDs of a series' booked instances."""
    query = select(instances.c.sop_instance_uid).where(instances.c.series_instance_uid == series_instance_uid)
    return frozenset(connection.scalars(query))


def series_of(connection: Connection, study_instance_uid: str) -> Sequence[RowMapping]:
    """All series of a study."""
    query = select(series).where(series.c.study_instance_uid == study_instance_uid)
    return connection.execute(query.order_by(series.c.first_received_at)).mappings().all()


def study(connection: Connection, study_instance_uid: str) -> RowMapping | None:
    """One study's row."""
    query = select(studies).where(studies.c.study_instance_uid == study_instance_uid)
    return connection.execute(query).mappings().one_or_none()


def complete_series(
    connection: Connection, series_instance_uid: str, *, why: str, possibly_incomplete: bool, at: datetime
) -> None:
    """Close a series: one version more."""
    where = series.c.series_instance_uid == series_instance_uid
    row = connection.execute(select(series.c.state, series.c.version).where(where)).one()
    check_transition(SeriesState(row.state), SeriesState.COMPLETE)
    connection.execute(
        update(series)
        .where(where)
        .values(
            state=SeriesState.COMPLETE,
            version=row.version + 1,
            completed_at=at,
            completion=why[:64],
            possibly_incomplete=possibly_incomplete,
        )
    )


def current_task(connection: Connection, study_instance_uid: str, model: str, *, shadow: bool) -> RowMapping | None:
    """The newest version of a study's task, or None."""
    query = (
        select(tasks)
        .where(tasks.c.study_instance_uid == study_instance_uid, tasks.c.model == model, tasks.c.shadow == shadow)
        .order_by(tasks.c.version.desc())
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def add_task(connection: Connection, values: Mapping[str, Any]) -> int:
    """Add the next version of a task, waiting; a waiting one that no worker holds is replaced in place."""
    current = current_task(connection, values["study_instance_uid"], values["model"], shadow=values["shadow"])
    if current is not None and current["state"] == TaskState.WAITING and not current["claimed_by"]:
        connection.execute(update(tasks).where(tasks.c.task_id == current["task_id"]).values(**values))
        return int(current["task_id"])
    version = current["version"] + 1 if current is not None else 1
    row = {**values, "version": version, "state": TaskState.WAITING, "run_after": values["created_at"]}
    return int(connection.execute(insert(tasks).values(**row)).inserted_primary_key[0])  # type: ignore[index]


def claim_task(connection: Connection, worker: str, at: datetime) -> RowMapping | None:
    """Take the most urgent waiting task (STAT, CT, then age); one whose worker died is taken over after its lease."""
    free = or_(tasks.c.claimed_by == "", tasks.c.claimed_until < at)
    earlier = tasks.alias("earlier")  # versions are answered one after the other, so that the newest ends last
    first = ~(
        select(earlier.c.task_id).where(
            earlier.c.study_instance_uid == tasks.c.study_instance_uid,
            earlier.c.model == tasks.c.model,
            earlier.c.shadow == tasks.c.shadow,
            earlier.c.version < tasks.c.version,
            earlier.c.state == TaskState.WAITING,
        )
    ).exists()
    query = (
        select(tasks)
        .where(and_(tasks.c.state == TaskState.WAITING, tasks.c.run_after <= at, free, first))
        .order_by(tasks.c.urgency, tasks.c.last_instance_at, tasks.c.task_id)
        .limit(1)
        .with_for_update(skip_locked=True, of=tasks)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    values = {"claimed_by": worker, "claimed_until": at + LEASE, "attempt": row["attempt"] + 1}
    connection.execute(update(tasks).where(tasks.c.task_id == row["task_id"]).values(**values))
    taken: RowMapping = connection.execute(select(tasks).where(tasks.c.task_id == row["task_id"])).mappings().one()
    return taken


def release_claims(connection: Connection, worker_prefix: str) -> int:
    """Free the tasks that dead workers of this host held; called by the supervisor when a worker has ended."""
    held = and_(tasks.c.state == TaskState.WAITING, tasks.c.claimed_by.startswith(worker_prefix))
    return connection.execute(update(tasks).where(held).values(claimed_by="", claimed_until=None)).rowcount


def postpone_task(connection: Connection, task_id: int, until: datetime, *, attempt: int) -> None:
    """Give a task back for a later try."""
    values = {"claimed_by": "", "claimed_until": None, "run_after": until, "attempt": attempt}
    connection.execute(update(tasks).where(tasks.c.task_id == task_id).values(**values))


def drop_task(connection: Connection, task_id: int) -> None:
    """Remove a waiting task whose answer is there already (the same study sent again)."""
    connection.execute(tasks.delete().where(tasks.c.task_id == task_id, tasks.c.state == TaskState.WAITING))


def finish_task(connection: Connection, task_id: int, state: TaskState, values: Mapping[str, Any]) -> None:
    """Give a task its final state; older versions become superseded by it."""
    row = connection.execute(select(tasks).where(tasks.c.task_id == task_id)).mappings().one()
    check_transition(TaskState(row["state"]), state)
    final = {**values, "state": state, "claimed_by": "", "claimed_until": None}
    connection.execute(update(tasks).where(tasks.c.task_id == task_id).values(**final))
    connection.execute(update(tasks).where(_older(row)).values(superseded_by=task_id))


def superseded(connection: Connection, task_id: int) -> Sequence[RowMapping]:
    """Final older versions of this task, newest first."""
    row = connection.execute(select(tasks).where(tasks.c.task_id == task_id)).mappings().one()
    query = select(tasks).where(_older(row)).order_by(tasks.c.version.desc())
    return connection.execute(query).mappings().all()


def _older(row: RowMapping) -> Any:
    return and_(
        tasks.c.study_instance_uid == row["study_instance_uid"],
        tasks.c.model == row["model"],
        tasks.c.shadow == row["shadow"],
        tasks.c.version < row["version"],
        tasks.c.superseded_by.is_(None),
    )


def hold_study(connection: Connection, study_instance_uid: str, why: str) -> None:
    """Keep a study's results back and say why."""
    where = studies.c.study_instance_uid == study_instance_uid
    connection.execute(update(studies).where(where).values(held_reason=why))


def record(
    connection: Connection,
    action: str,
    study_instance_uid: str = "",
    *,
    at: datetime,
    actor: str = "falx",
    detail: str = "",
) -> None:
    """Write a line of the audit trail; ``detail`` holds no patient data."""
    connection.execute(
        insert(audit).values(at=at, actor=actor, action=action, study_instance_uid=study_instance_uid, detail=detail)
    )


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Numbers of series and tasks by state."""
    out: dict[str, dict[str, int]] = {}
    for name, table in (("series", series), ("tasks", tasks)):
        rows: Iterable[Any] = connection.execute(select(table.c.state, func.count()).group_by(table.c.state))
        out[name] = {str(state): int(number) for state, number in rows}
    return out


def silent_studies_without_task(connection: Connection, modality: str, model: str, before: datetime) -> list[str]:
    """Studies with series of ``modality`` for analysis, silent since ``before``, for which ``model`` has no task."""
    task_exists = (
        select(tasks.c.task_id).where(
            tasks.c.study_instance_uid == studies.c.study_instance_uid, tasks.c.model == model
        )
    ).exists()
    series_exists = (
        select(series.c.series_instance_uid).where(
            series.c.study_instance_uid == studies.c.study_instance_uid,
            series.c.modality == modality,
            series.c.for_analysis,
        )
    ).exists()
    query = select(studies.c.study_instance_uid).where(
        studies.c.last_received_at < before, series_exists, ~task_exists, studies.c.purged_at.is_(None)
    )
    return list(connection.scalars(query.limit(100)))


def retry_failed(connection: Connection, study_instance_uid: str | None, at: datetime) -> int:
    """Give current failed tasks a new waiting version; return how many."""
    query = select(tasks).where(tasks.c.state == TaskState.FAILED, tasks.c.superseded_by.is_(None))
    if study_instance_uid is not None:
        query = query.where(tasks.c.study_instance_uid == study_instance_uid)
    rows = connection.execute(query).mappings().all()
    for row in rows:
        add_task(connection, {**{name: row[name] for name in _KEPT_BY_RETRY}, "created_at": at})
        hold_study(connection, row["study_instance_uid"], "")
    return len(rows)
