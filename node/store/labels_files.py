"""The bulk of the label store: Parquet files of labelled reports (texts, probabilities, evidence), written once.

One file a batch, in ``labels/<archive>/`` of the storage folder. A file counts only when ``label_files`` lists it;
``remove_orphans`` deletes those that a killed run left behind.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Connection, select

from inference.labels import REPORT_LABELS
from node.errors import Corrupt
from node.store.labels_tables import label_files
from node.store.labels_values import LabelledReport

ROW_GROUP_ROWS = 512  # one report is read by reading its row group
_SPANS = pa.list_(
    pa.struct([("label", pa.dictionary(pa.int8(), pa.string())), ("start", pa.int32()), ("end", pa.int32())])
)
SCHEMA = pa.schema(
    [
        ("report_id", pa.string()),
        ("accession_number", pa.string()),
        ("study_instance_uid", pa.string()),
        ("modality", pa.string()),
        ("reported_at", pa.timestamp("ms", tz="UTC")),
        ("status", pa.string()),
        ("addendum", pa.bool_()),
        ("text", pa.large_string()),
        ("text_sha256", pa.string()),
        ("flags", pa.list_(pa.string())),
        *((label, pa.int8()) for label in REPORT_LABELS),
        *((f"p_{label}", pa.float32()) for label in REPORT_LABELS),
        ("evidence", _SPANS),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """One row of a label file: the report's text with the model's answer. Offsets are code points of ``text``."""

    text: str
    labels: Mapping[str, int | None]
    probabilities: Mapping[str, float]
    evidence: Mapping[str, tuple[tuple[int, int], ...]]
    flags: tuple[str, ...]
    status: str


def write(folder: Path, archive: str, set_id: int, rows: Sequence[LabelledReport]) -> str:
    """Write one file, durably; return its path relative to the storage folder."""
    target = folder / "labels" / archive / f"{set_id:06d}-{uuid.uuid4().hex}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = target.with_suffix(".part")
    with unfinished.open("wb") as stream:
        table = pa.Table.from_pylist([_row(row) for row in rows], schema=SCHEMA)
        pq.write_table(table, stream, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.rename(target)
    entry = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)
    return target.relative_to(folder).as_posix()


def _row(row: LabelledReport) -> dict[str, Any]:
    report, labels = row.report, row.labels
    return {
        "report_id": row.report_id,
        "accession_number": report.accession_number,
        "study_instance_uid": report.study_instance_uid,
        "modality": report.modality,
        "reported_at": report.reported_at,
        "status": report.status,
        "addendum": report.addendum,
        "text": report.text,
        "text_sha256": report.text_sha256,
        "flags": [*report.flags, *labels.flags],
        **{label: labels.labels.get(label) for label in REPORT_LABELS},
        **{f"p_{label}": labels.probabilities.get(label) for label in REPORT_LABELS},
        "evidence": [
            {"label": label, "start": start, "end": end}
            for label, spans in labels.evidence.items()
            for start, end in spans
        ],
    }


def _existing(folder: Path, path: str) -> Path:
    """The file's place; raise Corrupt when it was lost, as after a backup of the database alone."""
    if not (folder / path).is_file():
        raise Corrupt(
            f"label file {path} is missing in {folder}: restore the folder labels/ that belongs to the database"
        )
    return folder / path


def read(folder: Path, path: str, wanted: Sequence[int]) -> dict[int, StoredReport]:
    """Read rows of one file by their number; only the row groups that hold them."""
    with pq.ParquetFile(_existing(folder, path)) as file:
        groups = sorted({number // ROW_GROUP_ROWS for number in wanted})
        table = file.read_row_groups(groups)
        place = {group: index for index, group in enumerate(groups)}
        # every group but the file's last is full, so the offset of a wanted row follows from its group
        offsets = [place[number // ROW_GROUP_ROWS] * ROW_GROUP_ROWS + number % ROW_GROUP_ROWS for number in wanted]
        return {number: _stored(row) for number, row in zip(wanted, table.take(offsets).to_pylist(), strict=True)}


def _stored(row: dict[str, Any]) -> StoredReport:
    evidence: dict[str, tuple[tuple[int, int], ...]] = {}
    for span in row["evidence"]:
        evidence[span["label"]] = (*evidence.get(span["label"], ()), (span["start"], span["end"]))
    return StoredReport(
        text=row["text"],
        labels={label: row[label] for label in REPORT_LABELS},
        probabilities={label: row[f"p_{label}"] for label in REPORT_LABELS if row[f"p_{label}"] is not None},
        evidence=evidence,
        flags=tuple(row["flags"]),
        status=row["status"],
    )


def probabilities(folder: Path, path: str, wanted: Sequence[int]) -> list[dict[str, float | None]]:
    """The probabilities of rows of one file, in the order asked for."""
    table = pq.read_table(_existing(folder, path), columns=[f"p_{label}" for label in REPORT_LABELS])
    return list(table.take(list(wanted)).to_pylist())


def matching(folder: Path, path: str, pattern: str, is_regex: bool) -> list[int]:
    """Numbers of the rows whose text matches, without regard to case.

    The engine is RE2: the time grows with the length of the text, whatever the pattern.
    """
    text = pq.read_table(_existing(folder, path), columns=["text"])["text"]
    find = pc.match_substring_regex if is_regex else pc.match_substring
    hits = find(text, pattern, ignore_case=True)
    return list(pc.indices_nonzero(hits).to_pylist())


def paths(connection: Connection, archive: str) -> Iterator[tuple[int, str]]:
    """(file_id, path) of an archive's files, newest first."""
    chosen = select(label_files.c.file_id, label_files.c.path).where(label_files.c.archive == archive)
    for row in connection.execute(chosen.order_by(label_files.c.file_id.desc())):
        yield row.file_id, row.path


def remove_orphans(folder: Path, archive: str, connection: Connection) -> int:
    """Delete files of an archive that no row lists; the caller holds the archive's lease. Return how many."""
    place = folder / "labels" / archive
    removed = 0
    for file in place.glob("*.par*") if place.is_dir() else ():
        path = file.relative_to(folder).as_posix()
        if file.suffix == ".part" or not connection.scalar(
            select(label_files.c.rows).where(label_files.c.path == path)
        ):
            file.unlink()
            removed += 1
    return removed
