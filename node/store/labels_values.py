"""Plain values of the label store: reports as read, rows that could not be read, pieces of an archive, counts.

Know no database and no source; the connectors (``node.archive.sources``) make them, the label store keeps them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from datetime import datetime

from inference.report_answer import ReportLabels

REPORT_FIELDS = (
    "report_id",
    "accession_number",
    "study_instance_uid",
    "text",
    "modality",
    "reported_at",
    "status",
    "addendum",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One radiology report as its archive gives it.

    Attributes
    ----------
    report_id
        The archive's own key; empty when it has none (then falx derives one, see ``node.archive.identity``).
    modality
        "CT", "MR" or "" (unknown).
    status
        "preliminary", "final", "amended" or "" (unknown).
    source_position
        Where it was read, for messages: file and row, or table and key.
    flags
        What reading had to mend (``nul_bytes``, ``encoding``, ``bad_time``).
    """

    report_id: str = ""
    accession_number: str = ""
    study_instance_uid: str = ""
    text: str
    modality: str = ""
    reported_at: datetime | None = None
    status: str = ""
    addendum: bool = False
    source_position: str
    flags: tuple[str, ...] = ()

    @property
    def text_sha256(self) -> str:
        """The hash that tells whether the text changed."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """Something in an archive that gives no report: where, a stable code, a sentence without patient data.

    ``ends_part`` says that the rest of its part could not be read either; the part is then read again next time.
    """

    source_position: str
    code: str
    text: str
    ends_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of an archive that is read in one go: a file, or a whole table.

    Attributes
    ----------
    key
        Unique and stable in its archive: a relative path, a table.
    fingerprint
        Changes when the content may have changed (size and time of a file); empty: read at every run.
    incremental
        Read on from where the last run ended (a cursor column), so absence of an old report means nothing.
    """

    key: str
    fingerprint: str = ""
    incremental: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """A part that a run still has to read, from ``position`` on (None: from its beginning)."""

    part_id: int
    part: Part
    position: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The current row of one report id: what the last run that met it stored."""

    row_id: int
    text_sha256: str
    model_sha256: str
    set_id: int
    reported_at: datetime | None
    seen: bool  # in the run that asks


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledReport:
    """A report under its final id with what the model said; ``replaces`` is the row it takes the place of."""

    report_id: str
    report: Report
    labels: ReportLabels
    part_id: int
    replaces: int | None = None


@dataclass(slots=True)
class Counts:
    """What a run met. ``read`` is the sum of the next seven; ``gone`` counts reports that were not met any more."""

    read: int = 0
    new: int = 0
    changed: int = 0
    remodelled: int = 0
    unchanged: int = 0
    duplicates: int = 0
    superseded: int = 0
    flagged: int = 0
    gone: int = 0

    @property
    def labelled(self) -> int:
        """How many reports the model spoke on in this run."""
        return self.new + self.changed + self.remodelled

    @property
    def adds_up(self) -> bool:
        """Every report read has exactly one fate."""
        return self.read == self.labelled + self.unchanged + self.duplicates + self.superseded + self.flagged

    def add(self, kind: str) -> None:
        """Count one report of a fate."""
        self.read += 1
        setattr(self, kind, getattr(self, kind) + 1)

    def as_dict(self) -> dict[str, int]:
        """Plain numbers, ``labelled`` included."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"labelled": self.labelled}


COUNTED = tuple(f.name for f in fields(Counts))


@dataclass(slots=True)
class Batch:
    """What one step of a run stores in one transaction."""

    labelled: list[LabelledReport] = field(default_factory=list)
    seen: list[tuple[int, int]] = field(default_factory=list)  # (row_id, part_id): met again, still valid
    flagged: list[tuple[int, Flagged]] = field(default_factory=list)  # (part_id, what)
    counts: dict[int, Counts] = field(default_factory=dict)  # by part_id
    positions: dict[int, str] = field(default_factory=dict)  # by part_id: read up to and including
    ended: dict[int, bool] = field(default_factory=dict)  # by part_id: True when read to its end without a break

    def count(self, part_id: int, kind: str) -> None:
        """Count one report of a part."""
        self.counts.setdefault(part_id, Counts()).add(kind)
