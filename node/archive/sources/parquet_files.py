"""Reports in Parquet files, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from node.archive.sources.csv_files import TableFolder
from node.store.labels_values import Flagged, Report

BATCH_ROWS = 1024


class ParquetFolder(TableFolder):
    """Parquet files; only the mapped columns are read."""

    suffixes = (".parquet", ".pq")
    unreadable = (OSError, EOFError, UnicodeError, pa.ArrowException)

    def names(self, path: Path) -> list[str]:
        """The names in the schema."""
        return list(pq.read_schema(path).names)

    def records(self, path: Path, key: str) -> Iterator[Report | Flagged]:
        """Read one file."""
        with pq.ParquetFile(path) as file:
            columns = self.narrowed(list(file.schema_arrow.names), key)
            if isinstance(columns, Flagged):
                yield columns
                return
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns.names):
                for row in batch.to_pylist():
                    number += 1
                    yield columns.report(row, f"{key}, row {number}")
