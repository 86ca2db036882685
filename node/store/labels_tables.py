"""The tables of database ``labels``: runs and their label sets, progress, the index of reports, corrections.

The bulk (texts, probabilities, evidence) lies in Parquet files that ``label_files`` lists (``labels_files``); these
tables hold state and what must be found fast. Times are aware UTC.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from node.store.labels_values import COUNTED
from node.store.ledger_tables import UtcTime

metadata = MetaData()
BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by themselves in INTEGER keys only


def _counts() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False, default=0, server_default="0") for name in COUNTED]


label_sets = Table(  # one a run: the run history is this table
    "label_sets",
    metadata,
    Column("set_id", Integer, primary_key=True),
    Column("archive", String(32), nullable=False, index=True),
    Column("state", String(12), nullable=False),  # running | complete | interrupted | failed
    Column("model_name", String(64), nullable=False),
    Column("model_version", String(32), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("trigger", String(16), nullable=False),  # schedule | person
    Column("engine", String(8), nullable=False),  # local | ray
    Column("host", String(128), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Column("resumed", Integer, nullable=False, default=0),  # times it went on after a stop
    Column("error", Text, nullable=False, default=""),
    Column("parts", BigInteger, nullable=False, default=0),  # listed
    Column("parts_unchanged", BigInteger, nullable=False, default=0),  # of those, not read again
    *_counts(),
)

source_parts = Table(
    "source_parts",
    metadata,
    Column("part_id", BigId, primary_key=True),
    Column("archive", String(32), nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, default=""),  # as last read to its end
    Column("planned_fingerprint", String(64), nullable=False, default=""),  # as listed by the run at work
    Column("incremental", Boolean, nullable=False, default=False),
    Column("model_sha256", String(64), nullable=False, default=""),  # that labelled it to its end
    Column("position", Text),  # read up to and including
    Column("listed_set", Integer),  # the last run that listed it
    Column("skipped_set", Integer),  # the last run that found it unchanged
    Column("begun_set", Integer),  # the run whose counts these are
    Column("done_set", Integer),  # the last run that reached its end, or its break
    Column("broken", Boolean, nullable=False, default=False),  # it could not be read to its end
    *_counts(),
    UniqueConstraint("archive", "key"),
)
Index("source_parts_open", source_parts.c.listed_set, source_parts.c.done_set)

label_files = Table(
    "label_files",
    metadata,
    Column("file_id", BigId, primary_key=True),
    Column("archive", String(32), nullable=False, index=True),
    Column("set_id", Integer, ForeignKey("label_sets.set_id"), nullable=False),
    Column("path", Text, nullable=False, unique=True),  # relative to the storage folder
    Column("rows", Integer, nullable=False),
)

reports = Table(  # one row a version of a report; valid in the sets from set_id up to, not including, until_set
    "reports",
    metadata,
    Column("row_id", BigId, primary_key=True),
    Column("archive", String(32), nullable=False),
    Column("report_id", String(256), nullable=False),
    Column("accession_number", String(64), nullable=False, default=""),
    Column("study_instance_uid", String(64), nullable=False, default=""),
    Column("exam", String(64), nullable=False, default=""),  # Study Instance UID, else accession number
    Column("modality", String(8), nullable=False, default=""),
    Column("reported_at", UtcTime),
    Column("addendum", Boolean, nullable=False, default=False),
    Column("text_sha256", String(64), nullable=False),
    Column("labels", String(32), nullable=False),  # one character a label: 1, 0, ? (undecidable)
    Column("flags", String(200), nullable=False, default=""),  # joined by spaces
    Column("set_id", Integer, ForeignKey("label_sets.set_id"), nullable=False),
    Column("until_set", Integer),
    Column("file_id", BigInteger, ForeignKey("label_files.file_id"), nullable=False),
    Column("file_row", Integer, nullable=False),
    Column("part_id", BigInteger, nullable=False),
    Column("seen_set", Integer, nullable=False),
    Column("gone_set", Integer),  # the run that no longer met it; labels are kept
)
Index(
    "reports_current",
    reports.c.archive,
    reports.c.report_id,
    unique=True,
    sqlite_where=text("until_set IS NULL"),
    postgresql_where=text("until_set IS NULL"),
)
Index("reports_by_file", reports.c.file_id, reports.c.file_row)
Index("reports_by_part", reports.c.part_id, reports.c.seen_set)
Index("reports_by_accession", reports.c.accession_number)
Index("reports_by_exam", reports.c.exam)
Index("reports_by_set", reports.c.archive, reports.c.set_id)

flagged = Table(
    "flagged",
    metadata,
    Column("flag_id", BigId, primary_key=True),
    Column("archive", String(32), nullable=False),
    Column("set_id", Integer, ForeignKey("label_sets.set_id"), nullable=False, index=True),
    Column("part_id", BigInteger, nullable=False, index=True),
    Column("source_position", Text, nullable=False),
    Column("code", String(48), nullable=False),
    Column("text", Text, nullable=False),
)

corrections = Table(
    "corrections",
    metadata,
    Column("correction_id", BigId, primary_key=True),
    Column("group_id", String(36), nullable=False, index=True),  # what one action of a person made; undone together
    Column("archive", String(32), nullable=False),
    Column("report_id", String(256), nullable=False),
    Column("label", String(48), nullable=False),
    Column("value", SmallInteger),  # 1, 0, NULL undecidable
    Column("text_sha256", String(64), nullable=False),  # the text that was read
    Column("made_by", String(64), nullable=False),
    Column("made_at", UtcTime, nullable=False, index=True),
    Column("how", String(16), nullable=False),  # manual | accept | lasso | keyword | regex | threshold | file
    Column("detail", Text, nullable=False, default=""),  # the pattern, the threshold, the number selected
    Column("probability", Float),  # what the model had said
    Column("undone_by", String(64), nullable=False, default=""),
    Column("undone_at", UtcTime),
)
Index("corrections_by_report", corrections.c.archive, corrections.c.report_id)
