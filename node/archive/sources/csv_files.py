"""Reports in CSV files.

Options: ``delimiter`` (default a comma), ``encoding`` (default UTF-8, or UTF-16 by its byte order mark).
"""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from node.archive.sources.columns import Columns
from node.archive.sources.folder import FolderSource, open_text
from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.labels_values import Flagged, Report

MAX_CELL_CHARACTERS = 64 * 1024 * 1024
FILES_TO_CHECK = 50


class TableFolder(FolderSource):
    """Files that hold rows under column names; subclasses know how to read the names."""

    def __init__(self, archive: ArchiveSettings) -> None:
        super().__init__(archive)
        self.columns = Columns.of(archive)

    def check(self) -> None:
        """Raise Misconfigured unless the first readable files hold the columns of the mapping."""
        super().check()
        problem: Misconfigured | None = None
        for path in islice(self.files(), FILES_TO_CHECK):
            try:
                self.columns.present(self.names(path), self.archive.columns)
                return
            except Misconfigured as error:
                problem = problem or error
            except self.unreadable:
                continue  # the run flags it
        if problem is not None:
            raise problem

    @abstractmethod
    def names(self, path: Path) -> list[str]:
        """The column names of one file."""

    def narrowed(self, existing: list[str], key: str) -> Columns | Flagged:
        """The columns of one file, or the flag that says which it lacks."""
        try:
            return self.columns.present(existing, self.archive.columns)
        except Misconfigured as error:
            return Flagged(source_position=key, code="missing_column", text=str(error), ends_part=True)


class CsvFolder(TableFolder):
    """CSV files with a header line; quoted cells may hold line breaks."""

    suffixes = (".csv", ".tsv", ".txt", ".csv.gz")
    unreadable = (OSError, EOFError, UnicodeError, csv.Error)

    def names(self, path: Path) -> list[str]:
        """The header line."""
        with open_text(path, str(self.archive.options.get("encoding", ""))) as stream:
            return next(self._reader(stream, path), [])

    def _reader(self, stream: Iterator[str] | object, path: Path) -> Iterator[list[str]]:
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        default = "\t" if path.suffix == ".tsv" else ","
        return csv.reader(stream, delimiter=str(self.archive.options.get("delimiter", default)))  # type: ignore[arg-type]

    def records(self, path: Path, key: str) -> Iterator[Report | Flagged]:
        """Read one file; a row of the wrong width is flagged."""
        with open_text(path, str(self.archive.options.get("encoding", ""))) as stream:
            rows = self._reader(stream, path)
            header = next(rows, [])
            columns = self.narrowed(header, key)
            if isinstance(columns, Flagged):
                yield columns
                return
            for number, row in enumerate(rows, start=2):
                position = f"{key}, row {number}"
                if len(row) == len(header):
                    yield columns.report(dict(zip(header, row, strict=True)), position)
                elif row:
                    yield Flagged(
                        source_position=position,
                        code="unreadable_row",
                        text=f"{len(row)} cells under {len(header)} column names",
                    )
