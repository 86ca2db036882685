"""How far a run has come: the parts of an archive (files, a table), which are unchanged, the position in each.

Every function works inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from node.store.labels_tables import flagged, label_sets, reports, source_parts
from node.store.labels_values import COUNTED, Batch, Counts, Part, PlannedPart

PLAN_ROWS = 500


def plan(connection: Connection, set_id: int, archive: str, parts: Sequence[Part]) -> None:
    """Note parts that the run lists, whether they are unchanged, and from where they are read. Repeatable."""
    sha256 = str(connection.scalar(select(label_sets.c.model_sha256).where(label_sets.c.set_id == set_id)))
    keys = [part.key for part in parts]
    chosen = select(source_parts).where(source_parts.c.archive == archive, source_parts.c.key.in_(keys))
    known = {row.key: row for row in connection.execute(chosen)}
    fresh = [
        {"archive": archive, "key": part.key, "planned_fingerprint": part.fingerprint}
        | {"incremental": part.incremental, "listed_set": set_id, "begun_set": set_id}
        for part in parts
        if part.key not in known
    ]
    if fresh:
        connection.execute(insert(source_parts), fresh)
    for part in parts:
        if part.key in known:
            _plan_known(connection, set_id, sha256, known[part.key], part)


def _plan_known(connection: Connection, set_id: int, sha256: str, row: Row[Any], part: Part) -> None:
    same_as_planned = row.begun_set == set_id and row.planned_fingerprint == part.fingerprint
    values: dict[str, Any] = {"listed_set": set_id, "planned_fingerprint": part.fingerprint}
    if part.fingerprint and row.fingerprint == part.fingerprint and row.model_sha256 == sha256 and not same_as_planned:
        values |= {"skipped_set": set_id}
    elif not same_as_planned:
        if row.begun_set == set_id:  # the file changed while the run was down: count it afresh
            _forget(connection, set_id, row)
        goes_on = part.incremental and row.model_sha256 == sha256 and row.done_set is not None
        values |= dict.fromkeys(COUNTED, 0) | {
            "begun_set": set_id,
            "done_set": None,
            "broken": False,
            "incremental": part.incremental,
            "fingerprint": "",
            "model_sha256": "",
            "position": row.position if goes_on else None,
        }
    connection.execute(update(source_parts).where(source_parts.c.part_id == row.part_id).values(**values))


def _forget(connection: Connection, set_id: int, row: Row[Any]) -> None:
    counts = {name: label_sets.c[name] - getattr(row, name) for name in COUNTED}
    connection.execute(update(label_sets).where(label_sets.c.set_id == set_id).values(**counts))
    connection.execute(delete(flagged).where(flagged.c.part_id == row.part_id, flagged.c.set_id == set_id))
    connection.execute(
        update(reports).where(reports.c.part_id == row.part_id, reports.c.seen_set == set_id).values(seen_set=0)
    )


def open_parts(connection: Connection, set_id: int, after: int = 0, limit: int = PLAN_ROWS) -> list[PlannedPart]:
    """The next parts that the run still has to read, in the order they were first listed."""
    table = source_parts.c
    chosen = (
        select(source_parts)
        .where(
            table.listed_set == set_id,
            or_(table.skipped_set.is_(None), table.skipped_set != set_id),
            or_(table.done_set.is_(None), table.done_set != set_id),
            table.part_id > after,
        )
        .order_by(table.part_id)
        .limit(limit)
    )
    return [
        PlannedPart(
            part_id=row.part_id,
            part=Part(key=row.key, fingerprint=row.planned_fingerprint, incremental=row.incremental),
            position=row.position,
        )
        for row in connection.execute(chosen)
    ]


def is_stored(connection: Connection, set_id: int, batch: Batch) -> bool:
    """Whether this very batch is in the database already."""
    table = source_parts.c
    if batch.positions:
        part_id, position = next(iter(batch.positions.items()))
        at = connection.scalar(select(table.position).where(table.part_id == part_id, table.begun_set == set_id))
        return bool(at == position)
    part_id = next(iter(batch.ended))
    return bool(connection.scalar(select(table.done_set).where(table.part_id == part_id)) == set_id)


def store_progress(connection: Connection, set_id: int, batch: Batch) -> None:
    """Move the positions and add the counts of a batch, to its parts and to the run."""
    total = dict.fromkeys(COUNTED, 0)
    for part_id in {*batch.counts, *batch.positions, *batch.ended}:
        counts = batch.counts.get(part_id, Counts())
        values: dict[str, Any] = {name: source_parts.c[name] + getattr(counts, name) for name in COUNTED}
        for name in COUNTED:
            total[name] += getattr(counts, name)
        if part_id in batch.positions:
            values["position"] = batch.positions[part_id]
        if part_id in batch.ended:
            whole = batch.ended[part_id]
            values |= {"done_set": set_id, "broken": not whole}
            if whole:
                model = select(label_sets.c.model_sha256).where(label_sets.c.set_id == set_id).scalar_subquery()
                values |= {"fingerprint": source_parts.c.planned_fingerprint, "model_sha256": model}
        connection.execute(update(source_parts).where(source_parts.c.part_id == part_id).values(**values))
    sums = {name: label_sets.c[name] + value for name, value in total.items()}
    connection.execute(update(label_sets).where(label_sets.c.set_id == set_id).values(**sums))
