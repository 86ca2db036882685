"""What the pages read from the ledger: one page of the worklist, and one study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, func, select

from node.store.database import now
from node.store.ledger_tables import audit, deliveries, objects, series, studies, tasks
from node.study import SeriesState
from node.web.worklist_order import FILTERS, Answer, Place, main_findings

PAGE_SIZE = 100
_SHOWN = (
    studies.c.study_instance_uid,
    studies.c.last_received_at,
    studies.c.priority,
    studies.c.patient_name,
    studies.c.patient_id,
    studies.c.accession_number,
    studies.c.study_description,
    studies.c.held_reason,
)
_SEARCHED = (
    studies.c.patient_name,
    studies.c.patient_id,
    studies.c.accession_number,
    studies.c.study_description,
    studies.c.study_instance_uid,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """A model's current answer, as the worklist shows it."""

    model: str
    state: str
    reason: str
    label: str
    probability: float | None
    present: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistRow:
    """One study. ``deliveries`` counts by state; ``place`` is where it stands and why."""

    study: Any
    tasks: tuple[TaskLine, ...]
    deliveries: dict[str, int]
    modalities: tuple[str, ...]
    receiving: bool
    place: Place
    age_s: float


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
    connection: Connection,
    places: Sequence[Place],
    *,
    kind: str = "all",
    days: int = 0,
    search: str = "",
    page: int = 1,
) -> Worklist:
    """Studies by score; ``days`` > 0 keeps those received since, ``search`` looks into names, ids and descriptions."""
    wanted = search.strip().casefold()
    named = _named(connection, wanted) if wanted else None
    at = now()
    counts: dict[str, int] = dict.fromkeys(FILTERS, 0)
    by_kinds: dict[frozenset[str], int] = defaultdict(int)
    kept = []
    for place in places:
        if named is not None and place.study_instance_uid not in named:
            continue
        if days > 0 and (at - place.last_received_at).total_seconds() > days * 86400:
            continue
        by_kinds[place.kinds] += 1
        if kind in place.kinds:
            kept.append(place)
    for kinds, number in by_kinds.items():
        for name in kinds:
            counts[name] += number
    start = (page - 1) * PAGE_SIZE
    rows = _rows(connection, kept[start : start + PAGE_SIZE])
    return Worklist(rows=rows, matching=len(kept), counts=counts, page=page)


def _named(connection: Connection, wanted: str) -> set[str]:
    """Studies in whose fields the words stand."""
    return {
        row.study_instance_uid
        for row in connection.execute(select(*_SEARCHED))
        if wanted in "\n".join(row).replace("^", " ").casefold()
    }


def _rows(connection: Connection, chosen: Sequence[Place]) -> tuple[WorklistRow, ...]:
    """The rows of one page, in order; a study deleted meanwhile is left out."""
    uids = [place.study_instance_uid for place in chosen]
    found = {
        row.study_instance_uid: row
        for row in connection.execute(select(*_SHOWN).where(studies.c.study_instance_uid.in_(uids)))
    }
    lines, delivered = _task_lines(connection, uids), _deliveries(connection, uids)
    modalities, receiving = _modalities(connection, uids)
    at = now()
    return tuple(
        WorklistRow(
            study=found[uid],
            tasks=tuple(lines[uid]),
            deliveries=delivered[uid],
            modalities=tuple(sorted(modalities[uid])),
            receiving=uid in receiving,
            place=place,
            age_s=(at - place.last_received_at).total_seconds(),
        )
        for uid, place in zip(uids, chosen, strict=True)
        if uid in found
    )


def _task_lines(connection: Connection, uids: Sequence[str]) -> dict[str, list[TaskLine]]:
    current = (tasks.c.superseded_by.is_(None), ~tasks.c.shadow, tasks.c.study_instance_uid.in_(uids))
    columns = (tasks.c.task_id, tasks.c.study_instance_uid, tasks.c.model, tasks.c.state, tasks.c.reason_text)
    rows = connection.execute(select(*columns).where(*current).order_by(tasks.c.task_id)).all()
    answers = main_findings(connection, tasks.c.task_id.in_([row.task_id for row in rows]))
    lines: dict[str, list[TaskLine]] = defaultdict(list)
    for task_id, uid, model, state, reason in rows:
        label, probability, present = answers.get(task_id, Answer())
        lines[uid].append(
            TaskLine(model=model, state=state, reason=reason, label=label, probability=probability, present=present)
        )
    return lines


def _deliveries(connection: Connection, uids: Sequence[str]) -> dict[str, dict[str, int]]:
    delivered: dict[str, dict[str, int]] = defaultdict(dict)
    by_state = (
        select(deliveries.c.study_instance_uid, deliveries.c.state, func.count())
        .where(deliveries.c.study_instance_uid.in_(uids))
        .group_by(deliveries.c.study_instance_uid, deliveries.c.state)
    )
    for uid, state, count in connection.execute(by_state):
        delivered[uid][state] = count
    return delivered


def _modalities(connection: Connection, uids: Sequence[str]) -> tuple[dict[str, set[str]], set[str]]:
    modalities: dict[str, set[str]] = defaultdict(set)
    receiving: set[str] = set()
    query = select(series.c.study_instance_uid, series.c.modality, series.c.state).where(
        series.c.for_analysis, series.c.study_instance_uid.in_(uids)
    )
    for uid, modality, state in connection.execute(query):
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
