"""What people say of reports: corrections, made singly or in groups, undone, never deleted.

A correction overrides the model for its report and label, in every later run too, until it is undone. It remembers
the text that was read and the probability the model had given. Every function works in the caller's transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from inference.labels import REPORT_LABELS
from node.errors import Rejected
from node.store import labels_files
from node.store.database import now
from node.store.labels_tables import corrections, label_files, reports

HOW = ("manual", "accept", "lasso", "keyword", "regex", "threshold", "file")
IDS_AT_ONCE = 500
MAX_REPORTS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One label of one report as a person decided it."""

    correction_id: int
    group_id: str
    report_id: str
    label: str
    value: int | None
    text_sha256: str
    made_by: str
    made_at: datetime
    how: str
    detail: str
    probability: float | None
    undone_by: str
    undone_at: datetime | None


def correct(
    connection: Connection,
    folder: Path,
    *,
    archive: str,
    report_ids: Sequence[str],
    values: Mapping[str, int | None],
    by: str,
    how: str = "manual",
    detail: str = "",
) -> str:
    """Set labels of reports; return the group id, by which :func:`undo` takes it all back.

    Raises
    ------
    Rejected
        For an unknown label, value, way or report, or more than MAX_REPORTS reports at once; nothing is stored then.
    """
    _check(report_ids, values, how)
    rows = _current(connection, archive, report_ids)
    said = _probabilities(connection, folder, rows)
    group_id = str(uuid.uuid4())
    at = now()
    connection.execute(
        insert(corrections),
        [
            {"group_id": group_id, "archive": archive, "report_id": row.report_id, "label": label, "value": value}
            | {"text_sha256": row.text_sha256, "made_by": by, "made_at": at, "how": how, "detail": detail}
            | {"probability": said[row.report_id].get(f"p_{label}")}
            for row in rows
            for label, value in values.items()
        ],
    )
    return group_id


def _check(report_ids: Sequence[str], values: Mapping[str, int | None], how: str) -> None:
    unknown = sorted(set(values) - set(REPORT_LABELS))
    if unknown or not values:
        raise Rejected("unknown_label", f"no such label: {', '.join(unknown)}; labels are {', '.join(REPORT_LABELS)}")
    if not set(values.values()) <= {0, 1, None}:
        raise Rejected("bad_value", "a label is 1 (present), 0 (absent) or empty (undecidable)")
    if how not in HOW:
        raise Rejected("bad_way", f"a correction is made by one of {', '.join(HOW)}")
    if not 0 < len(report_ids) <= MAX_REPORTS:
        raise Rejected("bad_selection", f"select 1 to {MAX_REPORTS} reports")


def _current(connection: Connection, archive: str, report_ids: Sequence[str]) -> list[Any]:
    rows: list[Any] = []
    wanted = list(dict.fromkeys(report_ids))
    for start in range(0, len(wanted), IDS_AT_ONCE):
        rows += connection.execute(
            select(reports).where(
                reports.c.archive == archive,
                reports.c.until_set.is_(None),
                reports.c.report_id.in_(wanted[start : start + IDS_AT_ONCE]),
            )
        ).all()
    missing = len(wanted) - len(rows)
    if missing:
        raise Rejected("unknown_report", f"archive {archive} has no such report ({missing} of {len(wanted)} selected)")
    return rows


def _probabilities(connection: Connection, folder: Path, rows: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    by_file: dict[int, list[Any]] = {}
    for row in rows:
        by_file.setdefault(row.file_id, []).append(row)
    said: dict[str, dict[str, float | None]] = {}
    for file_id, members in by_file.items():
        path = connection.execute(select(label_files.c.path).where(label_files.c.file_id == file_id)).scalar_one()
        found = labels_files.probabilities(folder, path, [row.file_row for row in members])
        said |= {row.report_id: values for row, values in zip(members, found, strict=True)}
    return said


def undo(connection: Connection, group_id: str, by: str) -> int:
    """Take back what one action corrected; return how many labels. What was valid before it is valid again."""
    table = corrections.c
    return connection.execute(
        update(corrections)
        .where(table.group_id == group_id, table.undone_at.is_(None))
        .values(undone_by=by, undone_at=now())
    ).rowcount


def undo_last(connection: Connection, archive: str, by: str) -> str | None:
    """Take back a person's latest correction of an archive; return its group id, None when there is none."""
    table = corrections.c
    group_id = connection.scalar(
        select(table.group_id)
        .where(table.archive == archive, table.made_by == by, table.undone_at.is_(None))
        .order_by(table.correction_id.desc())
        .limit(1)
    )
    if group_id is not None:
        undo(connection, group_id, by)
    return group_id


def effective(
    connection: Connection, archive: str, report_ids: Sequence[str], until: datetime | None = None
) -> dict[str, dict[str, Correction]]:
    """report id -> label -> the latest correction that stands (of those made and not undone by ``until``)."""
    found: dict[str, dict[str, Correction]] = {}
    for start in range(0, len(report_ids), IDS_AT_ONCE):
        for made in _made(connection, archive, report_ids[start : start + IDS_AT_ONCE]):
            undone = made.undone_at is not None and (until is None or made.undone_at <= until)
            if not undone and (until is None or made.made_at <= until):
                found.setdefault(made.report_id, {})[made.label] = made
    return found


def history(connection: Connection, archive: str, report_id: str) -> list[Correction]:
    """All corrections of a report, the undone ones too, oldest first."""
    return _made(connection, archive, [report_id])


def _made(connection: Connection, archive: str, report_ids: Sequence[str]) -> list[Correction]:
    table = corrections.c
    chosen = select(corrections).where(table.archive == archive, table.report_id.in_(report_ids))
    return [_correction(row) for row in connection.execute(chosen.order_by(table.correction_id))]


def made_between(connection: Connection, archive: str, after: datetime, until: datetime) -> list[Correction]:
    """Corrections made or undone in a time, oldest first."""
    table = corrections.c
    within = (table.made_at > after) & (table.made_at <= until) | (table.undone_at > after) & (table.undone_at <= until)
    chosen = select(corrections).where(table.archive == archive, within)
    return [_correction(row) for row in connection.execute(chosen.order_by(table.correction_id))]


def _correction(row: Any) -> Correction:
    values = dict(row._mapping)
    del values["archive"]
    return Correction(**values)
