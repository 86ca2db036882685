"""What the pages read from the ledger: the worklist, one study, the numbers of the monitoring page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, func, select

from node.rules.priority import worklist_score
from node.store.database import now
from node.store.ledger_tables import audit, deliveries, objects, series, studies, tasks
from node.study import DeliveryState, Priority, SeriesState, TaskState

Answer = tuple[str, float | None, bool | None]  # label, probability, present of a task's main finding
NO_ANSWER: Answer = ("", None, None)
PAGE_SIZE = 100
FILTERS: dict[str, str] = {
    "all": "All",
    "waiting": "Waiting",
    "present": "Finding present",
    "absent": "Finding absent",
    "undetermined": "Undetermined",
    "unsuitable": "Unsuitable",
    "failed": "Failed",
    "undelivered": "Not yet confirmed",
    "dead": "Delivery failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """A model's current answer, as the worklist shows it."""

    model: str
    state: str
    reason: str
    label: str
    probability: float | None
    present: bool | None


@dataclass(frozen=True, kw_only=True)
class WorklistRow:
    """One study. ``score`` orders the list; ``deliveries`` counts by state."""

    study: Any
    tasks: tuple[TaskLine, ...]
    deliveries: dict[str, int]
    modalities: tuple[str, ...]
    receiving: bool
    score: float
    age_s: float

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The keys of ``FILTERS`` that this study belongs to."""
        kinds = {"all"}
        for task in self.tasks:
            kinds.add(task.state if task.state != TaskState.ANALYSED else "present" if task.present else "absent")
        if self.receiving or not self.tasks:
            kinds.add("waiting")
        if self.deliveries.get(DeliveryState.QUEUED) or self.deliveries.get(DeliveryState.SENT):
            kinds.add("undelivered")
        if self.deliveries.get(DeliveryState.DEAD):
            kinds.add("dead")
        return frozenset(kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worklist:
    """One page of the worklist and how many studies each filter holds."""

    rows: tuple[WorklistRow, ...]
    matching: int
    counts: dict[str, int]
    page: int

    @property
    def pages(self) -> int:
        """Number of pages."""
        return max(1, -(-self.matching // PAGE_SIZE))


def worklist(
    rows: Sequence[WorklistRow], *, kind: str = "all", days: int = 0, search: str = "", page: int = 1
) -> Worklist:
    """Studies by score; ``days`` > 0 keeps those received since, ``search`` looks into names, ids and descriptions."""
    wanted = search.strip().casefold()
    counts: dict[str, int] = dict.fromkeys(FILTERS, 0)
    kept = []
    for row in rows:
        if (days > 0 and row.age_s > days * 86400) or (wanted and wanted not in _searched(row.study)):
            continue
        kinds = row.kinds
        for name in kinds:
            counts[name] += 1
        if kind in kinds:
            kept.append(row)
    start = (page - 1) * PAGE_SIZE
    return Worklist(rows=tuple(kept[start : start + PAGE_SIZE]), matching=len(kept), counts=counts, page=page)


def worklist_rows(connection: Connection, answers: dict[int, Answer] | None = None) -> list[WorklistRow]:
    """Every study of the ledger, highest score first.

    ``answers`` holds what earlier calls read of finished tasks, which never change; it is brought up to date.
    """
    lines = _task_lines(connection, {} if answers is None else answers)
    delivered, modalities, receiving = _deliveries(connection), *_modalities(connection)
    at = now()
    statement = select(
        studies.c.study_instance_uid,
        studies.c.last_received_at,
        studies.c.priority,
        studies.c.patient_name,
        studies.c.patient_id,
        studies.c.accession_number,
        studies.c.study_description,
        studies.c.held_reason,
    )
    rows = [
        _row(study, lines[uid], delivered[uid], modalities[uid], uid in receiving, at)
        for study in connection.execute(statement)
        for uid in (study.study_instance_uid,)
    ]
    rows.sort(key=lambda row: -row.score)
    return rows


def _row(
    study: Any,
    lines: list[TaskLine],
    delivered: dict[str, int],
    modalities: set[str],
    receiving: bool,
    at: datetime,
) -> WorklistRow:
    age_s = (at - study.last_received_at).total_seconds()
    main = max(lines, key=lambda line: -1.0 if line.probability is None else line.probability, default=None)
    probability, present = (main.probability, main.present) if main else (None, None)
    return WorklistRow(
        study=study,
        tasks=tuple(lines),
        deliveries=delivered,
        modalities=tuple(sorted(modalities)),
        receiving=receiving,
        score=worklist_score(probability, present, age_s, study.priority == Priority.STAT),
        age_s=age_s,
    )


def _searched(study: Any) -> str:
    fields = (
        study.patient_name,
        study.patient_id,
        study.accession_number,
        study.study_description,
        study.study_instance_uid,
    )
    return "\n".join(fields).replace("^", " ").casefold()


def _task_lines(connection: Connection, answers: dict[int, Answer]) -> dict[str, list[TaskLine]]:
    current = (tasks.c.superseded_by.is_(None), ~tasks.c.shadow)
    rows = connection.execute(
        select(tasks.c.task_id, tasks.c.study_instance_uid, tasks.c.model, tasks.c.state, tasks.c.reason_text).where(
            *current
        )
    ).all()
    _read_answers(connection, answers, {row.task_id for row in rows if row.state != TaskState.WAITING})
    lines: dict[str, list[TaskLine]] = defaultdict(list)
    for task_id, uid, model, state, reason in rows:
        label, probability, present = answers.get(task_id, NO_ANSWER)
        lines[uid].append(
            TaskLine(model=model, state=state, reason=reason, label=label, probability=probability, present=present)
        )
    return lines


def _read_answers(connection: Connection, answers: dict[int, Answer], wanted: set[int]) -> None:
    """Take the main finding out of the JSON of tasks that are not known yet; forget those no longer current."""
    for gone in answers.keys() - wanted:
        del answers[gone]
    missing = wanted - answers.keys()
    if not missing:
        return
    first = tasks.c.findings[0]
    values = (first["label"].as_string(), first["probability"].as_float(), first["present"].as_boolean())
    newer = tasks.c.task_id >= min(missing)
    for task_id, label, probability, present in connection.execute(select(tasks.c.task_id, *values).where(newer)):
        if task_id in missing:
            answers[task_id] = (label or "", probability, present)


def _deliveries(connection: Connection) -> dict[str, dict[str, int]]:
    delivered: dict[str, dict[str, int]] = defaultdict(dict)
    by_state = select(deliveries.c.study_instance_uid, deliveries.c.state, func.count()).group_by(
        deliveries.c.study_instance_uid, deliveries.c.state
    )
    for uid, state, count in connection.execute(by_state):
        delivered[uid][state] = count
    return delivered


def _modalities(connection: Connection) -> tuple[dict[str, set[str]], set[str]]:
    modalities: dict[str, set[str]] = defaultdict(set)
    receiving: set[str] = set()
    for uid, modality, state in connection.execute(
        select(series.c.study_instance_uid, series.c.modality, series.c.state).where(series.c.for_analysis)
    ):
        modalities[uid].add(modality)
        if state != SeriesState.COMPLETE:
            receiving.add(uid)
    return modalities, receiving


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """Everything the ledger knows of one study."""

    study: RowMapping
    series: Sequence[RowMapping]
    tasks: Sequence[RowMapping]
    objects: Sequence[RowMapping]
    deliveries: dict[str, list[RowMapping]]
    audit: Sequence[RowMapping]


def study_view(connection: Connection, study_instance_uid: str) -> StudyView | None:
    """One study with its series, tasks (newest first), objects, deliveries by object, audit trail; None if unknown."""

    def rows(table: Table, *order: Any, limit: int = 1000) -> Sequence[RowMapping]:
        of_study = select(table).where(table.c.study_instance_uid == study_instance_uid)
        return connection.execute(of_study.order_by(*order).limit(limit)).mappings().all()

    found = rows(studies)
    if not found:
        return None
    delivered: dict[str, list[RowMapping]] = defaultdict(list)
    for row in rows(deliveries, deliveries.c.rank):
        delivered[row["sop_instance_uid"]].append(row)
    return StudyView(
        study=found[0],
        series=rows(series, series.c.first_received_at),
        tasks=rows(tasks, tasks.c.superseded_by.is_not(None), tasks.c.shadow, tasks.c.task_id.desc()),
        objects=rows(objects, objects.c.task_id.desc(), objects.c.kind.desc()),
        deliveries=delivered,
        audit=rows(audit, audit.c.audit_id.desc(), limit=200),
    )
