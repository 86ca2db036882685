"""From the rows of a table (CSV, Parquet, JSONL, SQL) to reports: the column mapping and the meaning of cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inference.report_text import MAX_REPORT_CHARACTERS
from node.archive.sources.cells import as_text, as_time, is_true, modality_of, status_of
from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.labels_values import REPORT_FIELDS, Flagged, Report

_LONGEST_SHOWN_NAME = 40
_MOST_SHOWN_NAMES = 30


@dataclass(frozen=True, slots=True)
class Columns:
    """Which field of falx stands in which columns; ``text`` may join several ("findings + impression")."""

    fields: Mapping[str, tuple[str, ...]]
    archive: str
    modality: str = ""

    @classmethod
    def of(cls, archive: ArchiveSettings) -> Columns:
        """Read the mapping of an archive; raise Misconfigured for a field that falx does not have."""
        unknown = sorted(set(archive.columns) - set(REPORT_FIELDS))
        if unknown:
            raise Misconfigured(
                f"archives.{archive.name}.columns: no field is called {', '.join(unknown)}; "
                f"falx's fields are {', '.join(REPORT_FIELDS)}"
            )
        fields: dict[str, tuple[str, ...]] = {name: (name,) for name in REPORT_FIELDS}
        for name, column in archive.columns.items():
            fields[name] = tuple(part.strip() for part in column.split("+")) if name == "text" else (column,)
        return cls(fields, archive.name, archive.modality)

    def present(self, existing: Iterable[str], mapped: Iterable[str]) -> Columns:
        """Narrow to the columns that exist.

        Raises
        ------
        Misconfigured
            When a column that the mapping names, or the text, does not exist; names it and those that do.
        """
        there = list(existing)
        required = set(mapped) | {"text"}
        missing = [
            f"{name} -> {column}" if column != name else name
            for name in REPORT_FIELDS
            if name in required
            for column in self.fields[name]
            if column not in there
        ]
        if missing:
            raise Misconfigured(
                f"archives.{self.archive}.columns: not in the source: {', '.join(missing)}; "
                f"its columns are {_shown(there)}"
            )
        fields = {name: columns for name, columns in self.fields.items() if set(columns) <= set(there)}
        return Columns(fields, self.archive, self.modality)

    @property
    def names(self) -> list[str]:
        """The source's columns that are read, each once."""
        return list(dict.fromkeys(column for columns in self.fields.values() for column in columns))

    def report(self, row: Mapping[str, object], position: str) -> Report | Flagged:
        """Make a report of one row (source's column -> cell)."""
        flags: list[str] = []
        cells = {name: as_text(row.get(columns[0]), flags) for name, columns in self.fields.items() if name != "text"}
        time, is_read = as_time(row.get(self.fields["reported_at"][0]) if "reported_at" in self.fields else None)
        if not is_read:
            flags.append("bad_time")
        return checked(
            Report(
                report_id=cells.get("report_id", "").strip(),
                accession_number=cells.get("accession_number", "").strip(),
                study_instance_uid=cells.get("study_instance_uid", "").strip(),
                text=self._text(row, flags),
                modality=modality_of(cells.get("modality", "")) or self.modality,
                reported_at=time,
                status=status_of(cells.get("status", "")),
                addendum=is_true(cells.get("addendum", "")),
                source_position=position,
                flags=tuple(dict.fromkeys(flags)),
            )
        )

    def _text(self, row: Mapping[str, object], flags: list[str]) -> str:
        columns = self.fields["text"]
        if len(columns) == 1:
            return as_text(row.get(columns[0]), flags)
        sections = ((column, as_text(row.get(column), flags).strip()) for column in columns)
        return "\n".join(f"{name.replace('_', ' ').capitalize()}: {text}" for name, text in sections if text)


def _shown(names: list[str]) -> str:
    """Column names for a message. A file without a header has a report in the first line: never quote that."""
    shown = [
        name if len(name) <= _LONGEST_SHOWN_NAME and name.isprintable() else f"(a cell of {len(name)} characters)"
        for name in names[:_MOST_SHOWN_NAMES]
    ]
    more = len(names) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown) or "(none)"


def checked(report: Report) -> Report | Flagged:
    """Pass a report on, or flag what no head report can be."""
    if len(report.text) > MAX_REPORT_CHARACTERS:
        return Flagged(
            source_position=report.source_position,
            code="too_long",
            text=f"a text of {len(report.text)} characters is no report (limit {MAX_REPORT_CHARACTERS})",
        )
    if report.modality not in ("", "CT", "MR"):
        return Flagged(
            source_position=report.source_position, code="other_modality", text="neither CT nor MR: not labelled"
        )
    for name, limit in (("report_id", 240), ("accession_number", 64), ("study_instance_uid", 64)):
        value = getattr(report, name)
        if len(value) > limit or not value.isprintable():
            return Flagged(
                source_position=report.source_position,
                code="bad_identifier",
                text=f"{name} is longer than {limit} characters or not printable: the column mapping may be wrong",
            )
    return report
