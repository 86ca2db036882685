"""The label store as pages and commands read it: label sets, lists and searches of reports, one report in full.

Every function works in the caller's transaction (``node.store.database.reading``). ``folder`` is the storage folder.
Report texts leave this module to be shown to a person who may see them; they are never logged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, func, select

from inference.labels import REPORT_LABELS
from inference.result import ModelId
from node.errors import Rejected
from node.store import labels_corrections, labels_files
from node.store.labels_corrections import Correction
from node.store.labels_tables import flagged, label_files, label_sets, reports
from node.store.labels_values import COUNTED, Counts

SEARCH_S = 10.0
MAX_PATTERN = 500
PAGE = 100
MAX_PAGE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """One run and the label set it made."""

    set_id: int
    archive: str
    state: str
    model: ModelId
    trigger: str
    engine: str
    host: str
    started_at: datetime
    finished_at: datetime | None
    resumed: int
    error: str
    parts: int
    parts_unchanged: int
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """A report in a list, without its text. ``labels`` are the model's, overridden by what people corrected."""

    row_id: int
    archive: str
    report_id: str
    accession_number: str
    study_instance_uid: str
    modality: str
    reported_at: datetime | None
    labels: Mapping[str, int | None]
    corrected: frozenset[str]  # labels that a person decided
    flags: tuple[str, ...]
    set_id: int
    is_gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """One report in full. ``evidence``: label -> half-open spans in code points of ``text``."""

    row: ReportRow
    text: str
    status: str
    model: ModelId
    model_labels: Mapping[str, int | None]
    probabilities: Mapping[str, float]
    evidence: Mapping[str, tuple[tuple[int, int], ...]]
    corrections: Sequence[Correction]  # all, undone ones too, oldest first
    text_changed_since_correction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of reports. ``next_after``: of the next page, None at the end. ``complete``: False when time ran out."""

    rows: Sequence[ReportRow]
    next_after: int | None
    complete: bool = True


def label_sets_of(connection: Connection, archive: str = "", limit: int = 50) -> list[LabelSet]:
    """The run history, newest first; of one archive, or of all."""
    chosen = select(label_sets).order_by(label_sets.c.set_id.desc()).limit(limit)
    return [
        _set(row) for row in connection.execute(chosen.where(label_sets.c.archive == archive) if archive else chosen)
    ]


def label_set(connection: Connection, set_id: int) -> LabelSet:
    """One label set; raise Rejected when there is none of this number."""
    row = connection.execute(select(label_sets).where(label_sets.c.set_id == set_id)).one_or_none()
    if row is None:
        raise Rejected("unknown_set", f"there is no label set {set_id}; `falx labels runs` lists them")
    return _set(row)


def _set(row: Any) -> LabelSet:
    values = dict(row._mapping)
    counts = Counts(**{name: values.pop(name) for name in COUNTED})
    model = ModelId(
        name=values.pop("model_name"), version=values.pop("model_version"), weights_sha256=values.pop("model_sha256")
    )
    return LabelSet(**values, model=model, counts=counts)


def flagged_of(connection: Connection, set_id: int, limit: int = 200) -> list[tuple[str, str, str]]:
    """(position, code, text) of what a run could not label, in the order it was met."""
    chosen = select(flagged.c.source_position, flagged.c.code, flagged.c.text).where(flagged.c.set_id == set_id)
    return [(row[0], row[1], row[2]) for row in connection.execute(chosen.order_by(flagged.c.flag_id).limit(limit))]


def archives(connection: Connection) -> dict[str, int]:
    """Archive -> number of reports it has in the store."""
    chosen = select(reports.c.archive, func.count()).where(reports.c.until_set.is_(None))
    return {
        row[0]: row[1] for row in connection.execute(chosen.group_by(reports.c.archive).order_by(reports.c.archive))
    }


def list_reports(
    connection: Connection, archive: str, *, label: str = "", value: int | None = 1, after: int = 0, limit: int = PAGE
) -> Found:
    """A page of an archive's reports; of those with ``label`` at ``value`` as the model says (None: undecidable).

    Ordered by row_id; ``after`` is the ``next_after`` of the page before.
    """
    limit = min(limit, MAX_PAGE)
    chosen = select(reports).where(
        reports.c.archive == archive, reports.c.until_set.is_(None), reports.c.row_id > after
    )
    if label:
        if label not in REPORT_LABELS:
            raise Rejected("unknown_label", f"no label is called {label!r}")
        sign = "?" if value is None else str(value)
        chosen = chosen.where(func.substr(reports.c.labels, REPORT_LABELS.index(label) + 1, 1) == sign)
    rows = connection.execute(chosen.order_by(reports.c.row_id).limit(limit)).all()
    return Found(rows=_rows(connection, archive, rows), next_after=rows[-1].row_id if len(rows) == limit else None)


def search(
    connection: Connection,
    folder: Path,
    archive: str,
    pattern: str,
    *,
    is_regex: bool = False,
    limit: int = PAGE,
    within: frozenset[int] | None = None,
    patience_s: float = SEARCH_S,
) -> Found:
    """Reports whose text holds ``pattern`` (a keyword, or an RE2 regular expression), newest first, without case.

    ``within`` narrows to some row ids (a lasso). Stops after ``limit`` hits or ``patience_s``; raise Rejected for a
    pattern that is empty, too long or no regular expression.
    """
    if not 0 < len(pattern) <= MAX_PATTERN:
        raise Rejected("bad_pattern", f"give 1 to {MAX_PATTERN} characters to search for")
    end = time.monotonic() + patience_s
    hits: list[Any] = []
    for file_id, path in list(labels_files.paths(connection, archive)):
        if len(hits) >= min(limit, MAX_PAGE) or time.monotonic() > end:
            complete = len(hits) >= limit
            return Found(rows=_rows(connection, archive, hits[:limit]), next_after=None, complete=complete)
        try:
            numbers = labels_files.matching(folder, path, pattern, is_regex)
        except pa.ArrowInvalid as error:
            raise Rejected("bad_pattern", f"no regular expression (RE2 syntax): {error}") from None
        chosen = select(reports).where(reports.c.file_id == file_id, reports.c.until_set.is_(None))
        found = connection.execute(chosen.where(reports.c.file_row.in_(numbers)).order_by(reports.c.row_id)).all()
        hits += [row for row in found if within is None or row.row_id in within]
    return Found(rows=_rows(connection, archive, hits[:limit]), next_after=None)


def reports_of(connection: Connection, archive: str, row_ids: Sequence[int]) -> list[ReportRow]:
    """Current reports by row id (a lasso on the map), in that order, at most MAX_PAGE."""
    wanted = list(row_ids)[:MAX_PAGE]
    found: dict[int, Any] = {}
    for start in range(0, len(wanted), 500):
        chosen = select(reports).where(reports.c.archive == archive, reports.c.until_set.is_(None))
        for row in connection.execute(chosen.where(reports.c.row_id.in_(wanted[start : start + 500]))):
            found[row.row_id] = row
    return _rows(connection, archive, [found[row_id] for row_id in wanted if row_id in found])


def _rows(connection: Connection, archive: str, rows: Sequence[Any]) -> list[ReportRow]:
    standing = labels_corrections.effective(connection, archive, [row.report_id for row in rows])
    return [_row(row, standing.get(row.report_id, {})) for row in rows]


def _row(row: Any, standing: Mapping[str, Correction]) -> ReportRow:
    labels = labels_from_text(row.labels) | {label: made.value for label, made in standing.items()}
    return ReportRow(
        row_id=row.row_id,
        archive=row.archive,
        report_id=row.report_id,
        accession_number=row.accession_number,
        study_instance_uid=row.study_instance_uid,
        modality=row.modality,
        reported_at=row.reported_at,
        labels=labels,
        corrected=frozenset(standing),
        flags=tuple(row.flags.split()),
        set_id=row.set_id,
        is_gone=row.gone_set is not None,
    )


def labels_from_text(text: str) -> dict[str, int | None]:
    """The opposite of ``labels_runs.labels_as_text``."""
    return {label: {"1": 1, "0": 0}.get(sign) for label, sign in zip(REPORT_LABELS, text, strict=True)}


def get_report(connection: Connection, folder: Path, archive: str, report_id: str) -> ReportView | None:
    """One report in full, as it is now; None when the archive has no such report."""
    chosen = (
        select(
            reports, label_files.c.path, label_sets.c.model_name, label_sets.c.model_version, label_sets.c.model_sha256
        )
        .join(label_files, label_files.c.file_id == reports.c.file_id)
        .join(label_sets, label_sets.c.set_id == reports.c.set_id)
        .where(reports.c.archive == archive, reports.c.report_id == report_id, reports.c.until_set.is_(None))
    )
    row = connection.execute(chosen).one_or_none()
    if row is None:
        return None
    stored = labels_files.read(folder, row.path, [row.file_row])[row.file_row]
    standing = labels_corrections.effective(connection, archive, [report_id]).get(report_id, {})
    return ReportView(
        row=_row(row, standing),
        text=stored.text,
        status=stored.status,
        model=ModelId(name=row.model_name, version=row.model_version, weights_sha256=row.model_sha256),
        model_labels=stored.labels,
        probabilities=stored.probabilities,
        evidence=stored.evidence,
        corrections=labels_corrections.history(connection, archive, report_id),
        text_changed_since_correction=any(made.text_sha256 != row.text_sha256 for made in standing.values()),
    )
