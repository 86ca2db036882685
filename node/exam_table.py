"""The exam table of the triage simulation, read from CSV or Parquet and written as CSV.

Columns: accession, acquired, reported (empty: never), label (1 abnormal, 0 normal, empty: unknown), probability (of the
model), category (optional). Errors name the line and the column, never an accession number.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from inference.triage import Exams
from inference.triage_site import MONDAY, Site
from node.errors import Rejected

COLUMNS = ("accession", "acquired", "reported", "label", "probability", "category")
_REQUIRED = ("acquired", "reported", "label", "probability")
_LABELS = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "abnormal": 1.0, "normal": 0.0, "true": 1.0, "false": 0.0}
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Row = tuple[datetime, datetime | None, float, float, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamTable:
    """Exams with the time of hour 0, and how many lines were left out for which reason."""

    exams: Exams
    start: datetime
    left_out: dict[str, int]

    @property
    def start_weekday_hour(self) -> float:
        """Hours from Monday 0:00 to hour 0."""
        return self.start.weekday() * 24 + self.start.hour + self.start.minute / 60


def read_exams(path: Path) -> ExamTable:
    """Read an exam table.

    Lines without time of acquisition, reported before they were acquired, or of an accession seen before are left out
    and counted.

    Raises
    ------
    Rejected
        The file or a column is missing, a value makes no sense (with line and column), or nothing is left.
    """
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for line, record in enumerate(_records(path), start=2):
        accession = _text(record.get("accession"))
        fault = "duplicate_accession" if accession and accession in seen else ""
        row = None if fault else _row(record, f"{path.name} line {line}")
        if row is None:
            fault = fault or "no_time_of_acquisition"
        elif row[1] is not None and row[1] < row[0]:
            fault = "reported_before_acquired"
        if fault or row is None:
            left_out[fault] += 1
        else:
            seen.add(accession)
            rows.append(row)
    if not rows:
        raise Rejected("no_exams", f"{path} holds no usable exam; left out: {dict(left_out)}")
    try:
        rows.sort(key=lambda row: row[0])
    except TypeError:
        raise Rejected("mixed_time_zones", f"{path}: some times have a time zone and some have none") from None
    return ExamTable(exams=_exams(rows), start=rows[0][0], left_out=dict(left_out))


def _exams(rows: list[Row]) -> Exams:
    start = rows[0][0]

    def hours(at: datetime | None) -> float:
        return float("nan") if at is None else (at - start).total_seconds() / 3600

    return Exams(
        acquired_h=np.array([hours(row[0]) for row in rows]),
        reported_h=np.array([hours(row[1]) for row in rows]),
        abnormal=np.array([row[2] for row in rows]),
        probability=np.array([row[3] for row in rows]),
        category=tuple(row[4] for row in rows),
    )


def _records(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            import polars

            records: list[dict[str, Any]] = polars.read_parquet(path).to_dicts()
            columns = set(records[0]) if records else set()
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                records = list(reader)
                columns = set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Rejected("unreadable_table", f"{path} cannot be read: {type(error).__name__}") from None
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise Rejected("missing_column", f"{path} lacks {', '.join(missing)}; wanted: {', '.join(COLUMNS)}")
    return records


def _row(record: Mapping[str, Any], where: str) -> Row | None:
    acquired = _time(record["acquired"], f"{where}, acquired")
    if acquired is None:
        return None
    label = _text(record["label"]).lower()
    if label and label not in _LABELS:
        raise Rejected("bad_value", f"{where}, label: must be 1, 0 or empty")
    return (
        acquired,
        _time(record["reported"], f"{where}, reported"),
        _LABELS.get(label, float("nan")),
        _probability(record["probability"], f"{where}, probability"),
        _text(record.get("category")),
    )


def _time(value: Any, where: str) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if not _text(value):
        return None
    try:
        return datetime.fromisoformat(_text(value))
    except ValueError:
        raise Rejected("bad_value", f"{where}: not a time such as 2024-01-31T14:05:00") from None


def _probability(value: Any, where: str) -> float:
    if not _text(value):
        return float("nan")
    try:
        probability = float(value)
    except ValueError:
        probability = -1.0
    if not 0.0 <= probability <= 1.0:
        raise Rejected("bad_value", f"{where}: must lie between 0 and 1, or be empty")
    return probability


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def write_exams(exams: Exams, path: Path) -> None:
    """Write generated exams as CSV; accession numbers count up."""
    start = datetime.fromisoformat(MONDAY)

    def time(hours: float) -> str:
        return "" if np.isnan(hours) else (start + timedelta(hours=hours)).isoformat(timespec="seconds")

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(len(exams)):
            times = (time(exams.acquired_h[i]), time(exams.reported_h[i]))
            truth, probability = int(exams.abnormal[i]), round(float(exams.probability[i]), 6)
            writer.writerow((f"SIM{i:06d}", *times, truth, probability, exams.category[i]))


def read_sites(path: Path) -> dict[str, Site]:
    """Read site parameters (docs/triage.md); raise Rejected naming the site and the fault."""
    document = _yaml(path)
    sites = {}
    for name, values in document.items():
        try:
            parts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            sites[name] = Site(**parts)
        except (TypeError, ValueError, AttributeError) as error:
            raise Rejected("bad_site", f"{path}, site {name}: {error}") from None
    return sites


def read_schedule(path: Path) -> list[list[float]]:
    """Read a reading schedule: weekday (mon ... sun) -> {hour: exams read}; return exams an hour ``[7][24]``."""
    document = _yaml(path)
    unknown = sorted(str(day) for day in set(document) - set(_WEEKDAYS))
    if unknown:
        raise Rejected("bad_schedule", f"{path}: unknown day {', '.join(unknown)}; use {', '.join(_WEEKDAYS)}")
    rates = [[0.0] * 24 for _ in _WEEKDAYS]
    for day, hours in document.items():
        for hour, count in (hours or {}).items():
            if not (isinstance(hour, int) and 0 <= hour < 24 and isinstance(count, int | float) and count >= 0):
                raise Rejected("bad_schedule", f"{path}, {day}: wants hours 0 to 23 with counts of 0 or more")
            rates[_WEEKDAYS.index(day)][hour] = float(count)
    if not any(any(row) for row in rates):
        raise Rejected("bad_schedule", f"{path}: nothing is ever read")
    return rates


def _yaml(path: Path) -> dict[Any, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Rejected("unreadable_file", f"{path} cannot be read as YAML: {type(error).__name__}") from None
    if not isinstance(document, dict):
        raise Rejected("unreadable_file", f"{path} holds no mapping")
    return document
