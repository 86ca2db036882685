"""A relabelling run in the label store: begin or go on, look up, store a batch, finish.

Every function works inside the caller's transaction. One batch is one transaction: the index rows, what was flagged,
the counts and the position in each part change together, so a killed run repeats at most the batch it was at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, CursorResult, and_, bindparam, func, insert, or_, select, update

from inference.labels import REPORT_LABELS
from inference.report_answer import ReportLabels
from inference.result import ModelId
from node.store import labels_parts
from node.store.database import now
from node.store.labels_tables import flagged, label_files, label_sets, reports, source_parts
from node.store.labels_values import COUNTED, Batch, Counts, Known, LabelledReport

RUNNING, COMPLETE, INTERRUPTED, FAILED = "running", "complete", "interrupted", "failed"
IDS_AT_ONCE = 500


def begin(connection: Connection, archive: str, model: ModelId, *, trigger: str, engine: str, host: str) -> int:
    """Return the set of this run: the one that stopped half-way when the model is the same, else a new one."""
    table = label_sets.c
    unfinished = select(table.set_id, table.model_sha256).where(
        table.archive == archive, table.state.in_((RUNNING, FAILED))
    )
    for row in connection.execute(unfinished.order_by(table.set_id.desc())).all():
        if row.model_sha256 == model.weights_sha256 and row.set_id == _latest(connection, archive):
            connection.execute(
                update(label_sets)
                .where(table.set_id == row.set_id)
                .values(state=RUNNING, resumed=table.resumed + 1, error="", engine=engine, host=host)
            )
            return int(row.set_id)
        connection.execute(update(label_sets).where(table.set_id == row.set_id).values(state=INTERRUPTED))
    made = connection.execute(
        insert(label_sets).values(
            archive=archive,
            state=RUNNING,
            model_name=model.name,
            model_version=model.version,
            model_sha256=model.weights_sha256,
            trigger=trigger,
            engine=engine,
            host=host,
            started_at=now(),
        )
    )
    return _key(made)


def _key(made: CursorResult[Any]) -> int:
    key = made.inserted_primary_key
    assert key is not None
    return int(key[0])


def _latest(connection: Connection, archive: str) -> int:
    return int(connection.scalar(select(func.max(label_sets.c.set_id)).where(label_sets.c.archive == archive)) or 0)


def look_up(connection: Connection, set_id: int, archive: str, report_ids: Sequence[str]) -> dict[str, Known]:
    """The current rows of report ids."""
    table = reports.c
    chosen = (
        select(reports, label_sets.c.model_sha256, source_parts.c.skipped_set)
        .join(label_sets, label_sets.c.set_id == table.set_id)
        .join(source_parts, source_parts.c.part_id == table.part_id)
        .where(table.archive == archive, table.until_set.is_(None))
    )
    found: dict[str, Known] = {}
    for ids in _pieces(report_ids, IDS_AT_ONCE):
        for row in connection.execute(chosen.where(table.report_id.in_(ids))):
            found[row.report_id] = Known(
                row_id=row.row_id,
                text_sha256=row.text_sha256,
                model_sha256=row.model_sha256,
                set_id=row.set_id,
                reported_at=row.reported_at,
                seen=set_id in (row.seen_set, row.skipped_set),
            )
    return found


def _pieces(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def store(connection: Connection, set_id: int, archive: str, batch: Batch, path: str) -> None:
    """Store one batch; ``path`` is its label file ("" when nothing was labelled)."""
    if batch.labelled:
        _store_reports(connection, set_id, archive, batch.labelled, path)
    if batch.seen:
        met = update(reports).where(reports.c.row_id == bindparam("row"))
        connection.execute(
            met.values(seen_set=set_id, part_id=bindparam("part"), gone_set=None),
            [{"row": row_id, "part": part_id} for row_id, part_id in batch.seen],
        )
    if batch.flagged:
        connection.execute(
            insert(flagged),
            [
                {"archive": archive, "set_id": set_id, "part_id": part_id}
                | {"source_position": what.source_position, "code": what.code, "text": what.text}
                for part_id, what in batch.flagged
            ],
        )
    labels_parts.store_progress(connection, set_id, batch)


def _store_reports(
    connection: Connection, set_id: int, archive: str, labelled: Sequence[LabelledReport], path: str
) -> None:
    made = connection.execute(insert(label_files).values(archive=archive, set_id=set_id, path=path, rows=len(labelled)))
    file_id = _key(made)
    replaced = [row.replaces for row in labelled if row.replaces is not None]
    for ids in _pieces(replaced, IDS_AT_ONCE):
        connection.execute(update(reports).where(reports.c.row_id.in_(ids)).values(until_set=set_id))
    rows = [
        {
            "archive": archive,
            "report_id": row.report_id,
            "accession_number": row.report.accession_number,
            "study_instance_uid": row.report.study_instance_uid,
            "exam": row.report.study_instance_uid or row.report.accession_number,
            "modality": row.report.modality,
            "reported_at": row.report.reported_at,
            "addendum": row.report.addendum,
            "text_sha256": row.report.text_sha256,
            "labels": labels_as_text(row.labels),
            "flags": " ".join((*row.report.flags, *row.labels.flags))[:200],
            "set_id": set_id,
            "file_id": file_id,
            "file_row": number,
            "part_id": row.part_id,
            "seen_set": set_id,
        }
        for number, row in enumerate(labelled)
    ]
    connection.execute(insert(reports), rows)


def labels_as_text(labels: ReportLabels) -> str:
    """One character a label, in the order of REPORT_LABELS: 1, 0, ? (undecidable)."""
    return "".join({1: "1", 0: "0"}.get(labels.labels.get(label), "?") for label in REPORT_LABELS)  # type: ignore[arg-type]


def finish(connection: Connection, set_id: int, archive: str) -> Counts:
    """Note which reports are gone from the archive, close the run and return its counts."""
    parts, table = source_parts.c, reports.c
    read_whole = and_(
        parts.listed_set == set_id,
        or_(parts.skipped_set.is_(None), parts.skipped_set != set_id),
        parts.broken.is_(False),
        parts.incremental.is_(False),
    )
    where = select(parts.part_id).where(parts.archive == archive, or_(parts.listed_set != set_id, read_whole))
    gone = connection.execute(
        update(reports)
        .where(table.archive == archive, table.until_set.is_(None), table.seen_set != set_id)
        .where(table.gone_set.is_(None), table.part_id.in_(where))
        .values(gone_set=set_id)
    ).rowcount
    listed = select(func.count(), func.count().filter(parts.skipped_set == set_id))
    total, unchanged = connection.execute(listed.where(parts.archive == archive, parts.listed_set == set_id)).one()
    connection.execute(
        update(label_sets)
        .where(label_sets.c.set_id == set_id)
        .values(state=COMPLETE, finished_at=now(), gone=gone, error="", parts=total, parts_unchanged=unchanged)
    )
    return counts(connection, set_id)


def fail(connection: Connection, set_id: int, error: str) -> None:
    """Note why a run stopped; the next one with the same model goes on from there."""
    connection.execute(
        update(label_sets).where(label_sets.c.set_id == set_id).values(state=FAILED, error=error, finished_at=now())
    )


def counts(connection: Connection, set_id: int) -> Counts:
    """The counts of a run so far."""
    row = connection.execute(select(label_sets).where(label_sets.c.set_id == set_id)).one()
    return Counts(**{name: getattr(row, name) for name in COUNTED})


def last_started_at(connection: Connection, archive: str) -> datetime | None:
    """When the newest run of an archive began."""
    chosen = select(label_sets.c.started_at).where(label_sets.c.archive == archive)
    return connection.scalar(chosen.order_by(label_sets.c.set_id.desc()).limit(1))


def unfinished(connection: Connection, archive: str) -> bool:
    """Whether the newest run stopped half-way."""
    chosen = select(label_sets.c.state).where(label_sets.c.archive == archive)
    return connection.scalar(chosen.order_by(label_sets.c.set_id.desc()).limit(1)) in (RUNNING, FAILED)
