"""The label file that training and evaluation read: one row an examination, joined to the studies falx received.

Several reports of one examination become one row: the latest report counts, and what its later addenda find present is
present. A correction overrides the model. Streams file by file; memory holds one label file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, FromClause, func, or_, select

from inference.labels import REPORT_LABELS
from node.errors import Rejected
from node.store import label_file, labels_corrections, labels_files
from node.store.labels import archives, label_set, labels_from_text
from node.store.labels_tables import label_files, label_sets, reports
from node.store.ledger_tables import studies

PAGE_ROWS = 2000
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Exported:
    """What an export wrote, and what it left out and why."""

    rows: int = 0
    joined: int = 0  # rows of studies that falx received
    without_exam: int = 0  # reports that name neither study nor accession number
    without_label: int = 0  # examinations on which nothing could be said
    ambiguous_accession: int = 0  # the accession number belongs to studies of several patients
    not_received: int = 0  # left out because --received asks for joined rows only
    studies_without_report: int = 0


@dataclass(slots=True)
class _Exam:
    study_instance_uid: str
    accession_number: str
    labels: dict[str, int | None]
    probabilities: dict[str, float | None]
    model: tuple[str, str, str]
    reports: int = 1
    corrected: set[str] = field(default_factory=set)


def export(
    connection: Connection,
    ledger: Connection,
    folder: Path,
    archive: str,
    out: Path,
    *,
    set_id: int | None = None,
    received_only: bool = False,
) -> Exported:
    """Write the label file of an archive (``.csv`` or ``.parquet``), as of now or of one label set.

    Raises
    ------
    Misconfigured
        When the name of ``out`` ends in neither.
    Rejected
        When the archive has no labels, or the set does not exist or is of another archive.
    """
    known = archives(connection)
    if archive not in known:
        raise Rejected("unknown_archive", f"archive {archive!r} has no labels; there are: {', '.join(known) or 'none'}")
    if set_id is not None and label_set(connection, set_id).archive != archive:
        raise Rejected("different_archives", f"label set {set_id} is not of archive {archive}")
    done = Exported()
    unfinished = out.with_name(f".{out.name}.part")
    writer = label_file.open_writer(out.suffix, unfinished)
    received: set[str] = set()
    try:
        for exams in _exams(connection, folder, archive, set_id, done):
            rows = list(_joined(exams, ledger, done, received, received_only))
            done.rows += len(rows)
            writer.write(rows)
    finally:
        writer.close()
    done.studies_without_report = _studies(ledger) - len(received)
    os.replace(unfinished, out)
    return done


def _valid(set_id: int | None, table: FromClause = reports) -> Any:
    if set_id is None:
        return table.c.until_set.is_(None)
    return (table.c.set_id <= set_id) & or_(table.c.until_set.is_(None), table.c.until_set > set_id)


def _exams(
    connection: Connection, folder: Path, archive: str, set_id: int | None, done: Exported
) -> Iterator[list[_Exam]]:
    """Examinations with one report file by file, then those with several."""
    table = reports.c
    valid = (table.archive == archive) & _valid(set_id)
    other = reports.alias("other")
    valid_other = (other.c.archive == archive) & _valid(set_id, other)
    again = select(other.c.row_id).where(valid_other, other.c.exam == table.exam, other.c.row_id != table.row_id)
    several = select(table.exam).where(valid, table.exam != "").group_by(table.exam).having(func.count() > 1)
    done.without_exam = int(connection.scalar(select(func.count()).where(valid, table.exam == "")) or 0)
    for file_id, path in list(labels_files.paths(connection, archive)):
        chosen = _chosen().where(valid, table.file_id == file_id, table.exam != "", ~again.exists())
        rows = connection.execute(chosen.order_by(table.file_row)).all()
        if rows:
            said = labels_files.probabilities(folder, path, [row.file_row for row in rows])
            yield _corrected(connection, archive, list(zip(rows, said, strict=True)))
    after = ""
    while names := connection.scalars(several.where(table.exam > after).order_by(table.exam).limit(PAGE_ROWS)).all():
        rows = connection.execute(_chosen().where(valid, table.exam.in_(names))).all()
        yield _several(_corrected(connection, archive, _with_probabilities(folder, rows)), rows)
        after = names[-1]


def _chosen() -> Any:
    return (
        select(
            reports,
            label_files.c.path,
            label_sets.c.model_name,
            label_sets.c.model_version,
            label_sets.c.model_sha256,
        )
        .join(label_files, label_files.c.file_id == reports.c.file_id)
        .join(label_sets, label_sets.c.set_id == reports.c.set_id)
    )


def _with_probabilities(folder: Path, rows: Sequence[Any]) -> list[tuple[Any, dict[str, float | None]]]:
    found: dict[int, dict[str, float | None]] = {}
    for path in sorted({row.path for row in rows}):
        members = [row for row in rows if row.path == path]
        said = labels_files.probabilities(folder, path, [row.file_row for row in members])
        found |= {row.row_id: values for row, values in zip(members, said, strict=True)}
    return [(row, found[row.row_id]) for row in rows]


def _corrected(
    connection: Connection, archive: str, rows: Sequence[tuple[Any, dict[str, float | None]]]
) -> list[_Exam]:
    standing = labels_corrections.effective(connection, archive, [row.report_id for row, _ in rows])
    exams = []
    for row, said in rows:
        decided = {label: made.value for label, made in standing.get(row.report_id, {}).items()}
        exams.append(
            _Exam(
                study_instance_uid=row.study_instance_uid,
                accession_number=row.accession_number,
                labels=labels_from_text(row.labels) | decided,
                probabilities=said,
                model=(row.model_name, row.model_version, row.model_sha256),
                corrected=set(decided),
            )
        )
    return exams


def _several(exams: Sequence[_Exam], rows: Sequence[Any]) -> list[_Exam]:
    """One examination of all its reports: the latest one that is no addendum, then its addenda in their order."""
    groups: dict[str, list[tuple[Any, _Exam]]] = {}
    for row, exam in zip(rows, exams, strict=True):
        groups.setdefault(row.exam, []).append((row, exam))
    result = []
    for members in groups.values():
        members.sort(key=lambda member: (not member[0].addendum, member[0].reported_at or LONG_AGO, member[0].row_id))
        row, whole = members[-1]  # without a report, the last addendum
        for other, addendum in members[:-1]:
            later = other.addendum and not row.addendum
            if later:
                _add(whole, addendum)
        whole.reports = len(members)
        result.append(whole)
    return result


def _add(whole: _Exam, addendum: _Exam) -> None:
    """What an addendum finds present is present; what a person decided of it counts either way."""
    for label in REPORT_LABELS:
        if label in whole.corrected and label not in addendum.corrected:
            continue
        if addendum.labels[label] == 1 or label in addendum.corrected:
            whole.labels[label] = addendum.labels[label]
            whole.probabilities[f"p_{label}"] = addendum.probabilities[f"p_{label}"]
    whole.corrected |= addendum.corrected


def _joined(
    exams: Sequence[_Exam], ledger: Connection, done: Exported, received: set[str], received_only: bool
) -> Iterator[dict[str, Any]]:
    """Rows of the label file; a report without a Study Instance UID takes that of its accession number."""
    by_uid, by_accession = _received(ledger, exams)
    for exam in exams:
        if all(value is None for value in exam.labels.values()):
            done.without_label += 1
            continue
        uids = [exam.study_instance_uid] if exam.study_instance_uid else []
        if not uids:
            found = by_accession.get(exam.accession_number, [])
            if len({patient_id for _, patient_id in found}) > 1:
                done.ambiguous_accession += 1
                continue
            uids = [uid for uid, _ in found]
        known = [uid for uid in uids if uid in by_uid]
        if received_only and not known:
            done.not_received += 1
            continue
        done.joined += len(known)
        received.update(known)
        for uid in uids or [""]:
            yield _row(exam, uid)


def _row(exam: _Exam, uid: str) -> dict[str, Any]:
    name, version, sha256 = exam.model
    return {
        "study_instance_uid": uid,
        "accession_number": exam.accession_number,
        **exam.labels,
        **exam.probabilities,
        "model_name": name,
        "model_version": version,
        "model_sha256": sha256,
        "reports": exam.reports,
        "corrected": " ".join(sorted(exam.corrected)),
    }


def _received(ledger: Connection, exams: Sequence[_Exam]) -> tuple[set[str], dict[str, list[tuple[str, str]]]]:
    """The received studies that the examinations may be: UIDs, and accession number -> (UID, patient id)."""
    table = studies.c
    by_uid: set[str] = set()
    by_accession: dict[str, list[tuple[str, str]]] = {}
    for start in range(0, len(exams), 500):
        some = exams[start : start + 500]
        uids = [exam.study_instance_uid for exam in some if exam.study_instance_uid]
        numbers = [exam.accession_number for exam in some if exam.accession_number and not exam.study_instance_uid]
        chosen = select(table.study_instance_uid, table.accession_number, table.patient_id)
        for row in ledger.execute(
            chosen.where(or_(table.study_instance_uid.in_(uids), table.accession_number.in_(numbers)))
        ):
            by_uid.add(row.study_instance_uid)
            by_accession.setdefault(row.accession_number, []).append((row.study_instance_uid, row.patient_id))
    return by_uid, by_accession


def _studies(ledger: Connection) -> int:
    return int(ledger.scalar(select(func.count()).select_from(studies)) or 0)
