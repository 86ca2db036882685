"""The tables of the intake: what was received, and from whom. Reception writes them; everyone else reads.

One exception: ``purge_requests`` is where the service asks reception to forget a study. Readers: ``intake``.
Times are aware UTC.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Index, Integer, MetaData, String, Table, Text

from node.store.ledger_tables import UtcTime

metadata = MetaData()

generation = Table(
    "generation",
    metadata,
    Column("generation", String(12), primary_key=True),  # a rebuilt index starts a new one: cursors start again
)

instances = Table(
    "instances",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),  # order of commit; never used twice
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("path", Text, nullable=False),  # relative to the storage folder
    Column("size_bytes", Integer, nullable=False),  # of the data set
    Column("sha256", String(64), nullable=False),  # of the data set's bytes, without file meta
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("remote_host", String(64), nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("for_analysis", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

associations = Table(
    "associations",
    metadata,
    Column("association", String(32), primary_key=True),
    Column("calling_ae", String(16), nullable=False),
    Column("opened_at", UtcTime, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", Integer, primary_key=True, autoincrement=True),
    Column("received_at", UtcTime, nullable=False),
    Column("code", String(32), nullable=False),  # unreadable | different-content
    Column("reason", Text, nullable=False),  # no patient data
    Column("path", Text, nullable=False),  # relative to the storage folder
    Column("study_instance_uid", String(64), nullable=False),  # as far as known
    Column("sop_instance_uid", String(64), nullable=False),  # as far as known
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("remote_host", String(64), nullable=False),
    sqlite_autoincrement=True,
)
Index("quarantine_sop", quarantine.c.sop_instance_uid)

commitment_events = Table(
    "commitment_events",
    metadata,
    Column("event_id", Integer, primary_key=True, autoincrement=True),
    Column("transaction_uid", String(64), nullable=False),
    Column("committed", JSON, nullable=False),  # SOP Instance UIDs
    Column("failed", JSON, nullable=False),  # SOP Instance UID -> Failure Reason (0008,1197)
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", UtcTime, nullable=False),
    sqlite_autoincrement=True,
)

announcements = Table(
    "announcements",
    metadata,
    Column("announcement_id", Integer, primary_key=True, autoincrement=True),
    Column("series_instance_uid", String(64), nullable=False, index=True),
    Column("instances", JSON, nullable=False),  # SOP Instance UIDs that the series is said to have
    Column("source", String(8), nullable=False),  # MPPS | IAN
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", UtcTime, nullable=False),
    sqlite_autoincrement=True,
)

refusals = Table(
    "refusals",
    metadata,
    Column("refusal_id", Integer, primary_key=True, autoincrement=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("series_instance_uid", String(64), nullable=False, index=True),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),  # the row goes when this instance is taken in
    Column("calling_ae", String(16), nullable=False),
    Column("why", String(32), nullable=False),  # the DIMSE status, or that the object ended too early
    Column("refused_at", UtcTime, nullable=False),
    sqlite_autoincrement=True,
)

purge_requests = Table(
    "purge_requests",
    metadata,
    Column("request_id", Integer, primary_key=True, autoincrement=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("up_to_seq", Integer, nullable=False),  # instances that came later stay
    Column("requested_at", UtcTime, nullable=False),
    sqlite_autoincrement=True,
)
