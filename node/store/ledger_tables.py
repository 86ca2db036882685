"""The tables of the ledger: series, tasks, objects, deliveries, commitments, audit, leases.

Functions over them: ``ledger`` (series and tasks), ``outbox`` (objects and deliveries). Times are aware UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite has no time zones of its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Refuse naive times."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time must have a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Give back an aware time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

studies = Table(
    "studies",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("first_received_at", UtcTime, nullable=False),
    Column("last_received_at", UtcTime, nullable=False),
    Column("priority", String(8), nullable=False, default="routine"),  # Priority
    Column("patient_name", String(400), nullable=False, default=""),
    Column("patient_id", String(64), nullable=False, default=""),
    Column("accession_number", String(16), nullable=False, default=""),
    Column("study_description", String(64), nullable=False, default=""),
    Column("study_date", String(8), nullable=False, default=""),
    Column("held_reason", Text, nullable=False, default=""),  # a mismatch among sources holds the result
    Column("retracted_at", UtcTime),
    Column("purged_at", UtcTime),
)

series = Table(
    "series",
    metadata,
    Column("series_instance_uid", String(64), primary_key=True),
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), nullable=False, index=True),
    Column("state", String(12), nullable=False, index=True),  # SeriesState
    Column("version", Integer, nullable=False, default=0),  # completions so far
    Column("modality", String(16), nullable=False, default=""),
    Column("description", String(64), nullable=False, default=""),
    Column("calling_ae", String(16), nullable=False, default=""),
    Column("instances", Integer, nullable=False, default=0),
    Column("for_analysis", Boolean, nullable=False),
    Column("first_received_at", UtcTime, nullable=False),
    Column("last_received_at", UtcTime, nullable=False),
    Column("completed_at", UtcTime),
    Column("completion", String(64), nullable=False, default=""),  # why it counts as complete
    Column("possibly_incomplete", Boolean, nullable=False, default=False),
)

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("series_instance_uid", String(64), ForeignKey("series.series_instance_uid"), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("path", Text, nullable=False),  # relative to the storage folder
    Column("sha256", String(64), nullable=False),  # of the data set's bytes
    Column("header", JSON, nullable=False),  # node.headers.Header
    Column("received_at", UtcTime, nullable=False),
    Column("intake_seq", Integer, nullable=False, index=True),
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", Integer, primary_key=True),
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), nullable=False, index=True),
    Column("model", String(32), nullable=False),  # ct_haemorrhage, mr_abnormality
    Column("version", Integer, nullable=False),  # 1, 2 ... of this study and model
    Column("shadow", Boolean, nullable=False, default=False),
    Column("state", String(16), nullable=False, index=True),  # TaskState
    Column("reason_code", String(64), nullable=False, default=""),
    Column("reason_text", Text, nullable=False, default=""),
    Column("series_instance_uid", String(64), nullable=False, default=""),  # the chosen series; empty: none fits
    Column("series_version", Integer, nullable=False, default=0),  # series.version that was read
    Column("choice", JSON, nullable=False, default=list),  # every candidate with its reasons
    Column("possibly_incomplete", Boolean, nullable=False, default=False),
    Column("input_key", String(64), nullable=False, default=""),  # decision 5: same key, same result
    Column("urgency", Integer, nullable=False, default=2),  # 0 STAT, 1 CT, 2 the rest; then age
    Column("last_instance_at", UtcTime, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("run_after", UtcTime, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("claimed_by", String(64), nullable=False, default=""),
    Column("claimed_until", UtcTime),
    Column("finished_at", UtcTime),
    Column("seconds", Float),  # of computation
    Column("model_name", String(64), nullable=False, default=""),
    Column("model_version", String(32), nullable=False, default=""),
    Column("model_sha256", String(64), nullable=False, default=""),
    Column("findings", JSON, nullable=False, default=list),  # inference.result.Finding, main one first
    Column("superseded_by", Integer),  # task_id
    UniqueConstraint("study_instance_uid", "model", "version", "shadow"),
)
Index("tasks_queue", tasks.c.state, tasks.c.urgency, tasks.c.last_instance_at)

objects = Table(
    "objects",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("task_id", Integer, ForeignKey("tasks.task_id"), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("kind", String(4), nullable=False),  # ObjectKind
    Column("role", String(32), nullable=False),  # result | heatmap | key-objects | parametric-map | rejection-note
    Column("profile", String(64), nullable=False),
    Column("path", Text, nullable=False),  # relative to the storage folder
    Column("sha256", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery_id", Integer, primary_key=True),
    Column("sop_instance_uid", String(64), ForeignKey("objects.sop_instance_uid"), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("destination", String(32), nullable=False),
    Column("rank", Integer, nullable=False),  # 0 SR first, then key objects, then images
    Column("state", String(12), nullable=False, index=True),  # DeliveryState
    Column("attempt", Integer, nullable=False, default=0),
    Column("run_after", UtcTime, nullable=False),
    Column("queued_at", UtcTime, nullable=False),
    Column("sent_at", UtcTime),
    Column("confirmed_at", UtcTime),
    Column("confirmed_by", String(24), nullable=False, default=""),  # ConfirmedBy
    Column("status", String(8), nullable=False, default=""),  # last DIMSE status, 0xNNNN
    Column("error", Text, nullable=False, default=""),  # last error, in words
    Column("transaction_uid", String(64), nullable=False, default="", index=True),  # open storage commitment
    UniqueConstraint("sop_instance_uid", "destination"),
)
Index("deliveries_due", deliveries.c.state, deliveries.c.run_after)

commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("destination", String(32), nullable=False),
    Column("requested_at", UtcTime, nullable=False),
    Column("answered_at", UtcTime),
    Column("outcome", String(16), nullable=False, default=""),  # committed | failures | timeout
)

audit = Table(
    "audit",
    metadata,
    Column("audit_id", Integer, primary_key=True),
    Column("at", UtcTime, nullable=False, index=True),
    Column("actor", String(64), nullable=False),  # a user, or the process
    Column("action", String(48), nullable=False),
    Column("study_instance_uid", String(64), nullable=False, default="", index=True),
    Column("detail", Text, nullable=False, default=""),  # no patient data
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", UtcTime, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", String(96), primary_key=True),  # "intake <generation>": the last intake_seq taken over
    Column("value", Integer, nullable=False),
)
