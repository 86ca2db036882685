"""The tables of the rankings: projects, their slices, batches by rater, cut-points, label sets.

Slices hold no patient data; ``source_sop_instance_uid`` joins labels to studies in this house and never leaves it.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

from node.store.ledger_tables import UtcTime

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("project_id", Integer, primary_key=True),
    Column("name", String(48), nullable=False, unique=True),
    Column("lowest", String(80), nullable=False),  # words at the left end of the row
    Column("highest", String(80), nullable=False),
    Column("classes", JSON, nullable=False),  # names, lowest first; empty: ranking alone
    Column("batch_size", Integer, nullable=False),
    Column("repeat_share", Float, nullable=False),
    Column("min_views", Integer, nullable=False),
    Column("min_raters", Integer, nullable=False),
    Column("max_error", Float, nullable=False),
    Column("revision", Integer, nullable=False, default=0),  # goes up with every change of the submitted batches
    Column("created_at", UtcTime, nullable=False),
)

slices = Table(
    "slices",
    metadata,
    Column("project_id", Integer, ForeignKey("projects.project_id"), primary_key=True),
    Column("item", Integer, primary_key=True),  # 0, 1 ... of the project, in random order
    Column("rows", Integer, nullable=False),
    Column("columns", Integer, nullable=False),
    Column("aspect", Float, nullable=False),  # row spacing over column spacing
    Column("window_centre", Float, nullable=False),
    Column("window_width", Float, nullable=False),
    Column("unit", String(8), nullable=False, default=""),
    Column("path", Text, nullable=False),  # relative to the storage folder: int16, zlib
    Column("source_sop_instance_uid", String(64), nullable=False),
    Column("source_frame", Integer),
    Column("source_group", String(64), nullable=False),  # hash of the patient: keeps training and test apart
)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Integer, primary_key=True),
    Column("project_id", Integer, ForeignKey("projects.project_id"), nullable=False),
    Column("rater", String(64), nullable=False),
    Column("mode", String(8), nullable=False),  # rank | single
    Column("state", String(12), nullable=False),  # open | submitted | skipped
    Column("items", JSON, nullable=False),  # as first shown
    Column("arrangement", JSON, nullable=False),  # Arrangement
    Column("repeat_of", Integer),  # batch_id: a hidden repeat
    Column("seconds", Float, nullable=False, default=0.0),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("submitted_at", UtcTime),
)
Index("batches_of_project", batches.c.project_id, batches.c.state)
Index(
    "one_open_batch",
    batches.c.project_id,
    batches.c.rater,
    batches.c.mode,
    unique=True,
    sqlite_where=batches.c.state == "open",
    postgresql_where=batches.c.state == "open",
)

cuts = Table(
    "cuts",
    metadata,
    Column("project_id", Integer, ForeignKey("projects.project_id"), primary_key=True),
    Column("rater", String(64), primary_key=True),
    Column("boundary", Integer, primary_key=True),  # 0: between the first and the second class
    Column("score", Float, nullable=False),
    Column("revision", Integer, nullable=False),  # of the scale it was set on
    Column("set_at", UtcTime, nullable=False),
)

label_sets = Table(
    "label_sets",
    metadata,
    Column("set_id", Integer, primary_key=True),
    Column("project_id", Integer, ForeignKey("projects.project_id"), nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("summary", JSON, nullable=False),  # cuts, raters' weights, agreement, counts
    Column("created_by", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

labels = Table(
    "slice_labels",
    metadata,
    Column("set_id", Integer, ForeignKey("label_sets.set_id"), primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("score", Float, nullable=False),
    Column("error", Float, nullable=False),
    Column("class_index", Integer, nullable=False),
    Column("uncertain", Boolean, nullable=False),
)
