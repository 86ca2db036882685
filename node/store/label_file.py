"""Writes label files, CSV or Parquet, row by row; what their columns mean is in ``docs/labels.md``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from inference.labels import REPORT_LABELS
from node.errors import Misconfigured

SCHEMA = pa.schema(
    [
        ("study_instance_uid", pa.string()),
        ("accession_number", pa.string()),
        *((label, pa.int8()) for label in REPORT_LABELS),
        *((f"p_{label}", pa.float32()) for label in REPORT_LABELS),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("model_sha256", pa.string()),
        ("reports", pa.int32()),
        ("corrected", pa.string()),
    ]
)


class LabelFileWriter(Protocol):
    """Writes rows, then is closed."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None: ...
    def close(self) -> None: ...


class _Csv:
    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._stream, SCHEMA.names)
        self._writer.writeheader()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._writer.writerow(
                {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
            )

    def close(self) -> None:
        self._stream.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._writer.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA))

    def close(self) -> None:
        self._writer.close()


def open_writer(suffix: str, path: Path) -> LabelFileWriter:
    """Open a label file of a suffix; raise Misconfigured for another than .csv and .parquet."""
    if suffix not in (".csv", ".parquet"):
        raise Misconfigured("a label file ends in .csv or .parquet: give --out FILE.csv or --out FILE.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    return _Csv(path) if suffix == ".csv" else _Parquet(path)
