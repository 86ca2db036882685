"""What changed between two label sets of an archive, and why: a changed text, another model, a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, or_, select

from inference.labels import REPORT_LABELS
from node.errors import Rejected
from node.store import labels_corrections, labels_files
from node.store.database import now
from node.store.labels import LabelSet, label_set, labels_from_text
from node.store.labels_files import StoredReport
from node.store.labels_tables import label_files, reports

NEW, TEXT, MODEL, CORRECTION, UNDONE = "new report", "text changed", "model changed", "correction", "correction undone"
PAGE_ROWS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a change: the label, the probability, and the sentences that decided (spans in code points)."""

    value: int | None
    probability: float | None = None
    spans: tuple[tuple[int, int], ...] = ()
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One label of one report that differs. ``kept`` is the person's value that stands in spite of it."""

    report_id: str
    accession_number: str
    label: str
    why: str
    before: Side | None  # None: there was no such report
    after: Side
    by: str = ""
    kept: int | None = None
    overridden: bool = False


def diff(connection: Connection, folder: Path, first: int, second: int) -> Iterator[Change]:
    """Yield what changed from set ``first`` to set ``second`` in bounded memory, the model's changes before people's.

    Raises
    ------
    Rejected
        When a set does not exist, or they are of different archives.
    """
    one, other = label_set(connection, first), label_set(connection, second)
    if one.archive != other.archive:
        raise Rejected(
            "different_archives", f"set {first} is of archive {one.archive}, set {second} of {other.archive}"
        )
    if first > second:
        raise Rejected("wrong_order", f"give the older set first: falx labels diff {second} {first}")
    after = 0
    while page := _page(connection, one, other, after):
        yield from _changes(connection, folder, one, page)
        after = page[-1].row_id
    yield from _people(connection, one, other)


def _valid_at(set_id: int) -> Any:
    return (reports.c.set_id <= set_id) & or_(reports.c.until_set.is_(None), reports.c.until_set > set_id)


def _page(connection: Connection, one: LabelSet, other: LabelSet, after: int) -> Sequence[Any]:
    chosen = (
        select(reports, label_files.c.path)
        .join(label_files, label_files.c.file_id == reports.c.file_id)
        .where(reports.c.archive == other.archive, reports.c.set_id > one.set_id, _valid_at(other.set_id))
        .where(reports.c.row_id > after)
    )
    return connection.execute(chosen.order_by(reports.c.row_id).limit(PAGE_ROWS)).all()


def _changes(connection: Connection, folder: Path, one: LabelSet, page: Sequence[Any]) -> Iterator[Change]:
    ids = [row.report_id for row in page]
    chosen = (
        select(reports, label_files.c.path)
        .join(label_files, label_files.c.file_id == reports.c.file_id)
        .where(reports.c.archive == one.archive, reports.c.report_id.in_(ids), _valid_at(one.set_id))
    )
    earlier = {row.report_id: row for row in connection.execute(chosen)}
    differing = [row for row in page if row.report_id not in earlier or earlier[row.report_id].labels != row.labels]
    kept = labels_corrections.effective(connection, one.archive, [row.report_id for row in differing])
    contents = _contents(folder, [*differing, *(earlier[r.report_id] for r in differing if r.report_id in earlier)])
    for row in differing:
        old = earlier.get(row.report_id)
        why = NEW if old is None else TEXT if old.text_sha256 != row.text_sha256 else MODEL
        before, after = labels_from_text(old.labels) if old is not None else {}, labels_from_text(row.labels)
        for label in REPORT_LABELS:
            if old is not None and before[label] == after[label]:
                continue
            person = kept.get(row.report_id, {}).get(label)
            yield Change(
                report_id=row.report_id,
                accession_number=row.accession_number,
                label=label,
                why=why,
                before=None if old is None else _side(before[label], label, contents[old.row_id]),
                after=_side(after[label], label, contents[row.row_id]),
                kept=None if person is None else person.value,
                overridden=person is not None,
            )


def _contents(folder: Path, rows: Sequence[Any]) -> dict[int, StoredReport]:
    by_path: dict[str, list[Any]] = {}
    for row in rows:
        by_path.setdefault(row.path, []).append(row)
    found: dict[int, StoredReport] = {}
    for path, members in by_path.items():
        stored = labels_files.read(folder, path, [row.file_row for row in members])
        found |= {row.row_id: stored[row.file_row] for row in members}
    return found


def _side(value: int | None, label: str, stored: StoredReport) -> Side:
    spans = stored.evidence.get(label, ())
    return Side(
        value=value,
        probability=stored.probabilities.get(label),
        spans=spans,
        sentences=tuple(stored.text[start:end] for start, end in spans),
    )


def _people(connection: Connection, one: LabelSet, other: LabelSet) -> Iterator[Change]:
    start, end = one.finished_at or one.started_at, other.finished_at or now()
    made = labels_corrections.made_between(connection, one.archive, start, end)
    current = _current(connection, one.archive, [correction.report_id for correction in made])
    for correction in made:
        undone = correction.undone_at is not None and start < correction.undone_at <= end
        if undone and correction.made_at > start:
            continue  # made and undone between the two sets: nothing changed
        accession_number, labels = current[correction.report_id]
        said = Side(value=labels[correction.label], probability=correction.probability)
        decided = Side(value=correction.value)
        yield Change(
            report_id=correction.report_id,
            accession_number=accession_number,
            label=correction.label,
            why=UNDONE if undone else CORRECTION,
            before=decided if undone else said,
            after=said if undone else decided,
            by=correction.undone_by if undone else correction.made_by,
        )


def _current(
    connection: Connection, archive: str, report_ids: Sequence[str]
) -> Mapping[str, tuple[str, Mapping[str, int | None]]]:
    """report id -> accession number and what the model says now."""
    found: dict[str, tuple[str, Mapping[str, int | None]]] = {}
    for start in range(0, len(report_ids), PAGE_ROWS):
        chosen = select(reports.c.report_id, reports.c.accession_number, reports.c.labels).where(
            reports.c.archive == archive,
            reports.c.until_set.is_(None),
            reports.c.report_id.in_(report_ids[start : start + PAGE_ROWS]),
        )
        for row in connection.execute(chosen):
            found[row.report_id] = (row.accession_number, labels_from_text(row.labels))
    return found
